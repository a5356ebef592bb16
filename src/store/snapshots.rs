//! Snapshots of containerd, as they lie on disk.
//!
//! What is said here is only how each change becomes visible by one durable rename; which change
//! is allowed, and what a snapshot means, is the business of `crate::snapshotter`. One process
//! serves the snapshots of a store: it holds the lock of `snapshots/` and knows all records.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Errno, Error, Result};
use crate::image::Timestamp;
use crate::sys;

use super::layers::copy_root;
use super::lock::{Hold, hold_patiently, try_hold};
use super::transaction::entries;
use super::usage::{TreeUsage, tree_usage};
use super::{Store, durable};

/// How long the daemon of a mount that was just taken off may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long another snapshotter may take to end.
const LAST_OWNER: Duration = Duration::from_secs(2);

/// The directory of a snapshot: 16 hex digits, never used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId(String);

impl SnapshotId {
    fn random() -> Result<SnapshotId> {
        let mut random = [0; 8];
        sys::random::fill(&mut random).map_err(|errno| Error::io("read", "random bytes", errno))?;
        Ok(SnapshotId(hex::encode(random)))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Read-only, never to be committed.
    View,
    /// May be written to.
    Active,
    /// Never changes again; may be a parent.
    Committed,
}

/// The record of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The key of a view or an active one, the name of a committed one.
    pub name: String,
    /// The name of the committed snapshot that it lies on.
    pub parent: Option<String>,
    /// What it is.
    pub kind: SnapshotKind,
    /// When it became what it is.
    pub created: Timestamp,
    /// When its labels were changed last.
    pub updated: Timestamp,
    /// What clients wrote on it.
    pub labels: BTreeMap<String, String>,
    /// What its own tree takes, measured when it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TreeUsage>,
}

/// The snapshots of a store, held by this process alone.
#[derive(Debug)]
pub struct Snapshots {
    store: Store,
    #[expect(dead_code, reason = "held: nobody else may serve these snapshots")]
    lock: File,
}

impl Snapshots {
    /// Takes the snapshots of `store` for this process, and removes what one that died left.
    ///
    /// # Errors
    /// Where another process has them, or something cannot be read.
    pub fn open(store: Store) -> Result<Snapshots> {
        let dir = store.layout.snapshots();
        durable::create_dir_all(&dir)?;
        // One that is ending is given a moment.
        let Some(lock) = hold_patiently(&dir, Hold::Exclusive, LAST_OWNER)? else {
            let what = format!("the snapshots in {}", dir.display());
            return Err(Error::InUse { what, by: "another snapshotter serves them".into() });
        };
        let snapshots = Snapshots { store, lock };
        snapshots.cleanup()?;
        Ok(snapshots)
    }

    /// All of them.
    ///
    /// # Errors
    /// Names the record that is damaged.
    pub fn read_all(&self) -> Result<Vec<(SnapshotId, SnapshotRecord)>> {
        let mut found = Vec::new();
        for path in entries(&self.store.layout.snapshots())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = SnapshotId(name.to_owned());
            let record = durable::read_record(&self.store.layout.snapshot_record(&id))?;
            let missing = || Error::invalid(path.display().to_string(), "it has no record");
            found.push((id, record.ok_or_else(missing)?));
        }
        Ok(found)
    }

    /// Adds a snapshot whose top layer below it is `below`, and returns its place.
    ///
    /// # Errors
    /// Where the disk refuses; nothing has changed then.
    pub fn add(&self, record: &SnapshotRecord, below: Option<&SnapshotId>) -> Result<SnapshotId> {
        let id = SnapshotId::random()?;
        let transaction = self.store.begin()?;
        let staged = transaction.path("snapshot");
        durable::create_dir(&staged, 0o700)?;
        if record.kind == SnapshotKind::Active {
            durable::create_dir(&staged.join("diff"), 0o755)?;
            durable::create_dir(&staged.join("work"), 0o700)?;
            if let Some(below) = below {
                // The root of the writable layer is the root of the merged tree.
                copy_root(&self.store.layout.snapshot_tree(below), &staged.join("diff"))?;
            }
        }
        durable::write_new(&staged.join("snapshot.json"), &durable::record_bytes(record)?)?;
        durable::sync_dir(&staged)?;
        durable::rename_new(&staged, &self.store.layout.snapshot(&id))?;
        durable::sync_dir(&self.store.layout.snapshots())?;
        transaction.end()?;
        Ok(id)
    }

    /// Makes an active snapshot the committed one that `record` says; its tree is on disk in full
    /// before it becomes so. Where it is mounted still, nothing can be written there any more.
    ///
    /// # Errors
    /// [`Error::InUse`] where files are open for writing, or it is mounted in another mount
    /// namespace; else where the disk refuses. It is not committed then.
    pub fn commit(&self, id: &SnapshotId, record: &SnapshotRecord) -> Result<()> {
        let mounted = self.live_mounts(id)?;
        mounted.iter().try_for_each(refuse_writes)?;
        let held = if mounted.is_empty() { self.unmounted(id)? } else { None };
        durable::sync_filesystem(self.store.root())?;
        self.replace(id, record)?;
        drop(held);
        // It is committed, whatever becomes of its workdir: a cleanup tries again.
        if let Err(error) = self.end_work(id) {
            tracing::warn!(%error, "the workdir of a committed snapshot stays until a cleanup");
        }
        Ok(())
    }

    /// Changes the record of a snapshot.
    ///
    /// # Errors
    /// Where the disk refuses; nothing has changed then.
    pub fn replace(&self, id: &SnapshotId, record: &SnapshotRecord) -> Result<()> {
        let transaction = self.store.begin()?;
        let bytes = durable::record_bytes(record)?;
        let path = self.store.layout.snapshot_record(id);
        durable::replace(&path, &transaction.path("snapshot.json"), &bytes)?;
        transaction.end()
    }

    /// Takes a snapshot away with everything in it.
    ///
    /// # Errors
    /// [`Error::InUse`] where it is mounted; else where the disk refuses. Nothing has changed
    /// then.
    pub fn remove(&self, id: &SnapshotId) -> Result<()> {
        let held = self.unmounted(id)?;
        let transaction = self.store.begin()?;
        let exclusive = self.store.lock_exclusive()?;
        transaction.bury(&self.store.layout.snapshot(id), &exclusive)?;
        durable::sync_dir(&self.store.layout.snapshots())?;
        drop((held, exclusive));
        // It is gone, whatever becomes of its files: the next change of the store tries again.
        if let Err(error) = transaction.end() {
            tracing::warn!(%error, "files of a removed snapshot stay until the next change");
        }
        Ok(())
    }

    /// Removes what processes that died have left behind.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn cleanup(&self) -> Result<()> {
        self.store.begin()?.end()?;
        for (id, record) in self.read_all()? {
            if record.kind == SnapshotKind::Committed {
                self.end_work(&id)?;
            }
        }
        Ok(())
    }

    /// What the own tree of a snapshot takes now.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn usage(&self, id: &SnapshotId, kind: SnapshotKind) -> Result<TreeUsage> {
        match kind {
            SnapshotKind::View => Ok(TreeUsage::default()),
            _ => tree_usage(&self.store.layout.snapshot_tree(id)),
        }
    }

    /// The directory with a snapshot's own tree.
    pub fn tree(&self, id: &SnapshotId) -> PathBuf {
        self.store.layout.snapshot_tree(id)
    }

    /// The workdir of an active snapshot.
    pub fn work(&self, id: &SnapshotId) -> PathBuf {
        self.store.layout.snapshot_work(id)
    }

    /// An empty directory, for what lies on nothing.
    pub fn empty(&self) -> PathBuf {
        self.store.layout.empty()
    }

    /// Runs `probe` on a lower, an upper, a workdir and a mount point, all of them empty and made
    /// for it on the filesystem of the snapshots.
    ///
    /// # Errors
    /// Those of `probe`, or where the disk refuses.
    pub fn probe(
        &self,
        probe: impl FnOnce(&Path, &Path, &Path, &Path) -> Result<()>,
    ) -> Result<()> {
        let transaction = self.store.begin()?;
        let [lower, upper, work, target] =
            ["lower", "upper", "work", "target"].map(|name| transaction.path(name));
        for dir in [&lower, &upper, &work, &target] {
            durable::create_dir(dir, 0o700)?;
        }
        probe(&lower, &upper, &work, &target)?;
        transaction.end()
    }

    /// The source of the mounts of a snapshot, by which they are known again.
    pub fn mount_source(&self, id: &SnapshotId) -> String {
        format!("plyfs-{id}")
    }

    /// Makes sure that no daemon has the workdir of a snapshot, and keeps it so; `None` for one
    /// that has no workdir.
    fn unmounted(&self, id: &SnapshotId) -> Result<Option<File>> {
        let work = self.store.layout.snapshot_work(id);
        let in_use = |by: String| Error::InUse { what: "the snapshot".to_owned(), by };
        let held = match try_hold(&work, Hold::Exclusive) {
            Err(Error::Io { source: Errno::NOENT, .. }) => return Ok(None),
            other => other?,
        };
        if held.is_some() {
            return Ok(held);
        }
        if let Some(live) = self.live_mounts(id)?.first() {
            return Err(in_use(format!("mounted on {}", live.place().display())));
        }
        // Unmounted, or mounted in another mount namespace.
        match hold_patiently(&work, Hold::Exclusive, PATIENCE)? {
            Some(held) => Ok(Some(held)),
            None => Err(in_use("its mount in another mount namespace".to_owned())),
        }
    }

    /// The mounts of a snapshot in this mount namespace.
    fn live_mounts(&self, id: &SnapshotId) -> Result<Vec<LiveMount>> {
        let mounts = sys::mountinfo::read()
            .map_err(|errno| Error::io("read", "/proc/self/mountinfo", errno))?;
        let source = self.mount_source(id);
        let own_tree = Path::new("snapshots").join(id.as_str()).join("diff");
        let ours = mounts.into_iter().filter_map(|mount| {
            if mount.source == source.as_str() {
                Some(LiveMount::Merged(mount.path))
            } else {
                mount.root.ends_with(&own_tree).then_some(LiveMount::Bind(mount.path))
            }
        });
        Ok(ours.collect())
    }

    /// Removes the workdir of a committed snapshot, if it has one still.
    fn end_work(&self, id: &SnapshotId) -> Result<()> {
        let work = self.store.layout.snapshot_work(id);
        if !work.exists() {
            return Ok(());
        }
        let transaction = self.store.begin()?;
        transaction.bury(&work, &self.store.lock_exclusive()?)?;
        transaction.end()
    }
}

/// Where a snapshot is mounted.
#[derive(Debug)]
enum LiveMount {
    /// A filesystem of its own.
    Merged(PathBuf),
    /// Its own tree as it lies on disk.
    Bind(PathBuf),
}

impl LiveMount {
    fn place(&self) -> &Path {
        match self {
            LiveMount::Merged(place) | LiveMount::Bind(place) => place,
        }
    }
}

/// Makes a mount of a snapshot that is to be committed read-only.
fn refuse_writes(live: &LiveMount) -> Result<()> {
    let made = match live {
        LiveMount::Merged(place) => sys::mount::make_filesystem_read_only(place),
        LiveMount::Bind(place) => sys::mount::make_place_read_only(place),
    };
    let place = live.place();
    match made {
        // Unmounted meanwhile.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTCONN) => Ok(()),
        Err(Errno::BUSY) => Err(Error::InUse {
            what: "the snapshot".to_owned(),
            by: format!("mounted on {}, with files open for writing", place.display()),
        }),
        Err(errno) => Err(Error::io("make read-only the mount on", place, errno)),
    }
}
