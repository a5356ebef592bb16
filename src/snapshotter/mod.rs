//! A proxy snapshotter of containerd: its images and containers on PlyFS.
//!
//! containerd calls the gRPC service `containerd.services.snapshots.v1.Snapshots` on a unix
//! socket. A snapshot is *active* (writable, by Prepare), a *view* (read-only, by View) or
//! *committed* (unchanging, made of an active one by Commit); only a committed one may be a
//! parent. The answer to Prepare, View and Mounts is a recipe of mounts, which containerd and its
//! shims carry out. So no mount depends on this process: it, and containerd, may be restarted
//! under running containers.
//!
//! | file | what it holds |
//! |---|---|
//! | `api` | the messages, as they go over the wire |
//! | `service` | one call of a verb for each request |
//! | `serve` | the socket, the signals, the end |
//! | `ready` | what systemd is told of that |
//! | `life` | Prepare, View, Commit, Remove |
//! | `look` | Stat, List, Usage, Mounts |
//! | `update` | Update and its field mask; labels |
//! | `mounts` | the recipe of a snapshot |
//! | `filter` | what List is to show |
//! | `claims` | who works on which snapshot |
//! | `failure` | what went wrong, and its gRPC code |
//!
//! # Changes
//! Each verb that changes something makes one durable step on disk ([`crate::store::Snapshots`])
//! and then shows it to others in memory. While it does, it has *claimed* the names it works on;
//! whoever needs one of them waits. All claims of a verb are taken at once, before any lock, so
//! that no two verbs wait for each other. The lock of the table is held for look-ups only, never
//! over I/O.

pub mod api;
mod claims;
mod failure;
mod filter;
mod life;
mod look;
mod mounts;
mod ready;
mod serve;
mod service;
mod update;

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;

use crate::error::Result;
use crate::store::{SnapshotId, SnapshotKind, SnapshotRecord, Snapshots, Store};

pub use failure::{Failure, Outcome};
#[cfg(fuzzing)]
pub use filter::fuzz_filter;
pub use life::Start;
pub use mounts::Driver;
pub use serve::serve;
pub use service::Service;

use claims::Claims;
use mounts::Recipes;

/// The snapshots of one store, and the verbs on them.
#[derive(Debug)]
pub struct Snapshotter {
    snapshots: Snapshots,
    recipes: Recipes,
    claims: Claims,
    table: Mutex<Table>,
}

/// A snapshot as it is now.
#[derive(Debug, Clone)]
struct Snapshot {
    id: SnapshotId,
    record: SnapshotRecord,
}

/// All snapshots by key or name: both live in one space.
#[derive(Debug, Default)]
struct Table {
    snapshots: BTreeMap<String, Snapshot>,
}

impl Snapshotter {
    /// Serves the snapshots of `store`; `daemon` is the program that serves FUSE mounts.
    ///
    /// # Errors
    /// Where another process serves them, a record is damaged, or the driver cannot work here.
    pub fn open(store: Store, driver: Driver, daemon: &Path) -> Result<Snapshotter> {
        let snapshots = Snapshots::open(store)?;
        let recipes = Recipes::new(driver, daemon, &snapshots)?;
        let mut table = Table::default();
        for (id, record) in snapshots.read_all()? {
            table.snapshots.insert(record.name.clone(), Snapshot { id, record });
        }
        tracing::info!(snapshots = table.snapshots.len(), ?driver, "snapshots read");
        Ok(Snapshotter { snapshots, recipes, claims: Claims::default(), table: table.into() })
    }

    fn find(&self, name: &str) -> Outcome<Snapshot> {
        self.table.lock().find(name).cloned()
    }

    /// Makes a durable step for a verb that has claimed `names` for a change. One that fails has
    /// mostly changed nothing, but a disk may fail after the rename that decides: so the table
    /// then learns about these names from the disk.
    fn step<T>(&self, names: &[&str], step: impl FnOnce() -> Result<T>) -> Outcome<T> {
        let failed = match step() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match self.snapshots.read_all() {
            Ok(all) => {
                let mut table = self.table.lock();
                names.iter().for_each(|name| drop(table.snapshots.remove(*name)));
                let ours = all.into_iter().filter(|(_, r)| names.contains(&r.name.as_str()));
                for (id, record) in ours {
                    table.snapshots.insert(record.name.clone(), Snapshot { id, record });
                }
            }
            Err(error) => tracing::error!(%error, ?names, "what became of them is not known"),
        }
        Err(failed.into())
    }
}

impl Table {
    fn find(&self, name: &str) -> Outcome<&Snapshot> {
        self.snapshots.get(name).ok_or_else(|| Failure::not_found(name))
    }

    fn has_children(&self, name: &str) -> bool {
        self.snapshots.values().any(|other| other.record.parent.as_deref() == Some(name))
    }

    /// The snapshots below one whose parent is `parent`, topmost first.
    fn chain(&self, parent: Option<&str>) -> Outcome<Vec<SnapshotId>> {
        let mut chain = Vec::new();
        let mut next = parent;
        while let Some(name) = next {
            let snapshot = self.find(name)?;
            if chain.len() > self.snapshots.len() {
                return Err(Failure::FailedPrecondition(format!(
                    "snapshot {name}: it is its own parent"
                )));
            }
            chain.push(snapshot.id.clone());
            next = snapshot.record.parent.as_deref();
        }
        Ok(chain)
    }

    fn is_committed(&self, name: &str) -> bool {
        self.snapshots
            .get(name)
            .is_some_and(|snapshot| snapshot.record.kind == SnapshotKind::Committed)
    }
}
