//! `cp`: files into a container and out of it.
//!
//! Everything goes through the container's mount, for only that knows how to copy up; one that
//! is not mounted is mounted meanwhile. Paths of a container are resolved with its root as root,
//! so that no symlink in it leads out.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use crate::archive::{tar_read, tar_write};
use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::{AsRawFd, OFlags, OwnedFd, beneath, creds, file, node, stat};

use super::Store;
use super::containers::{ENDING, in_use};
use super::lock::POLL;

/// One end of a copy.
#[derive(Debug)]
pub enum CopyEnd<'a> {
    /// A path of this machine.
    Here(&'a Path),
    /// A path in the container.
    There(&'a Path),
    /// A tar archive: the end that reads it wants files from it, the end that writes it gives
    /// them.
    Archive,
}

/// How files are copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// They keep their owners; else they belong to root in a container, and here to the caller.
    pub archive: bool,
    /// A symlink that is named as the source stands for what it leads to.
    pub follow: bool,
}

/// A place whose directory is open.
struct Place {
    dir: OwnedFd,
    /// The name in it; `None` for the directory itself.
    name: Option<OsString>,
    /// The path ends in `/` or `/.`.
    slash: bool,
    /// It ends in `/.`: what is in the directory, not the directory.
    content: bool,
    shown: PathBuf,
}

/// Where a copy goes.
struct Destination {
    dir: OwnedFd,
    /// The name in it; nothing where the content of a directory goes into this one.
    name: OsString,
    /// The path of the directory.
    shown: PathBuf,
}

/// How many symlinks may follow one another, as with the kernel.
const LINKS_MAX: u32 = 40;

impl Store {
    /// Copies between this machine and the container that `text` names. `input` and `output` are
    /// the archives that [`CopyEnd::Archive`] stands for, `daemon` serves the mount where the
    /// container is not mounted.
    ///
    /// # Errors
    /// Where there is no such container or file, or something cannot be written; what was
    /// copied until then stays.
    pub fn copy(
        &self,
        text: &str,
        (from, to): (&CopyEnd<'_>, &CopyEnd<'_>),
        options: CopyOptions,
        (input, output): (&mut (dyn Read + Send), &mut (dyn Write + Send)),
        daemon: &Path,
    ) -> Result<()> {
        self.with_mounted(text, daemon, &mut |root| {
            let host = open(Path::new("/"))?;
            let place = |end: &CopyEnd<'_>| match end {
                CopyEnd::Here(path) => Some((&host, absolute(path))),
                CopyEnd::There(path) => Some((root, Ok(path.to_path_buf()))),
                CopyEnd::Archive => None,
            };
            let owner = match to {
                _ if options.archive => None,
                CopyEnd::There(_) => Some((0, 0)),
                CopyEnd::Here(_) | CopyEnd::Archive => Some(creds::own_ids()),
            };
            match (place(from), place(to)) {
                (Some((root, path)), None) => {
                    let source = Place::source(root, &path?, options.follow)?;
                    let name = if source.content { ".".into() } else { source.own_name() };
                    source.pack(&name, output)
                }
                (None, Some((root, path))) => {
                    let path = path?;
                    let dir = Place::directory(root, &path)?;
                    tar_read::copy_into(input, (dir, &path), owner, "the archive").map(drop)
                }
                (Some((from_root, from)), Some((to_root, to))) => {
                    let source = Place::source(from_root, &from?, options.follow)?;
                    transfer(&source, source.destination(to_root, &to?)?, owner)
                }
                (None, None) => Err(Error::Refused("one end must be a container".to_owned())),
            }
        })
    }

    /// Calls `work` with the root of the container, which is mounted meanwhile.
    fn with_mounted(
        &self,
        text: &str,
        daemon: &Path,
        work: &mut dyn FnMut(&OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let container = self.container(text)?;
        let start = Instant::now();
        let (mounted, root) = loop {
            let found = self.mount_meanwhile(&container, daemon)?;
            let root = found.as_ref().map(|mounted| mounted_root(&mounted.place));
            match (found, root) {
                (Some(mounted), Some(Ok(root))) => break (mounted, root),
                // The mount of a copy that was killed goes in its daemon's own time.
                _ if start.elapsed() < ENDING => thread::sleep(POLL),
                (_, Some(Err(error))) => return Err(error),
                _ => {
                    return Err(in_use(
                        &container,
                        "mounted in another mount namespace, copy there",
                    ));
                }
            }
        };
        let outcome = work(&root);
        // Open, it would keep the mount busy.
        drop(root);
        if mounted.is_ours() {
            self.umount_container(&container)?;
        }
        outcome
    }
}

/// The root of what is mounted on `place`; not what lies below it, if that was unmounted just now.
fn mounted_root(place: &Path) -> Result<OwnedFd> {
    let device = |fd: &OwnedFd, path: &Path| {
        stat::stat_fd(fd).map(|stat| stat.dev).map_err(|errno| Error::io("look at", path, errno))
    };
    let root = open(place)?;
    match place.parent() {
        Some(above) if device(&open(above)?, above)? == device(&root, place)? => {
            Err(Error::Refused(format!("{} is mounted no more", place.display())))
        }
        _ => Ok(root),
    }
}

/// Packs on a thread what this one unpacks.
fn transfer(source: &Place, to: Destination, owner: Option<(u32, u32)>) -> Result<()> {
    let name = &to.name;
    let failed = |error: &io::Error| Error::std_io("make", "a pipe", error);
    let (mut reader, mut writer) = io::pipe().map_err(|error| failed(&error))?;
    thread::scope(|scope| {
        let packing = scope.spawn(move || source.pack(name, &mut writer));
        let what = source.shown.display().to_string();
        let unpacked = tar_read::copy_into(&mut reader, (to.dir, &to.shown), owner, &what);
        // Whoever packs ends when nobody reads.
        drop(reader);
        let packed =
            packing.join().unwrap_or_else(|_| Err(Error::bug("the packing of what is copied")));
        match (packed, unpacked) {
            // An archive that ends early is the fault of whoever packed it, unless that could
            // only not write any more.
            (Err(Error::Io { source: Errno::PIPE, .. }) | Ok(()), unpacked) => unpacked.map(drop),
            (Err(error), _) => Err(error),
        }
    })
}

impl Place {
    /// Opens the directory that `path` is in; the last component is not followed.
    fn of(root: &OwnedFd, path: &Path) -> Result<Place> {
        let bytes = path.as_os_str().as_bytes();
        let content = bytes.ends_with(b"/.") || bytes == b".";
        let slash = content || bytes.ends_with(b"/");
        let shown = path.to_path_buf();
        let failed = |errno| Error::io("open", path, errno);
        let plain = path.components().as_path();
        let (above, name) = match (plain.parent(), plain.file_name()) {
            (Some(above), Some(name)) if !content => (above, Some(name.to_owned())),
            _ => (plain, None),
        };
        let dir = open_directory(root, above).map_err(failed)?;
        Ok(Place { dir, name, slash, content, shown })
    }

    /// The place of what is to be copied, which must exist.
    fn source(root: &OwnedFd, path: &Path, follow: bool) -> Result<Place> {
        let place = Place::of(root, path)?;
        let failed = |errno| Error::io("copy", path, errno);
        if place.name.is_none() && !place.content {
            // It ends in `..`: only the directory itself knows what it is called.
            return Place::of(root, &place.path_of(root, &place.dir)?);
        }
        let stat = place.stat().map_err(failed)?.ok_or_else(|| failed(Errno::NOENT))?;
        if stat.is_symlink() && (follow || place.slash) {
            return place.followed(root);
        }
        if place.slash && !stat.is_dir() {
            return Err(failed(Errno::NOTDIR));
        }
        Ok(place)
    }

    /// The place that a symlink leads to, inside `root`.
    fn followed(self, root: &OwnedFd) -> Result<Place> {
        let path = relative(self.shown.as_path());
        let target = beneath::open_in_root(root, path.as_os_str(), OFlags::PATH)
            .map_err(|errno| Error::io("follow", &self.shown, errno))?;
        let mut found = Place::of(root, &self.path_of(root, &target)?)?;
        // It is known by the name of the symlink.
        found.shown = self.shown;
        Ok(found)
    }

    /// The path of what this place led to, as seen from `root`.
    fn path_of(&self, root: &OwnedFd, found: &OwnedFd) -> Result<PathBuf> {
        let path = |fd: &OwnedFd| {
            std::fs::read_link(proc_path(fd)).map_err(|e| Error::std_io("follow", &self.shown, &e))
        };
        let (root, found) = (path(root)?, path(found)?);
        let inside = found.strip_prefix(&root);
        let inside = inside.map_err(|_| Error::io("follow", &self.shown, Errno::XDEV))?;
        Ok(Path::new("/").join(inside))
    }

    /// The existing directory at `path`.
    fn directory(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
        open_directory(root, path).map_err(|errno| Error::io("copy into", path, errno))
    }

    fn stat(&self) -> FsResult<Option<stat::Stat>> {
        let found = match &self.name {
            Some(name) => stat::stat_at(&self.dir, name),
            None => stat::stat_fd(&self.dir),
        };
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What it is called; nothing for a root and for the content of a directory.
    fn own_name(&self) -> OsString {
        let name = self.shown.file_name().filter(|_| !self.content);
        name.map(OsStr::to_owned).unwrap_or_default()
    }

    /// Docker's rule for where this goes when it is copied to `to`.
    fn destination(&self, root: &OwnedFd, to: &Path) -> Result<Destination> {
        let failed = |errno| Error::io("copy to", to, errno);
        let is_dir = self.stat().map_err(failed)?.is_some_and(|stat| stat.is_dir());
        match open_directory(root, to) {
            Ok(dir) => {
                let name = if self.content { OsString::new() } else { self.own_name() };
                return Ok(Destination { dir, name, shown: to.to_path_buf() });
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let (place, there) = Place::to_write(root, to)?;
        match place.name {
            // A copy replaces what is there: `/dev/null` would be a file from then on.
            _ if there.is_some_and(|there| there.is_device()) => {
                let why = "it is a device, and would be replaced";
                Err(Error::Refused(format!("cannot copy to {}: {why}", to.display())))
            }
            _ if there.is_some() && (is_dir || place.slash) => Err(failed(Errno::NOTDIR)),
            _ if place.slash && !is_dir => Err(failed(Errno::NOENT)),
            Some(name) => {
                let shown = place.shown.parent().unwrap_or(&place.shown).to_path_buf();
                Ok(Destination { dir: place.dir, name, shown })
            }
            None => Err(failed(Errno::NOENT)),
        }
    }

    /// The place that a file written to `path` lies at, and what is there already. A symlink
    /// stays, and what it leads to is written, which need not be there.
    fn to_write(root: &OwnedFd, path: &Path) -> Result<(Place, Option<stat::Stat>)> {
        let failed = |errno| Error::io("copy to", path, errno);
        let mut place = Place::of(root, path)?;
        for _ in 0..LINKS_MAX {
            let stat = place.stat().map_err(failed)?;
            let Some(name) = place.name.as_ref().filter(|_| stat.is_some_and(|s| s.is_symlink()))
            else {
                return Ok((place, stat));
            };
            let target = PathBuf::from(node::read_link(&place.dir, name).map_err(failed)?);
            let plain = place.shown.components().as_path();
            let path = plain.parent().unwrap_or(Path::new("/")).join(target);
            let slash = place.slash;
            place = Place::of(root, &path)?;
            place.slash |= slash;
        }
        Err(failed(Errno::LOOP))
    }

    fn pack(&self, name: &OsStr, out: &mut dyn Write) -> Result<()> {
        let place = (proc_path(&self.dir), self.name.as_deref());
        tar_write::subtree((&place.0, place.1), &self.shown, name, out)
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    file::open_root(path).map_err(|errno| Error::io("open", path, errno))
}

fn open_directory(root: &OwnedFd, path: &Path) -> FsResult<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    beneath::open_in_root_across(root, relative(path).as_os_str(), flags)
}

/// The path as seen from its root.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |error: &io::Error| Error::std_io("find", path, error);
    let here = std::env::current_dir().map_err(|error| failed(&error))?;
    Ok(here.join(path))
}

/// A path to what is open, whatever it is called by now.
fn proc_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
