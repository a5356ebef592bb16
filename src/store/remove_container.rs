//! `rm`: a container and what was written in it.

use crate::error::Result;

use super::Store;
use super::containers::{Container, State, find, mounted};
use super::lock::Hold;

impl Store {
    /// Removes the container that `text` names.
    ///
    /// # Errors
    /// Where there is none, it is mounted, or another command is working on it.
    pub fn remove_container(&self, text: &str) -> Result<Container> {
        let transaction = self.begin()?;
        let exclusive = self.lock_exclusive()?;
        let container = find(self.read_containers()?, text)?;
        let held = self.hold(&container, Hold::Exclusive)?;
        if let State::Mounted(places) = self.state(&container)? {
            return Err(mounted(&container, &places));
        }
        transaction.bury(&self.layout.container(&container.id), &exclusive)?;
        super::durable::sync_dir(&self.layout.containers())?;
        drop((held, exclusive));
        transaction.end()?;
        Ok(container)
    }
}
