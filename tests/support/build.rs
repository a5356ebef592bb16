//! Making a layer's tree on disk from its text.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, XattrFlags};

use super::require::{overlay_xattr, rootless};
use super::snapshot::Time;
use super::spec::{EntrySpec, LayerSpec, What};

/// The modification time of everything whose line names none.
pub(crate) const DEFAULT_MTIME: Time = Time { sec: 1_600_000_000, nsec: 123_456_789 };

/// Makes `layer` in the existing directory `root`. Times are set last, so that every entry has
/// the time of its line or [`DEFAULT_MTIME`]. In a user namespace, where nobody may set
/// `trusted.` xattrs, they become `user.` ones, as overlay's own do.
pub(crate) fn build_layer(root: &Path, layer: &LayerSpec) {
    for entry in &layer.entries {
        make(root, entry);
        set_attributes(&root.join(&entry.path), entry);
    }
    set_default_times(root);
    for entry in &layer.entries {
        if let Some(time) = entry.attributes.mtime {
            set_mtime(&root.join(&entry.path), time);
        }
    }
}

fn make(root: &Path, entry: &EntrySpec) {
    let path = root.join(&entry.path);
    ensure_dir(path.parent().unwrap());
    match &entry.what {
        What::Dir => ensure_dir(&path),
        What::Opaque => {
            ensure_dir(&path);
            set_xattr(&path, OsStr::new(&overlay_xattr("opaque")), b"y");
        }
        What::File(content) => fs::write(&path, content).unwrap(),
        What::Sparse { size, data } => {
            let file = fs::File::create_new(&path).unwrap();
            file.set_len(*size).unwrap();
            for (offset, bytes) in data {
                file.write_all_at(bytes, *offset).unwrap();
            }
        }
        What::Symlink(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
        What::HardLink(other) => fs::hard_link(root.join(other), &path).unwrap(),
        What::Char(major, minor) => node(&path, FileType::CharacterDevice, *major, *minor),
        What::Block(major, minor) => node(&path, FileType::BlockDevice, *major, *minor),
        What::Fifo => node(&path, FileType::Fifo, 0, 0),
        What::Socket => node(&path, FileType::Socket, 0, 0),
        What::Whiteout => node(&path, FileType::CharacterDevice, 0, 0),
    }
}

/// Makes a directory and its parents where they are missing, root's and with mode 0755 whatever
/// the umask and the SGID of what it lies in.
fn ensure_dir(path: &Path) {
    if path.is_dir() {
        return;
    }
    ensure_dir(path.parent().unwrap());
    fs::create_dir(path).unwrap();
    std::os::unix::fs::chown(path, Some(0), Some(0)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn node(path: &Path, kind: FileType, major: u32, minor: u32) {
    let dev = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), dev)
        .unwrap_or_else(|error| panic!("mknod {}: {error}", path.display()));
}

fn set_attributes(path: &Path, entry: &EntrySpec) {
    let attributes = &entry.attributes;
    if matches!(entry.what, What::HardLink(_) | What::Whiteout) {
        return;
    }
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let default = match entry.what {
        What::Dir | What::Opaque => 0o755,
        _ => 0o644,
    };
    if !matches!(entry.what, What::Symlink(_)) {
        let mode = Mode::from_raw_mode(attributes.mode.unwrap_or(default));
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).unwrap();
    }
    for (name, value) in &attributes.xattrs {
        set_xattr(path, &permitted(name), value);
    }
}

fn permitted(name: &OsStr) -> OsString {
    let name = name.to_str().unwrap();
    match name.strip_prefix("trusted.") {
        Some(rest) if rootless() => format!("user.{rest}").into(),
        _ => name.into(),
    }
}

fn set_xattr(path: &Path, name: &OsStr, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("setxattr {name:?} of {}: {error}", path.display()));
}

fn set_default_times(path: &Path) {
    let kind = fs::symlink_metadata(path).unwrap();
    if kind.is_dir() {
        let names: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        for name in names {
            set_default_times(&name);
        }
    }
    set_mtime(path, DEFAULT_MTIME);
}

/// Sets access and modification time, a symlink's own.
pub(crate) fn set_mtime(path: &Path, time: Time) {
    let spec = rustix::fs::Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) };
    let times = rustix::fs::Timestamps { last_access: spec, last_modification: spec };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
