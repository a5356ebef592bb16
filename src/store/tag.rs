//! `tag`: one more name for an image.

use crate::error::Result;
use crate::image::{ImageId, Reference};

use super::Store;

impl Store {
    /// Gives the image that `text` names one more name, which another image may have had.
    ///
    /// # Errors
    /// Where there is no such image.
    pub fn tag(&self, text: &str, reference: Reference) -> Result<ImageId> {
        let transaction = self.begin()?;
        let exclusive = self.lock_exclusive()?;
        let before = self.catalog()?;
        let (id, _) = before.find(text)?;
        let mut catalog = before.clone();
        catalog.name(id, reference);
        if catalog != before {
            self.commit_catalog(&catalog, &transaction, &exclusive)?;
        }
        drop(exclusive);
        transaction.end()?;
        Ok(id)
    }
}
