//! `inspect`: all that is known of an image or a container.

use std::path::PathBuf;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::ChainId;

use super::Store;
use super::containers::{Container, State};
use super::images::Image;

/// All that is known of an image.
#[derive(Debug)]
pub struct ImageDetails {
    /// What `images` tells of it.
    pub image: Image,
    /// Its config, with what plyfs knows nothing of.
    pub config: Value,
    /// The trees of its layers, topmost first.
    pub trees: Vec<PathBuf>,
}

/// All that is known of a container.
#[derive(Debug)]
pub struct ContainerDetails {
    /// Its record.
    pub container: Container,
    /// Whether and where it is mounted.
    pub state: State,
    /// The config of its image.
    pub config: Value,
    /// The trees of its read-only layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Its writable layer.
    pub upper: PathBuf,
    /// Its workdir.
    pub work: PathBuf,
    /// Bytes of the files in its image.
    pub image_size: u64,
}

impl Store {
    /// All about the image that `text` names.
    ///
    /// # Errors
    /// Where there is none, or a record is damaged.
    pub fn inspect_image(&self, text: &str) -> Result<ImageDetails> {
        let _shared = self.lock_shared()?;
        let catalog = self.catalog()?;
        let (id, _) = catalog.find(text)?;
        let image = self.image(&catalog, &id)?;
        let config = self.whole_config(&id)?;
        let tree = |chain: &ChainId| self.layout.layer_tree(chain);
        let trees = image.layers.iter().rev().map(tree).collect();
        Ok(ImageDetails { image, config, trees })
    }

    /// All about the container that `text` names.
    ///
    /// # Errors
    /// Where there is none, or a record is damaged.
    pub fn inspect_container(&self, text: &str) -> Result<ContainerDetails> {
        let container = self.container(text)?;
        let mut config = self.whole_config(&container.image)?;
        if !container.command.is_empty()
            && let Some(inner) = config.get_mut("config").and_then(Value::as_object_mut)
        {
            inner.insert("Cmd".to_owned(), container.command.clone().into());
        }
        Ok(ContainerDetails {
            state: self.state(&container)?,
            config,
            lowers: self.lowers(&container),
            upper: self.upper(&container),
            work: self.layout.work(&container.id),
            image_size: self.image_size(&container)?,
            container,
        })
    }

    fn whole_config(&self, id: &crate::image::ImageId) -> Result<Value> {
        let (bytes, _) = self.image_config_bytes(id)?;
        serde_json::from_slice(&bytes).map_err(|e| Error::invalid(id.to_string(), e.to_string()))
    }
}
