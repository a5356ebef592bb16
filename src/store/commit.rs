//! `commit`: a new image from what a container changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::archive::{blob, source_date_epoch, tar_read, tar_write};
use crate::changeset;
use crate::error::{Error, Result};
use crate::image::{
    ChainId, Command, Derivation, DiffId, ImageConfig, ImageId, Instruction, Reference, Timestamp,
};
use crate::sys::stat::Time;

use super::containers::Container;
use super::images::NewImage;
use super::layers::{LayerRecord, StagedLayer, StagedLayers, make_layer_dir};
use super::lock::Hold;
use super::transaction::Transaction;
use super::{Store, blobs};

/// What a commit makes of the container.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The name of the new image.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// What was done.
    pub message: Option<String>,
    /// Changes of the config.
    pub changes: Vec<Instruction>,
    /// One layer with everything, instead of one more with what changed.
    pub squash: bool,
    /// When it was made, in seconds since 1970, and the limit of the times in its layer; without
    /// it `SOURCE_DATE_EPOCH`, without that now and no limit.
    pub timestamp: Option<i64>,
}

impl CommitOptions {
    /// The time of the new image, and the latest one in its layer.
    pub(super) fn times(&self) -> Result<(Timestamp, Option<Time>)> {
        let given = self.timestamp.map(|sec| Time { sec, nsec: 0 });
        let Some(at) = given.map_or_else(source_date_epoch, |given| Ok(Some(given)))? else {
            return Ok((Timestamp::now(), None));
        };
        let created = Timestamp::from_unix(at.sec)
            .map_err(|error| Error::option("--timestamp", error.to_string()))?;
        Ok((created, Some(at)))
    }
}

impl Store {
    /// Makes an image of the container that `text` names. Only its writable layer is walked,
    /// unless everything is squashed; where nothing was changed no layer is added.
    ///
    /// # Errors
    /// Where there is no such container, a tree cannot be read or the store not be written.
    pub fn commit(&self, text: &str, options: &CommitOptions) -> Result<ImageId> {
        let transaction = self.begin()?;
        let container = self.container(text)?;
        let _held = self.hold(&container, Hold::Shared)?;
        let (created, latest) = options.times()?;
        let archive = transaction.path("new-layer");
        let has_layer = match options.squash {
            true => self.write_squashed(&container, latest, &archive).map(|()| true),
            false => self.write_changes(&container, latest, &archive),
        }?;
        let mut staged = StagedLayers::default();
        let below = container.layers.last().copied().filter(|_| !options.squash);
        let layer = match has_layer {
            true => Some(self.stage_new(
                (&archive, "the new layer"),
                below,
                &transaction,
                &mut staged,
            )?),
            false => None,
        };
        let changes = changes_of(&container, &options.changes);
        let derivation = Derivation {
            created,
            created_by: "plyfs commit",
            author: options.author.as_deref(),
            comment: options.message.as_deref(),
            layer,
            squash: options.squash,
            changes: &changes,
        };
        let (base, _) = self.image_config_bytes(&container.image)?;
        let base = serde_json::from_slice(&base)
            .map_err(|error| Error::invalid(container.image.to_string(), error.to_string()))?;
        let references = options.reference.iter().cloned().collect();
        let image = derived(&derivation, base, references)?;
        self.publish_new(image, &staged, transaction)
    }

    /// Writes what the container changed to `archive`; returns whether that is anything.
    fn write_changes(
        &self,
        container: &Container,
        latest: Option<Time>,
        archive: &Path,
    ) -> Result<bool> {
        let (lowers, upper) = (self.lowers(container), self.upper_dir(container));
        let changes = changeset::changes_to_carry(&lowers, upper.clone())?;
        if changes.is_empty() && !changeset::root_changed(&lowers, upper.clone())? {
            return Ok(false);
        }
        let mut out = blobs::create(archive)?;
        tar_write::changes_tar(&changes, upper, &lowers, latest, &mut out)?;
        Ok(true)
    }

    fn write_squashed(
        &self,
        container: &Container,
        latest: Option<Time>,
        archive: &Path,
    ) -> Result<()> {
        let (lowers, upper) = (self.lowers(container), self.upper_dir(container));
        tar_write::squashed_tar(&lowers, upper, latest, &mut blobs::create(archive)?)
    }

    /// Unpacks the new layer in `archive`, a plain tar of this transaction, on top of `below`.
    pub(super) fn stage_new(
        &self,
        (archive, what): (&Path, &str),
        below: Option<ChainId>,
        transaction: &Transaction,
        staged: &mut StagedLayers,
    ) -> Result<DiffId> {
        let (diff_id, blob) = blob::describe(archive)?;
        let chain_id = ChainId::extend(below, diff_id);
        if self.has_layer(&chain_id) {
            return Ok(diff_id);
        }
        let dir = transaction.path(format!("layer-{}", chain_id.0.hex()));
        let tree = make_layer_dir(&dir)?;
        let mut tar =
            File::open(archive).map_err(|error| Error::std_io("open", archive, &error))?;
        let unpacked = tar_read::unpack_layer(&mut tar, &tree, what)?;
        let (size, marks) = (unpacked.bytes, Some(unpacked.marks));
        let record = LayerRecord { diff_id, chain_id, parent: below, size, blob, marks };
        staged.add(StagedLayer { dir, blob: PathBuf::from(archive), record })?;
        Ok(diff_id)
    }

    /// Makes a new image visible and ends its transaction.
    pub(super) fn publish_new(
        &self,
        image: NewImage,
        staged: &StagedLayers,
        transaction: Transaction,
    ) -> Result<ImageId> {
        let id = image.id;
        if !self.publish(&[image], staged, &transaction)? {
            let why = "a layer that the new image needs was removed meanwhile: try again";
            return Err(Error::Refused(why.to_owned()));
        }
        transaction.end()?;
        Ok(id)
    }
}

/// The command that the container was made for, then what the user wants changed. That command was
/// meant for the entrypoint that the container has.
fn changes_of(container: &Container, asked: &[Instruction]) -> Vec<Instruction> {
    let is_entrypoint = |change: &Instruction| matches!(change, Instruction::Entrypoint(_));
    let command = Some(container.command.clone()).filter(|command| !command.is_empty());
    let command = command.filter(|_| !asked.iter().any(is_entrypoint));
    let command = command.map(|words| Instruction::Cmd(Command::Exec(words)));
    command.into_iter().chain(asked.iter().cloned()).collect()
}

/// The image of a config that `derivation` makes of `base`.
pub(super) fn derived(
    derivation: &Derivation<'_>,
    base: serde_json::Value,
    references: Vec<Reference>,
) -> Result<NewImage> {
    let invalid = |error: crate::image::ParseError| {
        Error::invalid("the config of the new image", error.to_string())
    };
    let bytes = derivation.config(base).map_err(invalid)?;
    let (id, config) = ImageConfig::parse(&bytes).map_err(invalid)?;
    let (layers, digests, manifest) = (config.chain(), Vec::new(), None);
    Ok(NewImage { id, layers, config: bytes, references, digests, manifest })
}
