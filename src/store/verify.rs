//! `verify`: whether everything still is what its digests say.
//!
//! A layer is unpacked anew from its archive, whose digests are checked on the way, and compared
//! with the tree that is mounted. So whatever an unpacking decides is decided in one place.

use std::collections::BTreeSet;

use crate::archive::tar_read;
use crate::archive::watch::{Stage, Telling, Watch};
use crate::changeset::deviations;
use crate::error::{Error, Result};
use crate::image::{ChainId, ImageId};

use super::layers::make_layer_dir;
use super::transaction::Transaction;
use super::{Store, durable};

/// Something that is not what it should be.
#[derive(Debug, Clone)]
pub struct Damage {
    /// The image or layer.
    pub of: String,
    /// The path in the layer, where it is one file that differs.
    pub path: Option<Vec<u8>>,
    /// What is wrong.
    pub what: String,
}

/// What a `verify` found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// How many images were looked at.
    pub images: usize,
    /// How many layers.
    pub layers: usize,
    /// All that is wrong.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Checks the images that `names` name, or all: their configs and the content of all their
    /// layers, of each of which `watch` is told.
    ///
    /// # Errors
    /// Where there is no such image, or something cannot be read at all.
    pub fn verify(&self, names: &[String], watch: &dyn Watch) -> Result<Verified> {
        let transaction = self.begin()?;
        let mut found = Verified::default();
        let telling = Telling { watch, stage: Stage::Verify };
        let mut chains = BTreeSet::new();
        for id in self.images_to_verify(names)? {
            found.images += 1;
            if let Err(error) = self.verify_manifests(&self.catalog()?, &id) {
                found.damage.push(damage(format!("image {id}"), &error));
            }
            match self.image_config(&id) {
                Ok(config) => chains.extend(config.chain()),
                Err(error) => found.damage.push(damage(format!("image {id}"), &error)),
            }
        }
        for chain in chains {
            if let Err(error) = self.verify_layer(&chain, &transaction, telling, &mut found.damage)
            {
                // Nothing is wrong with what somebody removed meanwhile.
                if self.layout.layer(&chain).exists() {
                    found.damage.push(damage(format!("layer {chain}"), &error));
                }
            }
            found.layers += 1;
        }
        transaction.end()?;
        Ok(found)
    }

    fn images_to_verify(&self, names: &[String]) -> Result<BTreeSet<ImageId>> {
        let _shared = self.lock_shared()?;
        let catalog = self.catalog()?;
        match names {
            [] => Ok(catalog.ids().copied().collect()),
            names => names.iter().map(|name| Ok(catalog.find(name)?.0)).collect(),
        }
    }

    fn verify_layer(
        &self,
        chain: &ChainId,
        transaction: &Transaction,
        telling: Telling<'_>,
        damages: &mut Vec<Damage>,
    ) -> Result<()> {
        let record = self.layer(chain)?;
        if ChainId::extend(record.parent, record.diff_id) != *chain {
            return Err(Error::invalid("its record", "names another layer"));
        }
        let kept = self.kept_layer(chain)?;
        // Whatever nobody reads is read and checked in the end.
        kept.read(Telling::NOBODY, |_| Ok(()))?;
        let dir = transaction.path(format!("anew-{}", chain.0.hex()));
        let tree = make_layer_dir(&dir)?;
        let what = kept.file.display().to_string();
        let unpacked = kept.read_plain(telling, |tar| tar_read::unpack_layer(tar, &tree, &what))?;
        for deviation in deviations(&tree, &self.layout.layer_tree(chain), unpacked.root)? {
            let (of, what) = (format!("layer {chain}"), deviation.what.to_owned());
            damages.push(Damage { of, path: Some(deviation.path), what });
        }
        durable::remove_all(&dir)
    }
}

fn damage(of: String, error: &Error) -> Damage {
    Damage { of, path: None, what: error.to_string() }
}
