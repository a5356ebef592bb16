//! Origins: which lower inode a copied-up one came from (kernel format `struct ovl_fh`).
//!
//! Layout of the xattr `overlay.origin`: one byte each of version (0), magic (0xfb), length,
//! flags and handle type, then 16 bytes of filesystem UUID, then the handle.

use crate::sys::AsFd;
use crate::sys::file_handle::{FileHandle, handle_at};
use crate::sys::stat::is_fuse;
use std::ffi::OsStr;

const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
const HEADER: usize = 21;
/// Set on big-endian machines; handles do not travel between the two.
const FLAG_BIG_ENDIAN: u8 = 1;

/// The types of FUSE's handles (`fuse_encode_fh`), which xfs has as well.
const FUSE_KINDS: [i32; 2] = [0x81, 0x82];

/// The origin of a copied-up inode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The handle of the lower inode on its filesystem.
    pub handle: FileHandle,
    /// The UUID of that filesystem; zeros where it has none.
    pub uuid: [u8; 16],
}

impl Origin {
    /// The origin to record for `dir`/`name`; `None` where the filesystem has no handles, or is
    /// FUSE's, of which a handle means another file after each mount.
    pub fn of(dir: impl AsFd, name: &OsStr, uuid: [u8; 16]) -> Option<Origin> {
        let handle = handle_at(&dir, name).ok()?;
        if FUSE_KINDS.contains(&handle.kind) && is_fuse(&dir).unwrap_or(true) {
            return None;
        }
        (HEADER + handle.bytes.len() <= u8::MAX as usize).then_some(Origin { handle, uuid })
    }

    /// Reads the xattr; `None` where it is not in the format, which is no error: garbage means
    /// an unknown origin.
    pub fn parse(value: &[u8]) -> Option<Origin> {
        let (header, bytes) = value.split_at_checked(HEADER)?;
        let (fixed, uuid) = header.split_at_checked(5)?;
        let &[version, magic, length, flags, kind] = fixed else { return None };
        let big_endian = flags & FLAG_BIG_ENDIAN != 0;
        if version != VERSION || magic != MAGIC || usize::from(length) != value.len() {
            return None;
        }
        if big_endian != cfg!(target_endian = "big") {
            return None;
        }
        let handle = FileHandle { kind: i32::from(kind), bytes: bytes.to_vec() };
        Some(Origin { handle, uuid: uuid.try_into().ok()? })
    }

    /// The xattr's value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = HEADER + self.handle.bytes.len();
        let flags = if cfg!(target_endian = "big") { FLAG_BIG_ENDIAN } else { 0 };
        let mut value = vec![VERSION, MAGIC, length as u8, flags, self.handle.kind as u8];
        value.extend_from_slice(&self.uuid);
        value.extend_from_slice(&self.handle.bytes);
        value
    }

    /// The inode number inside the handle, for the handle types whose layout is known; needs no
    /// privilege, unlike opening the handle. Sources: `include/linux/exportfs.h`,
    /// `shmem_encode_fh`, `btrfs_encode_fh`.
    pub fn inode_number(&self) -> Option<u64> {
        let word = |i: usize| -> Option<u64> {
            let bytes = self.handle.bytes.get(i * 4..i * 4 + 4)?;
            Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)))
        };
        let long = || -> Option<u64> {
            let bytes = self.handle.bytes.get(..8)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        match (self.handle.kind, self.handle.bytes.len()) {
            // FILEID_INO32_GEN: ext4 and others. tmpfs uses the type with three words.
            (1, 8) => word(0),
            (1, 12) => Some(word(1)? | word(2)? << 32),
            // FILEID_INO64_GEN: xfs; FILEID_BTRFS_WITHOUT_PARENT.
            (0x81, _) | (0x4d, _) => long(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_round_trips_and_garbage_is_none() {
        let handle = FileHandle { kind: 1, bytes: vec![7, 0, 0, 0, 9, 9, 9, 9] };
        let origin = Origin { handle, uuid: [3; 16] };
        let bytes = origin.to_bytes();
        assert_eq!(Origin::parse(&bytes), Some(origin.clone()));
        assert_eq!(origin.inode_number(), Some(7));
        assert_eq!(Origin::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Origin::parse(b""), None);
        assert_eq!(Origin::parse(b"garbage garbage garbage"), None);
    }
}
