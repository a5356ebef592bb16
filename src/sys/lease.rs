//! Whether a file is open for writing, by whomever.

#![expect(unsafe_code, reason = "leases have no safe wrapper")]

use super::{AsFd, AsRawFd};

/// Which signal tells of leases: `fcntl.h`, the same on every machine that we build for.
const F_SETSIG: libc::c_int = 10;

/// Whether nobody has the file of `fd`, itself open for reading alone, open or mapped for writing.
///
/// The kernel gives a read lease on such files alone. It is given back at once; who opens the file
/// for writing just then waits for that, or gets `EAGAIN` if it does not want to wait. "No" where
/// the filesystem has no leases.
pub fn nobody_writes(fd: impl AsFd) -> bool {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is handed over; `fd` is open for the time of the calls.
    let leased = unsafe {
        // The signal that tells of somebody who waits ends a process by default; this one does not.
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    };
    if leased {
        // SAFETY: as above.
        let given_back = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        debug_assert_eq!(given_back, 0);
    }
    leased
}
