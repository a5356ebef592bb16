//! Update: the labels of a snapshot are all that may change.

use std::collections::BTreeMap;

use crate::image::Timestamp;
use crate::store::SnapshotRecord;

use super::Snapshotter;
use super::claims::Claim;
use super::failure::{Failure, Outcome};
use super::life::named;

/// The most bytes of a label's key and value together.
const LABEL_MAX: usize = 4096;

impl Snapshotter {
    /// Changes what `paths` names of a snapshot to what `labels` says: `labels` all of them,
    /// `labels.KEY` one; without a path all of them. An empty value removes a label.
    ///
    /// # Errors
    /// `NotFound` where there is none, `InvalidArgument` for anything that cannot change.
    pub fn update(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        paths: &[String],
    ) -> Outcome<SnapshotRecord> {
        named(name, "name")?;
        let _claimed = self.claims.take(&[(name, Claim::Change)]);
        let mut snapshot = self.find(name)?;
        let changed = masked(snapshot.record.labels, labels, paths)?;
        let changed = checked_labels(changed)?;
        self.recipes.check_labels(&changed)?;
        snapshot.record.labels = changed;
        snapshot.record.updated = Timestamp::now();
        self.step(&[name], || self.snapshots.replace(&snapshot.id, &snapshot.record))?;
        let record = snapshot.record.clone();
        self.table.lock().snapshots.insert(name.to_owned(), snapshot);
        Ok(record)
    }
}

fn masked(
    mut labels: BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
    paths: &[String],
) -> Outcome<BTreeMap<String, String>> {
    if paths.is_empty() {
        return Ok(wanted.clone());
    }
    for path in paths {
        match (path.as_str(), path.strip_prefix("labels.")) {
            ("labels", _) => labels = wanted.clone(),
            (_, Some(key)) if !key.is_empty() => {
                labels.insert(key.to_owned(), wanted.get(key).cloned().unwrap_or_default());
            }
            _ => return Err(Failure::invalid(format!("{path} of a snapshot cannot be changed"))),
        }
    }
    Ok(labels)
}

/// Refuses labels that are too long; those without a value are left out.
pub(super) fn checked_labels(
    mut labels: BTreeMap<String, String>,
) -> Outcome<BTreeMap<String, String>> {
    if let Some((key, _)) = labels.iter().find(|(key, value)| key.len() + value.len() > LABEL_MAX) {
        let start: String = key.chars().take(64).collect();
        let why = format!("label {start}: key and value are longer than {LABEL_MAX} bytes");
        return Err(Failure::InvalidArgument(why));
    }
    labels.retain(|_, value| !value.is_empty());
    Ok(labels)
}
