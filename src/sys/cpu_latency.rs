//! How long idle processors may take to wake up (`Documentation/power/pm_qos_interface.rst`).

#![expect(unsafe_code, reason = "sysconf has no safe wrapper")]

use rustix::fs::{Mode, OFlags};

use super::OwnedFd;
use crate::error::{Errno, FsResult};

/// Where the kernel takes requests: each open file is one, and closing it, also by the end of its
/// process, withdraws it.
pub const PATH: &str = "/dev/cpu_dma_latency";

/// The kernel's "no matter": 2,000 s, in microseconds.
const NO_MATTER: i32 = 2_000_000_000;

/// A request for the whole machine; it says "no matter" at first.
#[derive(Debug)]
pub struct CpuLatency(OwnedFd);

impl CpuLatency {
    /// # Errors
    /// `ENOENT` for a kernel or a container that has no such device, `EACCES` for who is not root.
    pub fn open() -> FsResult<CpuLatency> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(PATH, flags, Mode::empty()).map(CpuLatency)
    }

    /// Asks that an idle processor takes at most `microseconds` to wake up, or withdraws that.
    /// At zero it does not sleep at all.
    pub fn ask(&self, microseconds: Option<u32>) -> FsResult<()> {
        let most = microseconds.map_or(NO_MATTER, |most| i32::try_from(most).unwrap_or(NO_MATTER));
        let written = rustix::io::write(&self.0, &most.to_ne_bytes())?;
        if written == size_of::<i32>() { Ok(()) } else { Err(Errno::IO) }
    }
}

/// Processors that the machine has online, whichever of them this process may use.
pub fn processors() -> usize {
    // SAFETY: sysconf takes a number and returns one.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1)
}
