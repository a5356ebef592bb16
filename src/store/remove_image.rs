//! `rmi`: a name of an image, or the image with all layers that no other one uses.

use crate::error::{Error, Result};
use crate::image::{ChainId, ImageId, Reference};

use super::Store;
use super::catalog::Catalog;

/// What an `rmi` took away.
#[derive(Debug, Clone, Default)]
pub struct Removed {
    /// Names.
    pub untagged: Vec<Reference>,
    /// The image itself.
    pub image: Option<ImageId>,
    /// Layers that no other image uses, topmost first.
    pub layers: Vec<ChainId>,
}

impl Store {
    /// Removes the image that `text` names. One of several names is only taken away; the last
    /// one, or an id, stands for the image itself.
    ///
    /// With `force` an image goes with all its names, and one that containers use loses its
    /// names but stays for them.
    ///
    /// # Errors
    /// Where there is no such image; without `force`, where containers use it or an id was given
    /// and it has several names.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Removed> {
        let transaction = self.begin()?;
        let exclusive = self.lock_exclusive()?;
        let before = self.catalog()?;
        let (id, reference) = before.find(text)?;
        let mut catalog = before.clone();
        let removed = self.plan_removal(&mut catalog, id, reference, force)?;
        transaction.may_leave_orphans();
        self.commit_catalog(&catalog, &transaction, &exclusive)?;
        if removed.image.is_some() {
            self.bury_orphans(&transaction, &exclusive)?;
        }
        drop(exclusive);
        transaction.end()?;
        Ok(removed)
    }

    /// Takes from `catalog` what is to go.
    fn plan_removal(
        &self,
        catalog: &mut Catalog,
        id: ImageId,
        reference: Option<Reference>,
        force: bool,
    ) -> Result<Removed> {
        let names = catalog.references(&id);
        if let Some(name) = reference.filter(|_| names.len() > 1) {
            catalog.forget_name(&name);
            return Ok(Removed { untagged: vec![name], ..Removed::default() });
        }
        if names.len() > 1 && !force {
            return Err(Error::Refused(format!(
                "image {} has several names ({}): remove them one by one, or use --force",
                id.0.short(),
                names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ")
            )));
        }
        let user = self.read_containers()?.into_iter().find(|container| container.image == id);
        match user {
            Some(container) if !force => Err(Error::InUse {
                what: format!("image {}", id.0.short()),
                by: format!(
                    "container {} ({}) was made from it: remove that first (plyfs rm {0})",
                    container.name,
                    container.id.short()
                ),
            }),
            Some(_) => {
                names.iter().for_each(|name| catalog.forget_name(name));
                Ok(Removed { untagged: names, ..Removed::default() })
            }
            None => {
                let chain = self.image_config(&id)?.chain();
                catalog.remove(&id);
                let live = self.live_layers(catalog)?;
                let layers = chain.into_iter().rev().filter(|chain| !live.contains(chain));
                Ok(Removed { untagged: names, image: Some(id), layers: layers.collect() })
            }
        }
    }
}
