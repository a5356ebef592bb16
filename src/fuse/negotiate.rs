//! INIT: what the kernel and we agree on.

use super::abi::{self, InitFlags, InitIn, InitOut};
use super::buffer::{MAX_DATA, zeroed};
use crate::error::{Error, Result};
use crate::overlay::options::{Options, PassthroughPolicy};
use crate::sys::process;

/// What later requests depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// SETXATTR comes in its longer form.
    pub(crate) setxattr_ext: bool,
    /// OPEN may name a backing file.
    pub(crate) passthrough: bool,
    /// Whether the kernel asks before it opens a file.
    pub(crate) opens: Opens,
}

/// What the kernel does when a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opens {
    /// It sends OPEN and RELEASE, and names the open file from then on.
    Asked,
    /// Once OPEN was answered by ENOSYS it sends neither, and names nodes: an open costs nothing.
    Unasked,
}

/// Requests that may wait in the background (read-ahead, releases) before the kernel slows down.
const MAX_BACKGROUND: u16 = 64;

/// A backing file must lie on a filesystem that stands on no other; one more may stand on ours.
const STACK_DEPTH: u32 = 1;

/// What we take of what the kernel offers. Left out on purpose:
/// - POSIX_LOCKS, FLOCK_LOCKS: the kernel's own locks are right, and hold across a copy-up;
/// - AUTO_INVAL_DATA: every change of a file's size comes through the kernel;
/// - WRITEBACK_CACHE: excludes passthrough, and writes are slower with it;
/// - EXPORT_SUPPORT: a handle is the number of a node, which leads nowhere once the kernel has
///   forgotten it, and to another file after a remount. NO_EXPORT_SUPPORT refuses handles, as the
///   kernel's overlayfs does.
const WANTED: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::ATOMIC_O_TRUNC)
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::HAS_IOCTL_DIR)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::POSIX_ACL)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::CACHE_SYMLINKS)
    .union(InitFlags::NO_OPEN_SUPPORT)
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::INIT_EXT)
    .union(InitFlags::HAS_EXPIRE_ONLY)
    .union(InitFlags::PASSTHROUGH)
    .union(InitFlags::NO_EXPORT_SUPPORT);

/// The answer to `offer`. `acls`: the mount has POSIX ACLs. `privileged` says that this process may
/// register backing files.
///
/// # Errors
/// A kernel that is too old.
pub(crate) fn answer(
    offer: &InitIn,
    options: &Options,
    acls: bool,
    privileged: bool,
) -> Result<(InitOut, Agreed)> {
    if (offer.major, offer.minor) < (abi::MAJOR, abi::OLDEST_MINOR) {
        return Err(Error::Refused(format!(
            "the kernel's FUSE protocol is {}.{}, and {}.{} is needed",
            offer.major,
            offer.minor,
            abi::MAJOR,
            abi::OLDEST_MINOR
        )));
    }
    let mut wanted = WANTED;
    if !acls {
        wanted.remove(InitFlags::POSIX_ACL);
    }
    if options.passthrough == PassthroughPolicy::Off || !privileged {
        wanted.remove(InitFlags::PASSTHROUGH);
    }
    let mut flags = offered(offer) & wanted;
    let opens = opens(flags);
    if opens == Opens::Unasked {
        // Nobody would cut the file off: it comes as a SETATTR instead.
        flags.remove(InitFlags::ATOMIC_O_TRUNC);
    }
    let agreed = Agreed {
        setxattr_ext: flags.contains(InitFlags::SETXATTR_EXT),
        passthrough: flags.contains(InitFlags::PASSTHROUGH),
        opens,
    };
    let out = InitOut {
        major: abi::MAJOR,
        minor: abi::MINOR,
        max_readahead: offer.max_readahead,
        flags: flags.bits() as u32,
        flags2: (flags.bits() >> 32) as u32,
        max_background: MAX_BACKGROUND,
        congestion_threshold: MAX_BACKGROUND / 4 * 3,
        max_write: MAX_DATA as u32,
        max_pages: (MAX_DATA / 4096) as u16,
        time_gran: 1,
        max_stack_depth: if agreed.passthrough { STACK_DEPTH } else { 0 },
        ..zeroed::<_>()
    };
    Ok((out, agreed))
}

/// Passing a file through takes an OPEN. And who opens a file when its content is asked for must
/// be permitted to then, whatever its mode has become.
fn opens(flags: InitFlags) -> Opens {
    let passthrough = flags.contains(InitFlags::PASSTHROUGH);
    match flags.contains(InitFlags::NO_OPEN_SUPPORT) && !passthrough && process::overrides_modes() {
        true => Opens::Unasked,
        false => Opens::Asked,
    }
}

fn offered(offer: &InitIn) -> InitFlags {
    let low = InitFlags::from_bits_truncate(u64::from(offer.flags));
    if low.contains(InitFlags::INIT_EXT) {
        low | InitFlags::from_bits_truncate(u64::from(offer.flags2) << 32)
    } else {
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_too_old_is_told_so_with_both_versions() {
        let offer = |major, minor| InitIn { major, minor, ..zeroed::<_>() };
        let answer = |offer: InitIn| answer(&offer, &Options::default(), true, false);
        for (major, minor) in [(7, 0), (7, abi::OLDEST_MINOR - 1), (6, 99)] {
            let said = answer(offer(major, minor)).unwrap_err().to_string();
            let needed = format!("{}.{}", abi::MAJOR, abi::OLDEST_MINOR);
            let expected =
                format!("the kernel's FUSE protocol is {major}.{minor}, and {needed} is needed");
            assert_eq!(said, expected);
        }
        assert!(answer(offer(abi::MAJOR, abi::OLDEST_MINOR)).is_ok());
    }
}
