//! Prepare, View, Commit, Remove: how snapshots come and go.

use std::collections::BTreeMap;

use crate::image::Timestamp;
use crate::store::{SnapshotKind, SnapshotRecord};

use super::claims::Claim;
use super::failure::{Failure, Outcome};
use super::mounts::Mount;
use super::update::checked_labels;
use super::{Snapshot, Snapshotter};

/// What a new active snapshot or view is to be.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Its key.
    pub key: String,
    /// The committed snapshot that it lies on; empty for none.
    pub parent: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Snapshotter {
    /// Makes an active snapshot and tells how to mount it.
    ///
    /// # Errors
    /// `NotFound` where there is no such parent, `InvalidArgument` where it is not committed or a
    /// label is wrong, `AlreadyExists` where the key is taken.
    pub fn prepare(&self, start: Start) -> Outcome<Vec<Mount>> {
        self.start(start, SnapshotKind::Active)
    }

    /// Makes a read-only snapshot and tells how to mount it.
    ///
    /// # Errors
    /// As [`Snapshotter::prepare`].
    pub fn view(&self, start: Start) -> Outcome<Vec<Mount>> {
        self.start(start, SnapshotKind::View)
    }

    fn start(&self, start: Start, kind: SnapshotKind) -> Outcome<Vec<Mount>> {
        let key = start.key.as_str();
        let parent = (!start.parent.is_empty()).then_some(start.parent.as_str());
        named(key, "key")?;
        if parent == Some(key) {
            return Err(Failure::taken(key));
        }
        let labels = checked_labels(start.labels)?;
        self.recipes.check_labels(&labels)?;
        let claims: Vec<_> = std::iter::once((key, Claim::Change))
            .chain(parent.map(|parent| (parent, Claim::Keep)))
            .collect();
        let claimed = self.claims.take(&claims);
        let chain = {
            let table = self.table.lock();
            if let Some(parent) = parent {
                table.find(parent)?;
                if !table.is_committed(parent) {
                    let why = format!("snapshot {parent}: only a committed one can be a parent");
                    return Err(Failure::InvalidArgument(why));
                }
            }
            if table.snapshots.contains_key(key) {
                return Err(Failure::taken(key));
            }
            table.chain(parent)?
        };
        let now = Timestamp::now();
        let record = SnapshotRecord {
            name: key.to_owned(),
            parent: parent.map(str::to_owned),
            kind,
            created: now,
            updated: now,
            labels,
            usage: None,
        };
        let id = self.step(&[key], || self.snapshots.add(&record, chain.first()))?;
        let snapshot = Snapshot { id, record };
        let mounts = self.recipes.of(&snapshot, &chain, &self.snapshots)?;
        self.table.lock().snapshots.insert(key.to_owned(), snapshot);
        drop(claimed);
        Ok(mounts)
    }

    /// Makes the active snapshot `key` a committed one of another name, with labels of its own.
    ///
    /// # Errors
    /// `NotFound` where there is no such key, `AlreadyExists` where the name is taken,
    /// `FailedPrecondition` where it is not active, or mounted still.
    pub fn commit(&self, name: &str, key: &str, labels: BTreeMap<String, String>) -> Outcome<()> {
        named(name, "name")?;
        if name == key {
            return Err(Failure::taken(name));
        }
        let labels = checked_labels(labels)?;
        let _claimed = self.claims.take(&[(name, Claim::Change), (key, Claim::Change)]);
        let mut snapshot = {
            let table = self.table.lock();
            if table.snapshots.contains_key(name) {
                return Err(Failure::taken(name));
            }
            table.find(key)?.clone()
        };
        if snapshot.record.kind != SnapshotKind::Active {
            return Err(Failure::state(key, "it is not active"));
        }
        let usage = self.snapshots.usage(&snapshot.id, SnapshotKind::Active)?;
        let now = Timestamp::now();
        snapshot.record = SnapshotRecord {
            name: name.to_owned(),
            parent: snapshot.record.parent,
            kind: SnapshotKind::Committed,
            created: now,
            updated: now,
            labels,
            usage: Some(usage),
        };
        self.step(&[name, key], || self.snapshots.commit(&snapshot.id, &snapshot.record))?;
        let mut table = self.table.lock();
        table.snapshots.remove(key);
        table.snapshots.insert(name.to_owned(), snapshot);
        Ok(())
    }

    /// Takes a snapshot away, with what was written in it.
    ///
    /// # Errors
    /// `NotFound` where there is none, `FailedPrecondition` where others lie on it or it is
    /// mounted.
    pub fn remove(&self, name: &str) -> Outcome<()> {
        named(name, "key")?;
        let _claimed = self.claims.take(&[(name, Claim::Change)]);
        let snapshot = {
            let table = self.table.lock();
            let found = table.find(name)?.clone();
            if table.has_children(name) {
                return Err(Failure::state(name, "others lie on it: remove them first"));
            }
            found
        };
        self.step(&[name], || self.snapshots.remove(&snapshot.id))?;
        self.table.lock().snapshots.remove(name);
        Ok(())
    }

    /// Removes what is left over.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn cleanup(&self) -> Outcome<()> {
        Ok(self.snapshots.cleanup()?)
    }
}

/// Refuses an empty name, which is how the interface spells "none".
pub(super) fn named(name: &str, what: &str) -> Outcome<()> {
    if name.is_empty() {
        return Err(Failure::invalid(format!("the {what} of a snapshot must not be empty")));
    }
    Ok(())
}
