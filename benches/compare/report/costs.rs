//! Where the time of one operation goes: what a ratio cannot tell.

use crate::outcome::{BASE, Outcome, key, median};

use super::markdown::{short, time};

/// The columns of [`rows`].
pub(super) const HEADER: [&str; 8] = [
    "workload",
    "overlayfs",
    "its client's work",
    "PlyFS",
    "client's work",
    "daemon's work",
    "waiting",
    "requests",
];

/// A row for each workload: times of one operation. What is neither the client's work nor the
/// daemon's is waiting: for one another, for the processor, for a disk. Where both work at once
/// there is less than none.
pub(super) fn rows(outcome: &Outcome) -> Vec<Vec<String>> {
    outcome.workloads().filter_map(|workload| row(outcome, workload.id)).collect()
}

fn row(outcome: &Outcome, id: &str) -> Option<Vec<String>> {
    let key = key(id, false);
    let own = outcome.series(&key, "plyfs")?;
    let base = outcome.series(&key, BASE)?;
    let (wall, client) = (median(&own.nanos)?, median(&own.client_nanos)?);
    let daemon = median(&own.daemon_nanos)?;
    let waiting = wall - client - daemon;
    Some(vec![
        id.to_owned(),
        time(median(&base.nanos)?),
        time(median(&base.client_nanos)?),
        time(wall),
        time(client),
        time(daemon),
        if waiting > 0.0 { time(waiting) } else { "none".to_owned() },
        median(&own.requests).map_or(String::new(), short),
    ])
}
