//! `umount`: ends a container's mount and waits for its daemon.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::{creds, mount, mountinfo, unmount};

use super::Store;
use super::containers::{Container, State, in_use, mount_source, mounted_id};
use super::lock::{Hold, POLL, hold_patiently, try_hold};

/// How long a daemon may take to write back and end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a mount may be in use by those who only pass: a process between its fork and its exec
/// holds every descriptor of its parent, one that looks through the machine's files some of them.
const PASSING: Duration = Duration::from_millis(500);

/// The type that the mounts of the daemon have in the mount table.
pub const MOUNT_KIND: &str = "fuse.plyfs";

impl Store {
    /// Unmounts what `text` names: a container, or the directory that one (or anything else of
    /// the daemon's) is mounted on. A container's writable layer is at rest afterwards.
    ///
    /// # Errors
    /// Where nothing is mounted there, the mount is in use, or the daemon does not end.
    pub fn umount(&self, text: &str) -> Result<()> {
        if text.contains('/') || matches!(text, "." | "..") {
            return self.umount_directory(Path::new(text));
        }
        match self.container(text) {
            // A name without a slash is a container's first.
            Err(Error::NotFound { .. }) if Path::new(text).is_dir() => {
                self.umount_directory(Path::new(text))
            }
            container => self.umount_container(&container?),
        }
    }

    pub(super) fn umount_container(&self, container: &Container) -> Result<()> {
        let held = self.hold(container, Hold::Shared)?;
        match self.settled_state(container, &held)? {
            State::Unmounted | State::Busy => {
                Err(Error::Refused(format!("container {} is not mounted", container.name)))
            }
            State::Mounted(places) if places.is_empty() => {
                Err(in_use(container, "mounted in another mount namespace, unmount it there"))
            }
            State::Mounted(places) => {
                places.iter().rev().try_for_each(|place| take_away(place))?;
                self.wait_for_daemon(container, &held)
            }
        }
    }

    /// As [`Store::settled_state`], for who is about to mount the container and holds it alone:
    /// what a daemon that was killed has left is taken away, since nobody can use it.
    pub(super) fn state_to_mount(&self, container: &Container, held: &File) -> Result<State> {
        let state = self.settled_state(container, held)?;
        match &state {
            State::Mounted(places) if self.daemon_is_gone(container, places)? => {
                places.iter().rev().try_for_each(|place| take_away_dead(place))?;
                self.settled_state(container, held)
            }
            _ => Ok(state),
        }
    }

    /// Whether the daemon that mounted the container at `places` was killed: it would hold the
    /// workdir's lock. (The mount itself is not asked, for one that lives may not answer.)
    pub(super) fn daemon_is_gone(&self, container: &Container, places: &[PathBuf]) -> Result<bool> {
        if places.is_empty() {
            return Ok(false);
        }
        let mounts =
            mountinfo::read().map_err(|errno| Error::io("read", "/proc/self/mountinfo", errno))?;
        let source = mount_source(&container.id);
        let mut own = mounts.iter().filter(|mount| mount.source == source.as_str());
        if !own.any(|mount| mount.kind == MOUNT_KIND) {
            return Ok(false);
        }
        Ok(try_hold(&self.layout.work(&container.id), Hold::Shared)?.is_some())
    }

    fn umount_directory(&self, dir: &Path) -> Result<()> {
        let dir = absolute(dir)?;
        let mounts =
            mountinfo::read().map_err(|errno| Error::io("read", "/proc/self/mountinfo", errno))?;
        let Some(mount) = mounts.into_iter().rev().find(|mount| mount.path == dir) else {
            return Err(Error::Refused(format!("nothing is mounted on {}", dir.display())));
        };
        let container = match mounted_id(&mount.source) {
            Some(id) => {
                let _shared = self.lock_shared()?;
                self.read_container(&id)?
            }
            None => None,
        };
        if container.is_none() && mount.kind != MOUNT_KIND {
            let kind = mount.kind.to_string_lossy().into_owned();
            let why = format!("{} is a mount of {kind}, not of plyfs", dir.display());
            return Err(Error::Refused(why));
        }
        match container {
            None => take_away(&dir),
            Some(container) => {
                let held = self.hold(&container, Hold::Shared)?;
                take_away(&dir)?;
                self.wait_for_daemon(&container, &held)
            }
        }
    }

    /// The mount is gone at once, but the daemon may still be writing; it holds the workdir's
    /// lock until the end. One that serves another place besides (a bind mount) goes on.
    fn wait_for_daemon(&self, container: &Container, _: &File) -> Result<()> {
        if !self.mount_points(container)?.is_empty() {
            return Ok(());
        }
        let work = self.layout.work(&container.id);
        match hold_patiently(&work, Hold::Shared, PATIENCE)? {
            Some(_) if self.is_mounted_elsewhere(container)? => {
                Err(in_use(container, "it was unmounted here, but not in another mount namespace"))
            }
            Some(_) => Ok(()),
            None => Err(in_use(container, "it was unmounted, but its daemon has not ended")),
        }
    }
}

/// `dir` without symlinks above its last component. That itself is not touched: the daemon may
/// be dead, and then nothing about the mount can be asked.
fn absolute(dir: &Path) -> Result<PathBuf> {
    let failed = |error: &std::io::Error| Error::std_io("open", dir, error);
    let Some(name) = dir.file_name() else {
        return std::fs::canonicalize(dir).map_err(|error| failed(&error));
    };
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let joined = std::fs::canonicalize(parent).map_err(|error| failed(&error))?.join(name);
    // A symlink to a mount point is the other way to name it.
    let is_link = joined.is_symlink();
    if is_link {
        std::fs::canonicalize(&joined).map_err(|error| failed(&error))
    } else {
        Ok(joined)
    }
}

/// Takes one mount away; who may not do that is helped by fusermount3, which is set-user-id.
fn take_away(place: &Path) -> Result<()> {
    let done = match unmount_patiently(place) {
        Err(Errno::PERM) if creds::own_ids().0 != 0 => by_fusermount(place, &["-u"]),
        Err(Errno::BUSY) => Err(Error::Refused(format!(
            "cannot unmount {}: device or resource busy: fuser -vm shows who uses it",
            place.display()
        ))),
        other => other.map_err(|errno| Error::io("unmount", place, errno)),
    };
    unless_gone(place, done)
}

/// Takes away a mount that nobody serves any more, also where somebody still has it open.
fn take_away_dead(place: &Path) -> Result<()> {
    let done = match mount::detach(place) {
        Err(Errno::PERM) if creds::own_ids().0 != 0 => by_fusermount(place, &["-u", "-z"]),
        other => other.map_err(|errno| Error::io("unmount", place, errno)),
    };
    unless_gone(place, done)
}

/// What came of unmounting `place`, which the mount table named a moment ago. Whoever unmounts it
/// at the same time (another command, its daemon that ends) does what was wanted.
fn unless_gone(place: &Path, done: Result<()>) -> Result<()> {
    done.or_else(|error| match mountinfo::read() {
        Ok(mounts) if mounts.iter().all(|mount| mount.path != place) => Ok(()),
        _ => Err(error),
    })
}

fn unmount_patiently(place: &Path) -> FsResult<()> {
    let start = Instant::now();
    loop {
        match unmount::unmount(place) {
            Err(Errno::BUSY) if start.elapsed() < PASSING => std::thread::sleep(POLL),
            other => return other,
        }
    }
}

fn by_fusermount(place: &Path, how: &[&str]) -> Result<()> {
    let output = Command::new("fusermount3")
        .args(how)
        .arg("--")
        .arg(place)
        .output()
        .map_err(|error| Error::std_io("run", "fusermount3", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Refused(format!("cannot unmount {}: {said}", place.display())))
}
