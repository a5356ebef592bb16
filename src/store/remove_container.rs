//! `rm`: a container and what was written in it.

use crate::error::Result;

use super::Store;
use super::containers::{Container, State, mounted};
use super::lock::Hold;

impl Store {
    /// Removes the container that `text` names; with `force` it is unmounted first.
    ///
    /// # Errors
    /// Where there is none, it is mounted, or another command is working on it.
    pub fn remove_container(&self, text: &str, force: bool) -> Result<Container> {
        let transaction = self.begin()?;
        let container = self.container(text)?;
        if force && matches!(self.state(&container)?, State::Mounted(_)) {
            self.umount(&container.id.hex())?;
        }
        let held = self.hold(&container, Hold::Exclusive)?;
        if let State::Mounted(places) = self.state_held(&container, &held)? {
            return Err(mounted(&container, &places));
        }
        let exclusive = self.lock_exclusive()?;
        // While this waited for the locks another command may have removed it.
        let container = self.find_container(&container.id.hex())?;
        transaction.may_leave_orphans();
        transaction.bury(&self.layout.container(&container.id), &exclusive)?;
        super::durable::sync_dir(&self.layout.containers())?;
        self.unlink_name(&container.name, &exclusive)?;
        drop((exclusive, held));
        transaction.end()?;
        Ok(container)
    }
}
