//! `rename`: another name for a container.

use crate::error::Result;

use super::containers::Container;
use super::{Store, durable, names};

impl Store {
    /// Renames the container that `text` names; it may be mounted.
    ///
    /// # Errors
    /// Where there is none, or the new name is taken or malformed.
    pub fn rename(&self, text: &str, name: &str) -> Result<Container> {
        names::check(name)?;
        let transaction = self.begin()?;
        let exclusive = self.lock_exclusive()?;
        let mut container = self.find_container(text)?;
        if container.name != name {
            self.check_free(name)?;
            transaction.may_leave_orphans();
            self.link_name(name, &container.id, &exclusive)?;
            let before = std::mem::replace(&mut container.name, name.to_owned());
            let record = durable::record_bytes(&container)?;
            let target = self.layout.container_record(&container.id);
            durable::replace(&target, &transaction.path("container.json"), &record)?;
            self.unlink_name(&before, &exclusive)?;
        }
        drop(exclusive);
        transaction.end()?;
        Ok(container)
    }
}
