//! Unpacking the layers of images into a transaction, several at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::archive::LayerSource;
use crate::archive::watch::Watch;
use crate::error::{Error, Result};
use crate::image::ChainId;

use super::Store;
use super::at_once::at_once;
use super::incoming::IncomingImage;
use super::layers::{LayerRecord, StagedLayer, StagedLayers, copy_root, make_layer_dir};
use super::transaction::Transaction;

const UNPACKING: &str = "the unpacking of a layer";

/// How layers are unpacked.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// How many at once.
    pub(super) threads: usize,
    /// Who is told.
    pub(super) watch: &'a dyn Watch,
}

impl How<'_> {
    /// As many at once as there are processors.
    pub(super) fn busy(watch: &dyn Watch) -> How<'_> {
        How { threads: thread::available_parallelism().map_or(1, usize::from), watch }
    }
}

/// A layer to be unpacked.
struct Task<'a> {
    layer: &'a dyn LayerSource,
    watch: &'a dyn Watch,
    chain: ChainId,
    parent: Option<ChainId>,
    dir: PathBuf,
    blob: PathBuf,
}

/// One that was, and whether its archive says what its root is like.
type Unpacked = (StagedLayer, bool);

impl Store {
    /// Unpacks the layers of `images` that are neither in the store nor in `staged`.
    pub(super) fn unpack(
        &self,
        images: &[IncomingImage<'_>],
        how: How<'_>,
        transaction: &Transaction,
        staged: &mut StagedLayers,
    ) -> Result<()> {
        let tasks = self.missing(images, how.watch, transaction, staged);
        let mut unpacked = all(&tasks, how.threads)?;
        // An archive that does not speak of the root leaves it as it is in the layer below,
        // which may have it from the one below that: so from the lowest layer up.
        for image in images {
            for chain in image.config.chain() {
                let Some((layer, speaks_of_root)) = unpacked.remove(&chain) else { continue };
                if let Some(parent) = layer.record.parent.filter(|_| !speaks_of_root) {
                    let below = self.staged_or_stored_tree(staged, &parent);
                    copy_root(&below, &layer.dir.join("diff"))?;
                }
                staged.add(layer)?;
            }
        }
        Ok(())
    }

    fn missing<'a>(
        &self,
        images: &[IncomingImage<'a>],
        watch: &'a dyn Watch,
        transaction: &Transaction,
        staged: &StagedLayers,
    ) -> Vec<Task<'a>> {
        let mut tasks: Vec<Task<'a>> = Vec::new();
        for image in images {
            let mut parent = None;
            for (layer, chain) in image.layers.iter().zip(image.config.chain()) {
                let known = tasks.iter().any(|task| task.chain == chain);
                if !known && !staged.has(&chain) && !self.has_layer(&chain) {
                    let place = |kind: &str| transaction.path(format!("{kind}-{}", chain.0.hex()));
                    let (dir, blob) = (place("layer"), place("blob"));
                    tasks.push(Task { layer: *layer, watch, chain, parent, dir, blob });
                }
                parent = Some(chain);
            }
        }
        tasks
    }
}

/// Runs the tasks on so many threads. After a failure none is begun any
/// more; of several failures the one of the first task is returned.
fn all(tasks: &[Task<'_>], threads: usize) -> Result<BTreeMap<ChainId, Unpacked>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    at_once(threads.min(tasks.len()), UNPACKING, || {
        while let Some((i, task)) = take(tasks, &next) {
            let outcome = task.run();
            if outcome.is_err() {
                next.store(tasks.len(), Ordering::Relaxed);
            }
            if let Ok(mut done) = done.lock() {
                done.insert(i, outcome);
            }
        }
    })?;
    let done = done.into_inner().map_err(|_| Error::bug(UNPACKING))?;
    let outcomes: Vec<Unpacked> = done.into_values().collect::<Result<_>>()?;
    Ok(outcomes.into_iter().map(|outcome| (outcome.0.record.chain_id, outcome)).collect())
}

fn take<'a, 'b>(tasks: &'a [Task<'b>], next: &AtomicUsize) -> Option<(usize, &'a Task<'b>)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    tasks.get(i).map(|task| (i, task))
}

impl Task<'_> {
    fn run(&self) -> Result<Unpacked> {
        let tree = make_layer_dir(&self.dir)?;
        let (unpacked, blob) = self.layer.unpack(&tree, &self.blob, self.watch)?;
        let record = LayerRecord {
            diff_id: self.layer.diff_id(),
            chain_id: self.chain,
            parent: self.parent,
            size: unpacked.bytes,
            blob,
            marks: Some(unpacked.marks),
        };
        let (dir, blob) = (self.dir.clone(), self.blob.clone());
        Ok((StagedLayer { dir, blob, record }, unpacked.root))
    }
}
