//! The bodies of requests: one structure of [`abi`] and what follows it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{CopyFileRange, Operation, Request};
use crate::error::{Errno, FsResult, check_name};
use crate::fuse::abi::{self, SetAttrValid, opcode};
use crate::overlay::{FileRef, HandleId, NodeId, SetAttr, SetTime};
use crate::sys::stat::Time;
use crate::sys::{OFlags, RenameFlags};

impl<'a> Request<'a> {
    pub(super) fn of_names(&self, body: &mut Body<'a>) -> FsResult<Operation<'a>> {
        Ok(match self.opcode {
            opcode::LOOKUP => Operation::Lookup { name: body.entry_name()? },
            opcode::FORGET => Operation::Forget { count: body.take::<abi::ForgetIn>()?.nlookup },
            opcode::BATCH_FORGET => {
                let count = body.take::<abi::BatchForgetIn>()?.count;
                Operation::BatchForget { nodes: body.array(count)? }
            }
            opcode::READLINK => Operation::ReadLink,
            opcode::SYMLINK => {
                Operation::Symlink { name: body.entry_name()?, target: body.string()? }
            }
            opcode::MKNOD => {
                let &abi::MknodIn { mode, rdev, umask, .. } = body.take()?;
                Operation::MkNod { name: body.entry_name()?, mode, umask, rdev }
            }
            opcode::MKDIR => {
                let &abi::MkdirIn { mode, umask } = body.take()?;
                Operation::MkDir { name: body.entry_name()?, mode, umask }
            }
            opcode::UNLINK => Operation::Unlink { name: body.entry_name()? },
            opcode::RMDIR => Operation::RmDir { name: body.entry_name()? },
            opcode::RENAME => {
                let newdir = body.take::<abi::RenameIn>()?.newdir;
                rename(body, newdir, 0)?
            }
            opcode::RENAME2 => {
                let &abi::Rename2In { newdir, flags, .. } = body.take()?;
                rename(body, newdir, flags)?
            }
            opcode::LINK => {
                let node = NodeId(body.take::<abi::LinkIn>()?.oldnodeid);
                Operation::Link { node, name: body.entry_name()? }
            }
            _ => Operation::Unsupported,
        })
    }

    pub(super) fn of_attributes(&self, body: &mut Body<'a>) -> FsResult<Operation<'a>> {
        Ok(match self.opcode {
            opcode::GETATTR => {
                let &abi::GetAttrIn { flags, fh, .. } = body.take()?;
                Operation::GetAttr { handle: given(flags & abi::GETATTR_FH != 0, fh) }
            }
            opcode::STATX => {
                let &abi::StatxIn { flags, fh, .. } = body.take()?;
                Operation::Statx { handle: given(flags & abi::GETATTR_FH != 0, fh) }
            }
            opcode::SETATTR => {
                let input: &abi::SetAttrIn = body.take()?;
                let valid = SetAttrValid::from_bits_truncate(input.valid);
                let handle = given(valid.contains(SetAttrValid::FH), input.fh);
                Operation::SetAttr { handle, set: set_attr(input, valid) }
            }
            _ => Operation::Unsupported,
        })
    }

    pub(super) fn of_xattrs(&self, body: &mut Body<'a>, ext: bool) -> FsResult<Operation<'a>> {
        Ok(match self.opcode {
            opcode::SETXATTR => {
                let (size, flags, kill_sgid) = if ext {
                    let &abi::SetXattrIn { size, flags, setxattr_flags, .. } = body.take()?;
                    (size, flags, setxattr_flags & abi::SETXATTR_ACL_KILL_SGID != 0)
                } else {
                    let &abi::SetXattrShortIn { size, flags } = body.take()?;
                    (size, flags, false)
                };
                let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
                Operation::SetXattr {
                    name: body.string()?,
                    value: body.bytes(size)?,
                    flags,
                    kill_sgid,
                }
            }
            opcode::GETXATTR => {
                let size = body.take::<abi::GetXattrIn>()?.size as usize;
                Operation::GetXattr { name: body.string()?, size }
            }
            opcode::LISTXATTR => {
                Operation::ListXattr { size: body.take::<abi::GetXattrIn>()?.size as usize }
            }
            opcode::REMOVEXATTR => Operation::RemoveXattr { name: body.string()? },
            _ => Operation::Unsupported,
        })
    }

    pub(super) fn of_files(&self, body: &mut Body<'a>) -> FsResult<Operation<'a>> {
        Ok(match self.opcode {
            opcode::OPEN => {
                let &abi::OpenIn { flags, open_flags } = body.take()?;
                let kill_suidgid = open_flags & abi::OPEN_KILL_SUIDGID != 0;
                Operation::Open { flags: file_flags(flags), kill_suidgid }
            }
            opcode::CREATE => {
                let &abi::CreateIn { flags, mode, umask, .. } = body.take()?;
                let flags = file_flags(flags);
                Operation::Create { name: body.entry_name()?, mode, umask, flags }
            }
            opcode::TMPFILE => {
                let &abi::CreateIn { flags, mode, umask, .. } = body.take()?;
                Operation::TmpFile { mode, umask, flags: file_flags(flags) }
            }
            opcode::READ => {
                let &abi::ReadIn { fh, offset, size, .. } = body.take()?;
                Operation::Read { file: self.file(fh), offset, size: size as usize }
            }
            opcode::WRITE => {
                let &abi::WriteIn { fh, offset, size, write_flags, flags, .. } = body.take()?;
                let (file, data) = (self.file(fh), body.bytes(size)?);
                let how = file_flags(flags) & (OFlags::DSYNC | OFlags::SYNC | OFlags::APPEND);
                let kill_suidgid = write_flags & abi::WRITE_KILL_SUIDGID != 0;
                Operation::Write { file, offset, data, how, kill_suidgid }
            }
            opcode::FSYNC | opcode::FSYNCDIR => {
                let &abi::FsyncIn { fh, fsync_flags, .. } = body.take()?;
                let data_only = fsync_flags & abi::FSYNC_FDATASYNC != 0;
                Operation::FSync { handle: given(self.opcode == opcode::FSYNC, fh), data_only }
            }
            opcode::RELEASE => {
                Operation::Release { handle: HandleId(body.take::<abi::ReleaseIn>()?.fh) }
            }
            opcode::READDIR | opcode::READDIRPLUS => {
                let &abi::ReadIn { offset, size, .. } = body.take()?;
                let plus = self.opcode == opcode::READDIRPLUS;
                Operation::ReadDir { cookie: offset, size: size as usize, plus }
            }
            _ => return self.of_ranges(body),
        })
    }

    fn of_ranges(&self, body: &mut Body<'a>) -> FsResult<Operation<'a>> {
        Ok(match self.opcode {
            opcode::IOCTL => {
                let &abi::IoctlIn { fh, flags, cmd, in_size, .. } = body.take()?;
                Operation::Ioctl {
                    handle: given(flags & abi::IOCTL_DIR == 0, fh),
                    command: cmd,
                    input: body.bytes(in_size)?,
                }
            }
            opcode::FALLOCATE => {
                let &abi::FallocateIn { fh, offset, length, mode, .. } = body.take()?;
                Operation::FAllocate { file: self.file(fh), mode, offset, length }
            }
            opcode::LSEEK => {
                let &abi::LseekIn { fh, offset, whence, .. } = body.take()?;
                Operation::LSeek { file: self.file(fh), offset, whence }
            }
            opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => {
                let input: &abi::CopyFileRangeIn = body.take()?;
                let to_node = NodeId(input.nodeid_out);
                Operation::CopyFileRange(CopyFileRange {
                    from: self.file(input.fh_in),
                    from_offset: input.off_in,
                    to_node,
                    to: file_of(to_node, input.fh_out),
                    to_offset: input.off_out,
                    length: input.len,
                    wide: self.opcode == opcode::COPY_FILE_RANGE_64,
                })
            }
            _ => Operation::Unsupported,
        })
    }

    fn file(&self, fh: u64) -> FileRef {
        file_of(self.node, fh)
    }
}

/// The open file `fh`. Ours begin at one: zero stands for none where the kernel opens none.
fn file_of(node: NodeId, fh: u64) -> FileRef {
    given(true, fh).map_or(FileRef::Of(node), FileRef::Opened)
}

/// The flags of open(2). The kernel's own, which it sends along (opened for exec, opened by a
/// fanotify watcher), are left out: system calls refuse them.
fn file_flags(flags: u32) -> OFlags {
    const EXEC: u32 = 0x20;
    const NONOTIFY: u32 = 0x400_0000;
    OFlags::from_bits_retain(flags & !(EXEC | NONOTIFY))
}

fn given(present: bool, fh: u64) -> Option<HandleId> {
    (present && fh != 0).then_some(HandleId(fh))
}

fn rename<'a>(body: &mut Body<'a>, newdir: u64, flags: u32) -> FsResult<Operation<'a>> {
    Ok(Operation::Rename {
        name: body.entry_name()?,
        new_parent: NodeId(newdir),
        new_name: body.entry_name()?,
        flags: RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?,
    })
}

fn set_attr(input: &abi::SetAttrIn, valid: SetAttrValid) -> SetAttr {
    // Seconds travel as the bits of a signed number.
    let time = |set: SetAttrValid, now: SetAttrValid, sec: u64, nsec: u32| {
        if valid.contains(now) {
            return Some(SetTime::Now);
        }
        let at = Time { sec: sec.cast_signed(), nsec };
        valid.contains(set).then_some(SetTime::At(at))
    };
    SetAttr {
        mode: valid.contains(SetAttrValid::MODE).then_some(input.mode),
        uid: valid.contains(SetAttrValid::UID).then_some(input.uid),
        gid: valid.contains(SetAttrValid::GID).then_some(input.gid),
        size: valid.contains(SetAttrValid::SIZE).then_some(input.size),
        atime: time(SetAttrValid::ATIME, SetAttrValid::ATIME_NOW, input.atime, input.atimensec),
        mtime: time(SetAttrValid::MTIME, SetAttrValid::MTIME_NOW, input.mtime, input.mtimensec),
        kill_suidgid: valid.contains(SetAttrValid::KILL_SUIDGID),
    }
}

/// What is left of a request's body.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> FsResult<&'a T> {
        let (value, rest) = T::ref_from_prefix(self.0).map_err(|_| Errno::IO)?;
        self.0 = rest;
        Ok(value)
    }

    fn array(&mut self, count: u32) -> FsResult<&'a [abi::ForgetOne]> {
        let (values, rest) = <[abi::ForgetOne]>::ref_from_prefix_with_elems(self.0, count as usize)
            .map_err(|_| Errno::IO)?;
        self.0 = rest;
        Ok(values)
    }

    fn bytes(&mut self, length: u32) -> FsResult<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length as usize).ok_or(Errno::IO)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A string that ends with NUL.
    fn string(&mut self) -> FsResult<&'a OsStr> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::IO)?;
        let (string, rest) = self.0.split_at_checked(end).ok_or(Errno::IO)?;
        self.0 = rest.get(1..).ok_or(Errno::IO)?;
        Ok(OsStr::from_bytes(string))
    }

    /// A string that can name an entry of a directory.
    fn entry_name(&mut self) -> FsResult<&'a OsStr> {
        let name = self.string()?;
        check_name(name)?;
        Ok(name)
    }
}
