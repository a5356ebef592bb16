//! Everything that can be seen of the overlay core.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use plyfs::overlay::{Entry, NodeId, With};
use plyfs::sys::OFlags;
use plyfs::sys::stat::decode_dev;
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use super::Core;
use crate::support::{self, Kind, Snapshot, Time};

impl Core<'_> {
    /// The names in a directory with their types, in order.
    pub(super) fn names(&self, dir: NodeId) -> Vec<(OsString, u32)> {
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            let before = cookie;
            let mut room = 3;
            let listed = self.fs().readdir(dir, cookie, With::Nothing, &mut |entry| {
                room -= 1;
                if room < 0 {
                    return false;
                }
                cookie = entry.cookie;
                names.push((entry.name.to_owned(), entry.kind));
                true
            });
            listed.unwrap();
            if cookie == before {
                break;
            }
        }
        names.retain(|(name, _)| name != "." && name != "..");
        names.sort();
        names
    }

    pub(super) fn visit(&self, found: &Entry, path: PathBuf, into: &mut Visit) {
        let stat = &found.stat;
        let kind = self.kind(found);
        let first = into.first_names.get(&stat.ino).cloned().filter(|_| !stat.is_dir());
        if first.is_none() {
            into.first_names.insert(stat.ino, path.clone());
        }
        let entry = support::Entry {
            kind,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            nlink: stat.nlink,
            mtime: Time { sec: stat.mtime.sec, nsec: stat.mtime.nsec },
            xattrs: self.xattrs(found.node),
            same_as: first,
            ino: stat.ino,
        };
        let doubled = into.snapshot.entries.insert(path.clone(), entry);
        assert!(doubled.is_none(), "{} is listed twice", path.display());
        if !stat.is_dir() {
            return;
        }
        for (name, kind) in self.names(found.node) {
            let child = self.child(found, &name);
            let child = child.unwrap_or_else(|e| panic!("{name:?} is listed, lookup says {e}"));
            assert_eq!(kind, child.stat.mode >> 12, "d_type of {name:?}");
            self.visit(&child, path.join(&name), into);
        }
    }

    fn kind(&self, found: &Entry) -> Kind {
        let (major, minor) = decode_dev(found.stat.rdev);
        match found.stat.file_type() {
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => {
                let opened = self.fs().open(found.node, OFlags::RDONLY, false).unwrap();
                let content = self.read_all(opened.handle.into()).unwrap();
                self.fs().release(opened.handle);
                let digest = hex::encode(&Sha256::digest(content)[..12]);
                Kind::File { size: found.stat.size, digest }
            }
            FileType::Symlink => Kind::Symlink(self.fs().readlink(found.node).unwrap()),
            FileType::CharacterDevice => Kind::Char(major, minor),
            FileType::BlockDevice => Kind::Block(major, minor),
            FileType::Fifo => Kind::Fifo,
            _ => Kind::Socket,
        }
    }

    fn xattrs(&self, node: NodeId) -> BTreeMap<OsString, Vec<u8>> {
        let names = self.fs().listxattr(node).unwrap();
        let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
        names
            .map(|name| {
                let name = OsStr::from_bytes(name);
                (name.to_owned(), self.xattr(node, name).unwrap())
            })
            .collect()
    }
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Visit {
    pub(super) snapshot: Snapshot,
    first_names: BTreeMap<u64, PathBuf>,
}
