//! Stat, List, Usage, Mounts: what there is.

use crate::store::{SnapshotKind, SnapshotRecord, TreeUsage};

use super::Snapshotter;
use super::failure::{Failure, Outcome};
use super::filter::Filters;
use super::mounts::Mount;

impl Snapshotter {
    /// What a snapshot is.
    ///
    /// # Errors
    /// `NotFound` where there is none of that key or name.
    pub fn stat(&self, name: &str) -> Outcome<SnapshotRecord> {
        Ok(self.find(name)?.record)
    }

    /// The snapshots that any of `filters` matches, all of them where there are none, by name.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that cannot be read.
    pub fn list(&self, filters: &[String]) -> Outcome<Vec<SnapshotRecord>> {
        let filters = Filters::parse(filters)?;
        let table = self.table.lock();
        let records = table.snapshots.values().map(|snapshot| &snapshot.record);
        Ok(records.filter(|record| filters.match_record(record)).cloned().collect())
    }

    /// What a snapshot takes on disk, without its parents.
    ///
    /// # Errors
    /// `NotFound` where there is none of that key or name.
    pub fn usage(&self, name: &str) -> Outcome<TreeUsage> {
        let snapshot = self.find(name)?;
        if let Some(usage) = snapshot.record.usage {
            return Ok(usage);
        }
        let usage = self.snapshots.usage(&snapshot.id, snapshot.record.kind);
        // It may have been removed while its files were counted.
        usage.map_err(|error| match self.find(name) {
            Err(gone) => gone,
            Ok(_) => error.into(),
        })
    }

    /// How to mount an active snapshot or a view.
    ///
    /// # Errors
    /// `NotFound` where there is no such key, `FailedPrecondition` where it is committed.
    pub fn mounts(&self, key: &str) -> Outcome<Vec<Mount>> {
        let (snapshot, chain) = {
            let table = self.table.lock();
            let snapshot = table.find(key)?.clone();
            let chain = table.chain(snapshot.record.parent.as_deref())?;
            (snapshot, chain)
        };
        if snapshot.record.kind == SnapshotKind::Committed {
            return Err(Failure::state(key, "it is committed: only views and active ones mount"));
        }
        self.recipes.of(&snapshot, &chain, &self.snapshots)
    }
}
