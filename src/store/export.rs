//! `export`: the merged tree of a container as a tar.

use std::io::Write;

use crate::archive::tar_write;
use crate::error::Result;

use super::Store;
use super::lock::Hold;

impl Store {
    /// Writes the whole tree of the container that `text` names to `out`.
    ///
    /// # Errors
    /// Where there is no such container, a tree cannot be read or `out` cannot be written.
    pub fn export(&self, text: &str, out: &mut dyn Write) -> Result<()> {
        let container = self.container(text)?;
        let _held = self.hold(&container, Hold::Shared)?;
        tar_write::export(&self.lowers(&container), Some(self.upper_dir(&container)), out)
    }

    /// Writes what the container that `text` names changed to `out`, as a layer archive.
    ///
    /// # Errors
    /// As [`Store::export`].
    pub fn layer_tar(&self, text: &str, out: &mut dyn Write) -> Result<()> {
        let container = self.container(text)?;
        let _held = self.hold(&container, Hold::Shared)?;
        tar_write::layer_tar(self.upper_dir(&container), &self.lowers(&container), out)
    }
}
