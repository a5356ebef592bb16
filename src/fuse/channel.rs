//! The descriptor of `/dev/fuse`: one request out, one reply in.

use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, fuse_dev};

/// One connection to the kernel. Each serving thread has its own clone, because a reply must go
/// to the descriptor that its request was read from.
#[derive(Debug)]
pub(crate) struct Channel {
    device: OwnedFd,
}

/// What a read of the device gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// A request of this many bytes.
    Request(usize),
    /// The filesystem is unmounted (or the connection was aborted): nothing more will come.
    Unmounted,
}

impl Channel {
    /// The channel over a device that is, or is about to be, mounted.
    pub(crate) fn new(device: OwnedFd) -> Channel {
        Channel { device }
    }

    /// A second descriptor for the same mount, for another thread.
    pub(crate) fn another(&self) -> Result<Channel> {
        let device = fuse_dev::clone_device(&self.device)
            .map_err(|errno| Error::io("clone", fuse_dev::PATH, errno))?;
        Ok(Channel { device })
    }

    /// Waits for the next request and reads it into `buffer`, which must hold the largest one.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> FsResult<Received> {
        loop {
            match rustix::io::read(&self.device, &mut *buffer) {
                Ok(length) => return Ok(Received::Request(length)),
                // ENOENT: the request was withdrawn while it was read.
                Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(Received::Unmounted),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sends one whole message.
    ///
    /// # Errors
    /// `ENOENT` where nobody waits for this reply any more, which is no fault; `ENODEV` after an
    /// unmount; `EINVAL` for a malformed message.
    pub(crate) fn send(&self, message: &[u8]) -> FsResult<()> {
        loop {
            match rustix::io::write(&self.device, message) {
                Err(Errno::INTR) => {}
                Ok(n) if n < message.len() => return Err(Errno::IO),
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
