//! The inode numbers that users see: unique in the mount, the same before and after copy-up,
//! rename and remount.
//!
//! Where all layers lie on one filesystem they are its own numbers. Otherwise the upper bits tell
//! the filesystems apart (the kernel's `xino`), and a number that reaches into them is hashed.

use std::collections::HashMap;

use super::sync::Mutex;

/// Bits that tell filesystems apart.
const FS_BITS: u32 = 8;
const FS_SHIFT: u32 = 63 - FS_BITS;

/// The filesystems of a mount, in the order of its layers.
#[derive(Debug)]
pub struct InodeNumbers {
    devices: Vec<u64>,
    /// The numbers of origins, and the upper inodes (device and number) that show them.
    claims: Mutex<HashMap<u64, (u64, u64), foldhash::fast::FixedState>>,
}

impl InodeNumbers {
    /// Numbers for files on `devices`, given in the order of the layers, bottom first, so that a
    /// new upper does not change those of the lowers.
    pub fn new(devices: impl IntoIterator<Item = u64>) -> InodeNumbers {
        let mut distinct = Vec::new();
        for dev in devices {
            if !distinct.contains(&dev) {
                distinct.push(dev);
            }
        }
        InodeNumbers { devices: distinct, claims: Mutex::default() }
    }

    /// Whether the upper inode `inode` may show the number `ino` of its origin: it may not where
    /// another says that it has the same one (somebody copied an upper's file with its xattrs).
    pub fn claim(&self, ino: u64, inode: (u64, u64)) -> bool {
        *self.claims.lock().entry(ino).or_insert(inode) == inode
    }

    /// The number to show for the inode `ino` of the device `dev`.
    pub fn visible(&self, dev: u64, ino: u64) -> u64 {
        if let [only] = self.devices.as_slice()
            && *only == dev
        {
            return ino;
        }
        let fs = self.devices.iter().position(|d| *d == dev).unwrap_or(self.devices.len()) as u64;
        let room = (1u64 << FS_SHIFT) - 1;
        let fits = ino <= room && fs < (1 << FS_BITS);
        if fits { fs << FS_SHIFT | ino } else { 1 << 63 | (mix(dev ^ mix(ino)) >> 1) }
    }
}

/// The finalizer of splitmix64: a bijection that spreads every bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_filesystem_keeps_its_numbers_and_several_stay_apart() {
        assert_eq!(InodeNumbers::new([5, 5]).visible(5, 77), 77);
        let two = InodeNumbers::new([5, 6]);
        assert_ne!(two.visible(5, 77), two.visible(6, 77));
        assert_ne!(two.visible(5, u64::MAX), two.visible(6, u64::MAX));
    }
}
