//! Extended attributes of what a descriptor names, symlinks and `O_PATH` descriptors included.
//!
//! Linux 6.13 has calls for entries of a directory (`getxattrat` and its like). Before it, and for
//! an `O_PATH` descriptor itself, the paths go through procfs: `/proc/self/fd/N` names the file of N itself (also where it has no name left), and
//! `/proc/self/fd/N/NAME` an entry of the directory N, whose last component is not followed.

#![expect(unsafe_code, reason = "getxattrat and its like have no safe wrapper")]

use std::ffi::CString;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

pub use rustix::fs::XattrFlags;

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd, BorrowedFd, fault, file};
use crate::error::{Errno, FsResult};

/// A value larger than this no filesystem holds (`XATTR_SIZE_MAX`).
pub const SIZE_MAX: usize = 64 * 1024;

/// The object whose xattrs are meant.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
}

impl<'a> Target<'a> {
    /// What `fd` names; an `O_PATH` descriptor of a symlink names the symlink itself.
    pub fn fd(fd: &'a impl AsFd) -> Self {
        Target { dir: fd.as_fd(), name: OsStr::new("") }
    }

    /// The directory `dir` itself; cheaper than [`Target::fd`].
    pub fn dir(dir: &'a impl AsFd) -> Self {
        Target { dir: dir.as_fd(), name: OsStr::new(".") }
    }

    /// The entry `name` of the directory `dir`; a symlink is not followed.
    pub fn at(dir: &'a impl AsFd, name: &'a OsStr) -> Self {
        Target { dir: dir.as_fd(), name }
    }

    fn path(&self) -> Vec<u8> {
        let mut path = file::proc_path(&self.dir).into_bytes();
        if !self.name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(self.name.as_bytes());
        }
        path
    }

    /// Whether the path's last component is the procfs link, which must be followed.
    fn follow(&self) -> bool {
        self.name.is_empty()
    }

    /// The arguments of the `*at` calls: the last component is never followed.
    fn at_arguments(&self) -> FsResult<(libc::c_int, CString, libc::c_int)> {
        let name = CString::new(self.name.as_bytes()).map_err(|_| Errno::INVAL)?;
        Ok((self.dir.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW))
    }
}

// Not in libc yet; the same on every architecture (`include/uapi/asm-generic/unistd.h`).
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;

/// `struct xattr_args` of `linux/xattr.h`.
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Set once the kernel said that it has no such calls.
static WITHOUT_AT_CALLS: AtomicBool = AtomicBool::new(false);

/// What a raw call returned; `None` where the kernel does not know it.
fn outcome(status: libc::c_long) -> Option<FsResult<usize>> {
    if status >= 0 {
        return Some(usize::try_from(status).map_err(|_| Errno::IO));
    }
    match last_errno() {
        Errno::NOSYS => {
            WITHOUT_AT_CALLS.store(true, Ordering::Relaxed);
            None
        }
        errno => Some(Err(errno)),
    }
}

fn getxattrat(of: Target<'_>, name: &OsStr, buffer: &mut [u8]) -> FsResult<Option<usize>> {
    if of.follow() || WITHOUT_AT_CALLS.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let (dir, path, flags) = of.at_arguments()?;
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    let mut args = XattrArgs { value: buffer.as_mut_ptr() as u64, size, flags: 0 };
    // SAFETY: both strings are NUL-terminated; `args` names a buffer of at least `size` bytes;
    // all of them outlive the call.
    let status = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir,
            path.as_ptr(),
            flags,
            name.as_ptr(),
            &raw mut args,
            size_of::<XattrArgs>(),
        )
    };
    outcome(status).transpose()
}

fn listxattrat(of: Target<'_>, buffer: &mut [u8]) -> FsResult<Option<usize>> {
    if of.follow() || WITHOUT_AT_CALLS.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let (dir, path, flags) = of.at_arguments()?;
    // SAFETY: the path is NUL-terminated and the buffer has the length that is passed; both
    // outlive the call.
    let status = unsafe {
        libc::syscall(SYS_LISTXATTRAT, dir, path.as_ptr(), flags, buffer.as_mut_ptr(), buffer.len())
    };
    outcome(status).transpose()
}

/// Reads the value of `name` into `buffer`; returns its length.
///
/// # Errors
/// `ENODATA` where it is not set, `ERANGE` where `buffer` is too small, `EOPNOTSUPP` where the
/// filesystem has no xattrs.
pub fn get_into(of: Target<'_>, name: &OsStr, buffer: &mut [u8]) -> FsResult<usize> {
    if let Some(length) = getxattrat(of, name, buffer)? {
        return Ok(length);
    }
    let path = of.path();
    if of.follow() {
        rustix::fs::getxattr(path.as_slice(), name, buffer)
    } else {
        rustix::fs::lgetxattr(path.as_slice(), name, buffer)
    }
}

/// The value of `name`, or `None` where it is not set or the filesystem has no xattrs.
pub fn get(of: Target<'_>, name: &OsStr) -> FsResult<Option<Vec<u8>>> {
    let mut small = [0u8; 256];
    match get_into(of, name, &mut small) {
        Ok(n) => return Ok(small.get(..n).map(<[u8]>::to_vec)),
        Err(Errno::RANGE) => {}
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let mut large = vec![0u8; SIZE_MAX];
    match get_into(of, name, &mut large) {
        Ok(n) => {
            large.truncate(n);
            Ok(Some(large))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names of all xattrs; empty where the filesystem has none.
pub fn list(of: Target<'_>) -> FsResult<Vec<Box<OsStr>>> {
    let call = |buffer: &mut [u8]| {
        if let Some(length) = listxattrat(of, buffer)? {
            return Ok(length);
        }
        let path = of.path();
        if of.follow() {
            rustix::fs::listxattr(path.as_slice(), buffer)
        } else {
            rustix::fs::llistxattr(path.as_slice(), buffer)
        }
    };
    let mut small = [0u8; 1024];
    match call(&mut small) {
        Ok(n) => return Ok(split(small.get(..n).unwrap_or_default())),
        Err(Errno::RANGE) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    }
    let mut large = vec![0u8; SIZE_MAX];
    let n = call(&mut large)?;
    Ok(split(large.get(..n).unwrap_or_default()))
}

fn split(names: &[u8]) -> Vec<Box<OsStr>> {
    names
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsStr::from_bytes(name).into())
        .collect()
}

/// Sets `name` to `value`; `flags` may demand that it is new or that it is there.
pub fn set(of: Target<'_>, name: &OsStr, value: &[u8], flags: XattrFlags) -> FsResult<()> {
    fault::step()?;
    let path = of.path();
    if of.follow() {
        rustix::fs::setxattr(path.as_slice(), name, value, flags)
    } else {
        rustix::fs::lsetxattr(path.as_slice(), name, value, flags)
    }
}

/// Removes `name`.
///
/// # Errors
/// `ENODATA` where it is not set.
pub fn remove(of: Target<'_>, name: &OsStr) -> FsResult<()> {
    fault::step()?;
    let path = of.path();
    if of.follow() {
        rustix::fs::removexattr(path.as_slice(), name)
    } else {
        rustix::fs::lremovexattr(path.as_slice(), name)
    }
}

/// Takes away the ACLs of a directory, so that what is made in it gets none; those of another's
/// stay.
pub fn remove_acls(of: Target<'_>) -> FsResult<()> {
    for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
        match remove(of, OsStr::new(acl)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
