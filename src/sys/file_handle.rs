//! File handles: names for inodes that outlive paths and are never reused.

#![expect(unsafe_code, reason = "name_to_handle_at and open_by_handle_at have no safe wrapper")]

use std::ffi::{CString, OsStr};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;

use super::{AsFd, AsRawFd, OFlags, OwnedFd};
use crate::error::{Errno, FsResult};

/// The longest handle that a filesystem may give (`MAX_HANDLE_SZ`).
const MAX: usize = 128;

/// A file handle as name_to_handle_at(2) gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// The filesystem's own type of handle (`FILEID_*`).
    pub kind: i32,
    /// Its bytes, opaque to us.
    pub bytes: Vec<u8>,
}

#[repr(C)]
struct Raw {
    length: u32,
    kind: i32,
    bytes: [u8; MAX],
}

/// The handle of `dir`/`name`, a symlink itself included; of `dir` where the name is empty.
///
/// # Errors
/// `EOPNOTSUPP` where the filesystem has no handles.
pub fn handle_at(dir: impl AsFd, name: &OsStr) -> FsResult<FileHandle> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let mut raw = Raw { length: MAX as u32, kind: 0, bytes: [0; MAX] };
    let mut mount_id = 0i32;
    // SAFETY: `raw` is laid out as struct file_handle with MAX bytes of room, as its length
    // says; the name is NUL-terminated; both outlive the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if status != 0 {
        return Err(last_errno());
    }
    let bytes = raw.bytes.get(..raw.length as usize).ok_or(Errno::OVERFLOW)?.to_vec();
    Ok(FileHandle { kind: raw.kind, bytes })
}

/// Opens the file that `handle` names on the filesystem of `mount`.
///
/// # Errors
/// `ESTALE` where it is gone, `EPERM` without `CAP_DAC_READ_SEARCH` in the initial user namespace.
pub fn open_handle(mount: impl AsFd, handle: &FileHandle, flags: OFlags) -> FsResult<OwnedFd> {
    let mut raw = Raw { length: handle.bytes.len() as u32, kind: handle.kind, bytes: [0; MAX] };
    raw.bytes.get_mut(..handle.bytes.len()).ok_or(Errno::INVAL)?.copy_from_slice(&handle.bytes);
    // SAFETY: `raw` is laid out as struct file_handle and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_fd().as_raw_fd(),
            &raw mut raw,
            (flags | OFlags::CLOEXEC).bits(),
        )
    };
    if fd < 0 {
        return Err(last_errno());
    }
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn last_errno() -> Errno {
    crate::error::errno_of(&std::io::Error::last_os_error())
}
