//! Decoding: the bytes of one request to an [`Operation`], without copying.
//!
//! Nothing here trusts the bytes: whatever is too short, not terminated or not a name gives an
//! errno. Numbers that the kernel alone chooses (node ids, handles) are passed on as they are.

mod decode;

use std::ffi::OsStr;

use rustix::fs::XattrFlags;
use zerocopy::FromBytes;

use self::decode::Body;
use super::abi::{self, InHeader, opcode};
use crate::error::FsResult;
use crate::overlay::{Caller, FileRef, HandleId, NodeId, SetAttr};
use crate::sys::{OFlags, RenameFlags};

/// One request of the kernel.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Names the request in its reply.
    pub(crate) unique: u64,
    /// The node it is about; for operations on a name, the directory.
    pub(crate) node: NodeId,
    /// On whose behalf.
    pub(crate) caller: Caller,
    opcode: u32,
    body: &'a [u8],
}

/// What a request asks for. The node and the caller are in the [`Request`].
#[derive(Debug)]
pub(crate) enum Operation<'a> {
    Init(&'a abi::InitIn),
    Destroy,
    /// A request that is being served shall be given up; here each is served to its end.
    Interrupt,
    Lookup {
        name: &'a OsStr,
    },
    Forget {
        count: u64,
    },
    BatchForget {
        nodes: &'a [abi::ForgetOne],
    },
    GetAttr {
        handle: Option<HandleId>,
    },
    Statx {
        handle: Option<HandleId>,
    },
    SetAttr {
        handle: Option<HandleId>,
        set: SetAttr,
    },
    ReadLink,
    Symlink {
        name: &'a OsStr,
        target: &'a OsStr,
    },
    MkNod {
        name: &'a OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
    },
    MkDir {
        name: &'a OsStr,
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a OsStr,
    },
    RmDir {
        name: &'a OsStr,
    },
    Rename {
        name: &'a OsStr,
        new_parent: NodeId,
        new_name: &'a OsStr,
        flags: RenameFlags,
    },
    Link {
        node: NodeId,
        name: &'a OsStr,
    },
    Open {
        flags: OFlags,
        kill_suidgid: bool,
    },
    Create {
        name: &'a OsStr,
        mode: u32,
        umask: u32,
        flags: OFlags,
    },
    TmpFile {
        mode: u32,
        umask: u32,
        flags: OFlags,
    },
    Read {
        file: FileRef,
        offset: u64,
        size: usize,
    },
    Write {
        file: FileRef,
        offset: u64,
        data: &'a [u8],
        how: OFlags,
        kill_suidgid: bool,
    },
    FSync {
        handle: Option<HandleId>,
        data_only: bool,
    },
    Release {
        handle: HandleId,
    },
    ReadDir {
        cookie: u64,
        size: usize,
        plus: bool,
    },
    StatFs,
    SyncFs,
    SetXattr {
        name: &'a OsStr,
        value: &'a [u8],
        flags: XattrFlags,
        kill_sgid: bool,
    },
    GetXattr {
        name: &'a OsStr,
        size: usize,
    },
    ListXattr {
        size: usize,
    },
    RemoveXattr {
        name: &'a OsStr,
    },
    Ioctl {
        handle: Option<HandleId>,
        command: u32,
        input: &'a [u8],
    },
    FAllocate {
        file: FileRef,
        mode: u32,
        offset: u64,
        length: u64,
    },
    LSeek {
        file: FileRef,
        offset: u64,
        whence: u32,
    },
    CopyFileRange(CopyFileRange),
    /// Nothing we serve: the kernel is told so and mostly never asks again. ACCESS is among
    /// them (the kernel checks permissions itself), FLUSH (each write has reached its layer when
    /// it returns), and OPENDIR, so that directories are opened without asking and their listing
    /// stays in the kernel's cache.
    Unsupported,
}

/// Where from, where to and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyFileRange {
    pub(crate) from: FileRef,
    pub(crate) from_offset: u64,
    pub(crate) to_node: NodeId,
    pub(crate) to: FileRef,
    pub(crate) to_offset: u64,
    pub(crate) length: u64,
    /// The reply has 64 bits.
    pub(crate) wide: bool,
}

impl<'a> Request<'a> {
    /// Splits a message into header and body; `None` where it is no message at all.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Request<'a>> {
        let (header, rest) = InHeader::ref_from_prefix(message).ok()?;
        let whole = usize::try_from(header.len).ok()?;
        // Extensions (none are negotiated) would follow the body.
        let body = whole
            .checked_sub(size_of::<InHeader>())?
            .checked_sub(usize::from(header.total_extlen) * 8)?;
        Some(Request {
            unique: header.unique,
            node: NodeId(header.nodeid),
            caller: Caller { uid: header.uid, gid: header.gid, pid: header.pid },
            opcode: header.opcode,
            body: rest.get(..body)?,
        })
    }

    /// The number of the operation, for messages.
    pub(crate) fn opcode(&self) -> u32 {
        self.opcode
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn wants_reply(&self) -> bool {
        !matches!(self.opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT)
    }

    /// What is asked for. `setxattr_ext` says that this was negotiated.
    ///
    /// # Errors
    /// `EIO` for a body that is too short, `EINVAL` or `ENAMETOOLONG` for a bad name or flag.
    pub(crate) fn operation(&self, setxattr_ext: bool) -> FsResult<Operation<'a>> {
        let mut body = Body(self.body);
        match self.opcode {
            opcode::LOOKUP | opcode::FORGET | opcode::BATCH_FORGET | opcode::READLINK => {
                self.of_names(&mut body)
            }
            opcode::SYMLINK..=opcode::LINK | opcode::RENAME2 => self.of_names(&mut body),
            opcode::GETATTR | opcode::SETATTR | opcode::STATX => self.of_attributes(&mut body),
            opcode::SETXATTR..=opcode::REMOVEXATTR => self.of_xattrs(&mut body, setxattr_ext),
            opcode::INIT => Ok(Operation::Init(body.take()?)),
            opcode::DESTROY => Ok(Operation::Destroy),
            opcode::INTERRUPT => Ok(Operation::Interrupt),
            opcode::STATFS => Ok(Operation::StatFs),
            opcode::SYNCFS => Ok(Operation::SyncFs),
            _ => self.of_files(&mut body),
        }
    }
}

/// The fuzz target's way in: decodes a message of any bytes and holds what comes out of it to
/// what the rest of the daemon relies on.
#[cfg(fuzzing)]
#[allow(clippy::panic, reason = "a finding stops the target")]
pub fn fuzz_request(message: &[u8]) {
    let Some(request) = Request::parse(message) else { return };
    assert!(request.body.len() + size_of::<InHeader>() <= message.len());
    for setxattr_ext in [false, true] {
        let Ok(operation) = request.operation(setxattr_ext) else { continue };
        match operation {
            Operation::Lookup { name }
            | Operation::MkNod { name, .. }
            | Operation::MkDir { name, .. }
            | Operation::Unlink { name }
            | Operation::RmDir { name }
            | Operation::Rename { new_name: name, .. }
            | Operation::Symlink { name, .. }
            | Operation::Link { name, .. }
            | Operation::Create { name, .. } => {
                assert_eq!(crate::error::check_name(name), Ok(()));
            }
            Operation::Write { data, .. } => assert!(data.len() <= message.len()),
            Operation::BatchForget { nodes } => {
                assert!(size_of_val(nodes) <= message.len());
            }
            Operation::SetXattr { name, .. } | Operation::GetXattr { name, .. } => {
                assert!(!name.as_encoded_bytes().contains(&0));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    /// The decoder meets every operation with bodies of every length: too short, just right and
    /// too long, with and without the end of a string.
    #[test]
    fn no_body_of_any_operation_makes_the_decoder_panic() {
        // Miri takes minutes for more.
        let step = if cfg!(miri) { 41 } else { 1 };
        let lengths = || (0..200).step_by(step);
        let sizes = (0..64).flat_map(|opcode| lengths().map(move |length| (opcode, length)));
        let mut decoded = 0;
        for (opcode, length) in sizes {
            for byte in [0, b'x', 0xff] {
                // Words, so that the message is aligned as a buffer is.
                let mut words = vec![u64::from_ne_bytes([byte; 8]); 5 + 25];
                let bytes = words.as_mut_bytes();
                bytes[0..4].copy_from_slice(&(40 + length as u32).to_ne_bytes());
                bytes[4..8].copy_from_slice(&(opcode as u32).to_ne_bytes());
                bytes[36..38].fill(0);
                let request = Request::parse(bytes).unwrap();
                decoded += u32::from(request.operation(true).is_ok());
                decoded += u32::from(request.operation(false).is_ok());
            }
        }
        assert!(decoded > 1000 / (2 * step) as u32, "hardly anything is decoded");
        assert!(Request::parse(&[0xff; 64]).is_none());
        assert!(Request::parse(&[0; 39]).is_none());
    }
}
