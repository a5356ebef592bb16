//! `stats`: what the daemons of mounts did so far.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::fuse::control::Control;
use crate::fuse::stats::{Snapshot, prometheus};
use crate::store::State;
use crate::sys::mountinfo;

use super::json_flag::JsonFlag;
use super::{Context, output};

/// Show what the daemons of mounts did so far
///
/// Requests by kind with the time that they took in the daemon, copy-ups, how often its caches
/// could answer, and what it holds. For root and the daemon's own user.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs stats box\n  plyfs stats --prometheus /mnt/merged")]
pub(super) struct Stats {
    /// Containers, or directories on mounts [default: all mounts]
    #[arg(value_name = "CONTAINER|DIR")]
    targets: Vec<String>,
    #[command(flatten)]
    json: JsonFlag,
    /// Print in the text format of Prometheus
    #[arg(long, conflicts_with_all = ["json", "format"])]
    prometheus: bool,
}

impl Stats {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let snapshots = match self.targets.as_slice() {
            [] => all()?,
            targets => {
                let of = |target: &String| snapshot(&place_of(context, target)?);
                targets.iter().map(of).collect::<Result<Vec<_>>>()?
            }
        };
        if self.json.is_json()? {
            return output::print_json(&json!(snapshots));
        }
        if self.prometheus {
            return output::print(prometheus::text(&snapshots));
        }
        let tables: Vec<String> = snapshots.iter().map(|s| s.lines().join("\n") + "\n").collect();
        output::print(tables.join("\n"))
    }
}

/// A directory on the mount that `target` names.
///
/// # Errors
/// A container that is not there or not mounted where this process sees it.
pub(super) fn place_of(context: &Context, target: &str) -> Result<PathBuf> {
    let directory =
        || std::fs::canonicalize(target).map_err(|error| Error::std_io("open", target, &error));
    if target.contains('/') || matches!(target, "." | "..") {
        return directory();
    }
    let store = context.store()?;
    let container = match store.container(target) {
        // A name without a slash is a container's first.
        Err(Error::NotFound { .. }) if Path::new(target).is_dir() => return directory(),
        other => other?,
    };
    let name = &container.name;
    match store.state(&container)? {
        State::Mounted(places) => places.into_iter().next().ok_or_else(|| {
            Error::Refused(format!("container {name} is mounted in another mount namespace"))
        }),
        State::Unmounted | State::Busy => {
            Err(Error::Refused(format!("container {name} is not mounted")))
        }
    }
}

fn snapshot(place: &Path) -> Result<Snapshot> {
    let mut snapshot = Control::open(place)?.snapshot()?;
    // As it is seen from here.
    snapshot.mountpoint = place.to_path_buf();
    Ok(snapshot)
}

/// Those of all mounts of ours that this process sees, of each once. One that cannot be asked,
/// because its daemon is gone, say, is only told of.
fn all() -> Result<Vec<Snapshot>> {
    let mounts =
        mountinfo::read().map_err(|errno| Error::io("read", "/proc/self/mountinfo", errno))?;
    let mut seen = std::collections::HashSet::new();
    let ours = mounts.into_iter().filter(|mount| mount.kind == crate::store::MOUNT_KIND);
    let ours = ours.filter(|mount| seen.insert(mount.device.clone()));
    let asked = ours.map(|mount| snapshot(&mount.path)).filter_map(|answer| match answer {
        Ok(snapshot) => Some(snapshot),
        Err(error) => {
            output::complain(&error);
            None
        }
    });
    Ok(asked.collect())
}
