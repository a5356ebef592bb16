//! containerd's snapshots as df, check and gc see them: from beside the process that serves them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Result;
use crate::image::Timestamp;

use super::check::{Problem, Repair};
use super::lock::{Hold, try_hold};
use super::snapshots::{SnapshotKind, SnapshotRecord};
use super::transaction::entries;
use super::usage::{Usage, tree_usage};
use super::{Store, durable};

/// What a snapshot takes.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotUsage {
    /// Its key, or the name of a committed one.
    pub name: String,
    /// The name of the one that it lies on.
    pub parent: Option<String>,
    /// What it is.
    pub kind: SnapshotKind,
    /// When it became what it is.
    pub created: Timestamp,
    /// Bytes of its own tree on disk.
    pub size: u64,
}

/// The directory of a snapshot, and its record where that can be read.
type Found = (PathBuf, Result<Option<SnapshotRecord>>);

impl Store {
    /// What lies in `snapshots/`. Whoever serves it may change it meanwhile; what went is left out.
    fn look_at_snapshots(&self) -> Result<Vec<Found>> {
        let dir = self.layout.snapshots();
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let record = |path: &Path| durable::read_record(&path.join("snapshot.json"));
        let found = entries(&dir)?.into_iter().map(|path| (record(&path), path));
        Ok(found.filter(|(_, path)| path.is_dir()).map(|(record, path)| (path, record)).collect())
    }

    /// The snapshots and what each takes, by name. They are containerd's to remove, so that nothing
    /// of them can be reclaimed here.
    pub(super) fn snapshot_usage(&self) -> Result<(Usage, Vec<SnapshotUsage>)> {
        let mut all = Vec::new();
        for (path, record) in self.look_at_snapshots()? {
            let Ok(Some(record)) = record else { continue };
            let size = match (&record.usage, record.kind) {
                (_, SnapshotKind::View) => 0,
                (Some(measured), _) => measured.bytes,
                (None, _) => tree_usage(&path.join("diff"))?.bytes,
            };
            let SnapshotRecord { name, parent, kind, created, .. } = record;
            all.push(SnapshotUsage { name, parent, kind, created, size });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let active = all.iter().filter(|own| own.kind != SnapshotKind::Committed).count();
        let size = all.iter().map(|own| own.size).sum();
        Ok((Usage { total: all.len(), active, size, reclaimable: 0 }, all))
    }

    /// What is wrong with snapshots. What they hold is nowhere else, so that nothing but left-over
    /// workdirs is ever removed.
    pub(super) fn snapshot_problems(&self) -> Result<Vec<Problem>> {
        let found = self.look_at_snapshots()?;
        let committed: BTreeSet<&str> = found
            .iter()
            .filter_map(|(_, record)| record.as_ref().ok()?.as_ref())
            .filter(|record| record.kind == SnapshotKind::Committed)
            .map(|record| record.name.as_str())
            .collect();
        let mut problems = Vec::new();
        for (path, record) in &found {
            let why = match record {
                Err(error) => Some(error.to_string()),
                Ok(None) => Some("it has no record".to_owned()),
                Ok(Some(record)) => wrong_with(path, record, &committed),
            };
            if let Some(why) = why.filter(|_| path.is_dir()) {
                let what = format!("snapshot {}", path.display());
                problems.push(Problem { what, why, repair: Repair::ByHand });
            }
        }
        let left = self.left_snapshot_work()?.into_iter().map(|path| {
            let (what, why) = (path.display().to_string(), "left by a commit".to_owned());
            Problem { what, why, repair: Repair::Sweep }
        });
        problems.extend(left);
        Ok(problems)
    }

    /// The workdirs that commits have left, where nobody serves the snapshots and would remove them.
    pub(super) fn left_snapshot_work(&self) -> Result<Vec<PathBuf>> {
        let found = self.look_at_snapshots()?;
        if found.is_empty() || try_hold(&self.layout.snapshots(), Hold::Exclusive)?.is_none() {
            return Ok(Vec::new());
        }
        let committed = found.into_iter().filter(|(_, record)| {
            matches!(record, Ok(Some(record)) if record.kind == SnapshotKind::Committed)
        });
        let work = committed.map(|(path, _)| path.join("work"));
        Ok(work.filter(|work| work.is_dir()).collect())
    }
}

fn wrong_with(path: &Path, record: &SnapshotRecord, committed: &BTreeSet<&str>) -> Option<String> {
    if let Some(parent) = record.parent.as_deref().filter(|parent| !committed.contains(parent)) {
        return Some(format!("{}: it lies on {parent}, which is not there", record.name));
    }
    let needed: &[&str] = match record.kind {
        SnapshotKind::View => &[],
        SnapshotKind::Active => &["diff", "work"],
        SnapshotKind::Committed => &["diff"],
    };
    let missing = needed.iter().find(|name| !path.join(name).is_dir())?;
    Some(format!("{}: its directory {missing} is missing", record.name))
}
