//! `history`: how an image came about, step by step.

use serde::Serialize;

use crate::error::Result;
use crate::image::{ChainId, ImageId};

use super::Store;

/// One step of how an image was made.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// The image, for its last step only: what came before has no image of its own.
    pub id: Option<ImageId>,
    /// The layer that it added.
    pub layer: Option<ChainId>,
    /// When, RFC 3339.
    pub created: Option<String>,
    /// By which command.
    pub created_by: String,
    /// What its author says of it.
    pub comment: String,
    /// Bytes of the files in its layer.
    pub size: u64,
}

impl Store {
    /// The steps of the image that `text` names, the last one first. Layers that its config
    /// tells nothing of are steps without words.
    ///
    /// # Errors
    /// Where there is no such image, or a record is damaged.
    pub fn history(&self, text: &str) -> Result<Vec<Step>> {
        let _shared = self.lock_shared()?;
        let (id, _) = self.catalog()?.find(text)?;
        let config = self.image_config(&id)?;
        let mut layers = config.chain().into_iter();
        let mut steps = Vec::new();
        for told in config.history.unwrap_or_default() {
            let layer = if told.empty_layer { None } else { layers.next() };
            let mut step = self.step(layer)?;
            step.created = told.created;
            step.created_by = told.created_by.unwrap_or_default();
            step.comment = told.comment.unwrap_or_default();
            steps.push(step);
        }
        for layer in layers {
            steps.push(self.step(Some(layer))?);
        }
        steps.reverse();
        if let Some(last) = steps.first_mut() {
            last.id = Some(id);
        }
        Ok(steps)
    }

    fn step(&self, layer: Option<ChainId>) -> Result<Step> {
        let size = match &layer {
            Some(chain) => self.layer(chain)?.size,
            None => 0,
        };
        let (created_by, comment) = (String::new(), String::new());
        Ok(Step { id: None, layer, created: None, created_by, comment, size })
    }
}
