//! The recipe of a snapshot: which mounts containerd is to make to see it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::{SnapshotId, SnapshotKind, Snapshots};
use crate::sys::{overlayfs, process};

use super::failure::{Failure, Outcome};
use super::{Snapshot, api};

/// The form in which containerd is told of a mount.
pub use api::Mount;

/// The labels with the ids of a container and those of the host, as `CONTAINER:HOST:COUNT`.
const ID_MAPS: [(&str, &str); 2] = [
    ("containerd.io/snapshot/uidmapping", "uidmapping"),
    ("containerd.io/snapshot/gidmapping", "gidmapping"),
];

/// What serves mounts of more than one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The daemon fuse-plyfs.
    Fuse,
    /// The kernel's overlayfs.
    Kernel,
    /// The kernel's overlayfs where it can be mounted, else the daemon.
    Auto,
}

/// Makes recipes.
#[derive(Debug)]
pub(super) struct Recipes {
    by_kernel: bool,
    /// Whether snapshots that the kernel cannot mount go to the daemon.
    by_daemon: bool,
    /// `TYPE.DAEMON`, by which containerd and mount(8) find the program that mounts.
    kind: String,
}

impl Recipes {
    /// # Errors
    /// Where `driver` demands the kernel's overlayfs and it does not mount here.
    pub(super) fn new(driver: Driver, daemon: &Path, snapshots: &Snapshots) -> Result<Recipes> {
        let by_kernel = match driver {
            Driver::Fuse => false,
            Driver::Kernel => probe_kernel(snapshots).map(|()| true)?,
            Driver::Auto => match probe_kernel(snapshots) {
                Ok(()) => true,
                Err(error) => {
                    tracing::info!(%error, "mounts are served by the daemon");
                    false
                }
            },
        };
        let kind =
            format!("{}.{}", helper(), utf8(daemon).map_err(|e| Error::Refused(e.to_string()))?);
        Ok(Recipes { by_kernel, by_daemon: driver != Driver::Kernel, kind })
    }

    /// Refuses labels that no recipe could follow.
    pub(super) fn check_labels(&self, labels: &BTreeMap<String, String>) -> Outcome<()> {
        for (label, _) in ID_MAPS {
            let Some(value) = labels.get(label) else { continue };
            if !is_id_map(value) {
                let why = format!("label {label}: {value} is not CONTAINER:HOST:COUNT");
                return Err(Failure::InvalidArgument(why));
            }
            if !self.by_daemon {
                let why = format!("label {label}: --driver kernel has no id maps");
                return Err(Failure::InvalidArgument(why));
            }
        }
        Ok(())
    }

    /// How to mount `snapshot`, which lies on the snapshots in `below`, topmost first.
    pub(super) fn of(
        &self,
        snapshot: &Snapshot,
        below: &[SnapshotId],
        snapshots: &Snapshots,
    ) -> Outcome<Vec<Mount>> {
        let id_maps: Vec<String> = ID_MAPS
            .iter()
            .filter_map(|(label, option)| {
                snapshot.record.labels.get(*label).map(|map| format!("{option}={map}"))
            })
            .collect();
        let writable = snapshot.record.kind == SnapshotKind::Active;
        let own = snapshots.tree(&snapshot.id);
        // One layer alone needs no filesystem of its own.
        if id_maps.is_empty() {
            match (writable, below) {
                (true, []) => return Ok(vec![bind(&own, "rw")?]),
                (false, []) => return Ok(vec![bind(&snapshots.empty(), "ro")?]),
                (false, [only]) => return Ok(vec![bind(&snapshots.tree(only), "ro")?]),
                _ => {}
            }
        }
        let mut lowers: Vec<PathBuf> = below.iter().map(|id| snapshots.tree(id)).collect();
        if lowers.is_empty() {
            lowers.push(snapshots.empty());
        }
        let by_kernel = self.by_kernel && id_maps.is_empty();
        let source = snapshots.mount_source(&snapshot.id);
        let mut options = vec![format!("lowerdir={}", joined(&lowers)?)];
        if writable {
            options.push(format!("upperdir={}", escaped(&own)?));
            options.push(format!("workdir={}", escaped(&snapshots.work(&snapshot.id))?));
        } else {
            options.push("ro".to_owned());
        }
        // As containerd's own driver has it: an index would not outlive the commit.
        options.push("index=off".to_owned());
        if by_kernel {
            // What the daemon wrote needs both to be read.
            options.extend(["redirect_dir=on", "metacopy=on"].map(str::to_owned));
            return Ok(vec![mount("overlay", source, options)]);
        }
        if writable {
            options.push("join".to_owned());
        }
        options.extend(id_maps);
        Ok(vec![mount(&self.kind, source, options)])
    }
}

/// The type whose mounts go through `mount.TYPE`. Both forms are the program of fuse3 where that
/// comes from Debian; elsewhere there may be only one.
fn helper() -> &'static str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| {
        let places = std::env::split_paths(&path).chain(["/sbin", "/usr/sbin"].map(PathBuf::from));
        places.map(|place| place.join(name)).any(|program| program.is_file())
    };
    if there("mount.fuse") {
        return "fuse";
    }
    if !there("mount.fuse3") {
        tracing::warn!("mount.fuse3 is not found: containerd needs it (package fuse3) to mount");
    }
    "fuse3"
}

fn mount(kind: &str, source: String, options: Vec<String>) -> Mount {
    Mount { r#type: kind.to_owned(), source, target: String::new(), options }
}

fn bind(dir: &Path, access: &str) -> Outcome<Mount> {
    let options = vec![access.to_owned(), "rbind".to_owned()];
    Ok(mount("bind", utf8(dir)?.to_owned(), options))
}

fn joined(dirs: &[PathBuf]) -> Outcome<String> {
    let dirs: Vec<String> = dirs.iter().map(|dir| escaped(dir)).collect::<Outcome<_>>()?;
    Ok(dirs.join(":"))
}

/// A path in a mount option.
fn escaped(path: &Path) -> Outcome<String> {
    let text = utf8(path)?;
    Ok(text.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:"))
}

fn utf8(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| {
        Failure::invalid(format!("{} is not UTF-8: containerd cannot be told", path.display()))
    })
}

/// Whether `text` is one or more of `CONTAINER:HOST:COUNT`, separated by colons.
fn is_id_map(text: &str) -> bool {
    let numbers: Vec<&str> = text.split(':').collect();
    let is_range = |range: &[&str]| {
        let numbers: Vec<u32> = range.iter().filter_map(|number| number.parse().ok()).collect();
        match numbers.as_slice() {
            [inside, host, count] => {
                *count > 0
                    && inside.checked_add(*count).is_some()
                    && host.checked_add(*count).is_some()
            }
            _ => false,
        }
    };
    numbers.chunks(3).all(is_range)
}

/// Mounts an empty overlay, to see whether the kernel takes our options here.
fn probe_kernel(snapshots: &Snapshots) -> Result<()> {
    if !process::is_initial_root() {
        let why = "only root may mount by the kernel; use --driver fuse";
        return Err(Error::option("--driver", why));
    }
    snapshots.probe(|lower, upper, work, target| {
        let paths = [("lowerdir+", lower), ("upperdir", upper), ("workdir", work)];
        let switches = [("index", "off"), ("redirect_dir", "on"), ("metacopy", "on")];
        let switches = switches.map(|(key, value)| (key, OsStr::new(value)));
        let paths = paths.map(|(key, path)| (key, path.as_os_str()));
        overlayfs::mount(OsStr::new("overlay"), target, paths.into_iter().chain(switches))
            .map_err(|errno| Error::io("mount by the kernel on", target, errno))?;
        crate::sys::mount::detach(target).map_err(|errno| Error::io("unmount", target, errno))
    })
}
