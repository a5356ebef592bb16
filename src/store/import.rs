//! `import`: an image of one layer from the tar of a root filesystem.

use crate::error::Result;
use crate::image::{Derivation, ImageId, derive};

use super::Store;
use super::commit::{CommitOptions, derived};
use super::layers::StagedLayers;
use super::load::{Source, spool};

impl Store {
    /// Makes an image of the tar in `source`, plain or compressed, which becomes its only layer
    /// as it is: `options.squash` means nothing here, and the times in it stay.
    ///
    /// # Errors
    /// Where it is no tar, or the store cannot be written.
    pub fn import(&self, source: Source<'_>, options: &CommitOptions) -> Result<ImageId> {
        let transaction = self.begin()?;
        let archive = transaction.path("new-layer");
        let (file, what) = source.open()?;
        spool(file, &what, &archive)?;
        let mut staged = StagedLayers::default();
        let layer = self.stage_new((&archive, &what), None, &transaction, &mut staged)?;
        let default_comment = format!("Imported from {what}");
        let derivation = Derivation {
            created: options.times()?.0,
            created_by: "plyfs import",
            author: options.author.as_deref(),
            comment: Some(options.message.as_deref().unwrap_or(&default_comment)),
            layer: Some(layer),
            squash: false,
            changes: &options.changes,
        };
        let references = options.reference.iter().cloned().collect();
        let image = derived(&derivation, derive::scratch(), references)?;
        self.publish_new(image, &staged, transaction)
    }
}
