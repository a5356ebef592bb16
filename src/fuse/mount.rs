//! Putting the filesystem on its mountpoint and taking it off again: by mount(2) where this
//! process may, else through `fusermount3`.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::buffer::MAX_DATA;
use crate::error::{Errno, Error, Result, errno_of};
use crate::overlay::options::Options;
use crate::sys::mount::{self, MountFlags};
use crate::sys::stat::stat_fd;
use crate::sys::{OwnedFd, file, fuse_dev};

const FUSERMOUNT: &str = "fusermount3";

/// The name of an unnamed source, and of the type behind `fuse.`.
const NAME: &str = "plyfs";

/// A mounted filesystem's place.
#[derive(Debug, Clone)]
pub(crate) struct MountPoint {
    path: PathBuf,
    by: Means,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Syscall,
    Fusermount,
}

/// Mounts on the absolute path `target`; returns the device that its requests come from.
pub(crate) fn mount(options: &Options, target: &Path) -> Result<(OwnedFd, MountPoint)> {
    match by_syscall(options, target) {
        Ok(device) => Ok((device, MountPoint { path: target.to_path_buf(), by: Means::Syscall })),
        Err(error) if matches!(error.errno(), Errno::PERM | Errno::ACCESS) => {
            let device = by_fusermount(options, target)?;
            Ok((device, MountPoint { path: target.to_path_buf(), by: Means::Fusermount }))
        }
        Err(error) => Err(error),
    }
}

impl MountPoint {
    /// Whether another program takes it off, which has rights of its own.
    pub(crate) fn needs_helper(&self) -> bool {
        self.by == Means::Fusermount
    }

    /// Takes the filesystem off its place at once, also where files of it are still open.
    pub(crate) fn unmount(&self) -> Result<()> {
        if self.by == Means::Syscall {
            return match mount::detach(&self.path) {
                // Somebody was faster.
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
                Err(errno) => Err(Error::io("unmount", &self.path, errno)),
            };
        }
        let output = Command::new(FUSERMOUNT)
            .args(["-u", "-z", "-q", "--"])
            .arg(&self.path)
            .output()
            .map_err(|error| not_run(&error))?;
        if output.status.success() { Ok(()) } else { Err(refused(&output.stderr)) }
    }
}

fn by_syscall(options: &Options, target: &Path) -> Result<OwnedFd> {
    let device = fuse_dev::open_device().map_err(no_device)?;
    let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={MAX_DATA}",
        device.as_raw_fd(),
        user.0,
        user.1,
    );
    // Whoever may mount by himself serves others, too: containers run as many users.
    if options.mount.allow_other.unwrap_or(true) {
        data.push_str(",allow_other");
    }
    let label = options.mount.context.as_ref().filter(|_| Path::new("/sys/fs/selinux").exists());
    if let Some(label) = label {
        // Writing to a string cannot fail.
        write!(data, ",context=\"{label}\"").map_err(|_| Error::option("context", "bad label"))?;
    }
    let kind = format!("fuse.{}", options.mount.subtype.as_deref().unwrap_or(NAME));
    let source = OsStr::new(options.mount.fsname.as_deref().unwrap_or(NAME));
    mount::mount(source, target, &kind, flags(options), OsStr::new(&data))
        .map_err(|errno| Error::io("mount on", target, errno))?;
    Ok(device)
}

fn flags(options: &Options) -> MountFlags {
    let asked = &options.mount;
    [
        (options.read_only, MountFlags::RDONLY),
        (asked.nosuid, MountFlags::NOSUID),
        (asked.nodev, MountFlags::NODEV),
        (asked.noexec, MountFlags::NOEXEC),
        (asked.noatime, MountFlags::NOATIME),
        (asked.nodiratime, MountFlags::NODIRATIME),
        (asked.relatime, MountFlags::RELATIME),
        (asked.strictatime, MountFlags::STRICTATIME),
        (asked.sync, MountFlags::SYNCHRONOUS),
        (asked.dirsync, MountFlags::DIRSYNC),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .fold(MountFlags::empty(), MountFlags::union)
}

/// Lets the setuid program mount; it hands the device over through a socket whose number is in
/// the environment variable `_FUSE_COMMFD`.
fn by_fusermount(options: &Options, target: &Path) -> Result<OwnedFd> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| Error::std_io("make a socket for", target, &error))?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())
        .map_err(|errno| Error::io("make a socket for", target, errno))?;
    let mut child = Command::new(FUSERMOUNT)
        .arg("-o")
        .arg(fusermount_options(options))
        .arg("--")
        .arg(target)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_run(&error))?;
    drop(theirs);
    let device = receive_device(&ours);
    let mut words = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut words).map_err(|error| not_run(&error))?;
    }
    let status = child.wait().map_err(|error| not_run(&error))?;
    match device {
        Some(device) if status.success() => Ok(device),
        _ => Err(refused(&words)),
    }
}

fn fusermount_options(options: &Options) -> OsString {
    let asked = &options.mount;
    let mut text = String::from("default_permissions");
    let mut add = |set: bool, name: &str| {
        if set {
            text.push(',');
            text.push_str(name);
        }
    };
    let escape = |name: &str| name.replace('\\', "\\\\").replace(',', "\\,");
    add(true, &format!("fsname={}", escape(asked.fsname.as_deref().unwrap_or(NAME))));
    add(true, &format!("subtype={}", escape(asked.subtype.as_deref().unwrap_or(NAME))));
    add(true, &format!("max_read={MAX_DATA}"));
    // The program refuses these to users unless its configuration allows them: only if asked.
    add(asked.allow_other == Some(true) || asked.allow_root, "allow_other");
    add(options.read_only, "ro");
    add(asked.nosuid, "nosuid");
    add(asked.nodev, "nodev");
    add(asked.noexec, "noexec");
    add(asked.noatime, "noatime");
    add(asked.nodiratime, "nodiratime");
    add(asked.sync, "sync");
    add(asked.dirsync, "dirsync");
    text.into()
}

fn receive_device(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let mut data = [std::io::IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// The last line that the program wrote, as an error.
fn refused(stderr: &[u8]) -> Error {
    let text = String::from_utf8_lossy(stderr);
    let line = text.trim().lines().last().unwrap_or("it failed without a word").to_owned();
    let line = line.strip_prefix("fusermount3: ").unwrap_or(&line);
    Error::Refused(format!("{FUSERMOUNT}: {line}"))
}

fn not_run(error: &std::io::Error) -> Error {
    match errno_of(error) {
        Errno::NOENT => Error::Refused(format!(
            "{FUSERMOUNT} is needed to mount without privilege: install the package fuse3"
        )),
        errno => Error::io("run", FUSERMOUNT, errno),
    }
}

fn no_device(errno: Errno) -> Error {
    match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => Error::Refused(format!(
            "there is no {}: load the kernel's module (modprobe fuse), or let the container have \
             the device",
            fuse_dev::PATH
        )),
        errno => Error::io("open", fuse_dev::PATH, errno),
    }
}

/// The absolute path of a mountpoint, which must be a directory.
pub(crate) fn resolve(mountpoint: &Path) -> Result<PathBuf> {
    let wrong = |errno: Errno| Error::io("mount on", mountpoint, errno);
    let dir = file::open_root(mountpoint).map_err(wrong)?;
    // A dead mount there would not answer.
    stat_fd(&dir).map_err(wrong)?;
    let path = file::real_path(&dir).map_err(wrong)?;
    if path.as_os_str().as_bytes() == b"/" {
        return Err(wrong(Errno::BUSY));
    }
    Ok(path)
}
