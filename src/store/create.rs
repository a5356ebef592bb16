//! `create`: a container from an image.

use crate::error::{Error, Result};
use crate::image::{ImageId, Timestamp};

use super::containers::{Container, ContainerId};
use super::layers::copy_root;
use super::{Store, durable, names};

impl Store {
    /// Makes a container of the image that `image` names; without `name` it gets a random one.
    ///
    /// # Errors
    /// Where there is no such image, or the name is taken or malformed.
    pub fn create(&self, image: &str, name: Option<&str>) -> Result<Container> {
        self.create_for(image, name, &[])
    }

    /// As [`Store::create`], for a command other than the image's. Nothing runs it here.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_for(
        &self,
        image: &str,
        name: Option<&str>,
        command: &[String],
    ) -> Result<Container> {
        if let Some(name) = name {
            names::check(name)?;
        }
        let transaction = self.begin()?;
        let mut container = self.plan(image)?;
        container.command = command.to_vec();
        let staged = transaction.path("container");
        durable::create_dir(&staged, 0o700)?;
        durable::create_dir(&staged.join("diff"), 0o755)?;
        durable::create_dir(&staged.join("work"), 0o700)?;
        durable::create_dir(&staged.join("merged"), 0o700)?;
        if let Some(top) = container.layers.last() {
            // The root of the writable layer is the root of the merged tree.
            copy_root(&self.layout.layer_tree(top), &staged.join("diff"))?;
        }

        let exclusive = self.lock_exclusive()?;
        self.check_still_there(&container.image, image)?;
        container.name = match name {
            Some(name) => name.to_owned(),
            None => self.free_name()?,
        };
        self.check_free(&container.name)?;
        transaction.may_leave_orphans();
        self.link_name(&container.name, &container.id, &exclusive)?;
        durable::write_new(&staged.join("container.json"), &durable::record_bytes(&container)?)?;
        durable::sync_dir(&staged)?;
        durable::rename_new(&staged, &self.layout.container(&container.id))?;
        durable::sync_dir(&self.layout.containers())?;
        drop(exclusive);
        transaction.end()?;
        Ok(container)
    }

    /// The container as it will be, but for its name.
    fn plan(&self, image: &str) -> Result<Container> {
        let _shared = self.lock_shared()?;
        let (id, reference) = self.catalog()?.find(image)?;
        Ok(Container {
            id: ContainerId::random()?,
            name: String::new(),
            image: id,
            image_name: reference.map_or_else(|| id.0.short(), |reference| reference.familiar()),
            created: Timestamp::now(),
            layers: self.image_config(&id)?.chain(),
            command: Vec::new(),
        })
    }

    /// The image may have been removed while the container was being staged.
    fn check_still_there(&self, id: &ImageId, name: &str) -> Result<()> {
        if self.catalog()?.has(id) {
            return Ok(());
        }
        Err(Error::NotFound { kind: "image", name: name.to_owned() })
    }
}
