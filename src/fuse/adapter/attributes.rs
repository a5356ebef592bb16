//! Requests about attributes and extended attributes.

use rustix::fs::IFlags;
use zerocopy::FromBytes;

use super::{Adapter, Context};
use crate::error::{Errno, FsResult};
use crate::fuse::abi::{FsXattr, IoctlOut};
use crate::fuse::buffer::zeroed;
use crate::fuse::reply;
use crate::fuse::request::Operation;
use crate::overlay::HandleId;
use crate::sys::extended::{FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR};
use crate::sys::xattr;

/// Read and set inode flags (`chattr`). Their numbers say `long`, but the kernel sends 32 bits.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;

impl Adapter {
    pub(super) fn serve_attributes(
        &self,
        context: &mut Context<'_>,
        operation: Operation<'_>,
    ) -> FsResult<()> {
        let (node, caller) = (context.request.node, &context.request.caller);
        let overlay = &self.overlay;
        match operation {
            Operation::GetAttr { handle } => {
                let ttl = self.ttl_of(node);
                let stat = overlay.getattr(node, handle)?;
                reply::attributes(context.reply, &stat, ttl)
            }
            Operation::Statx { handle } => {
                let ttl = self.ttl_of(node);
                let stat = overlay.getattr(node, handle)?;
                reply::statx(context.reply, &stat, ttl)
            }
            Operation::SetAttr { handle, set } => {
                let ttl = self.ttl_of(node);
                let stat = overlay.setattr(caller, node, handle, &set)?;
                reply::attributes(context.reply, &stat, ttl)
            }
            Operation::Ioctl { handle, command, input, .. } => {
                self.ioctl(context, handle, command, input)
            }
            // The kernel then never asks again.
            _ if self.noxattrs => Err(Errno::NOSYS),
            Operation::SetXattr { name, value, flags, kill_sgid } => {
                overlay.setxattr(node, name, value, flags, kill_sgid)
            }
            Operation::GetXattr { name, size: 0 } => {
                let size = overlay.getxattr(node, name, &mut [])?;
                reply::xattr_size(context.reply, size)
            }
            Operation::GetXattr { name, size } => {
                let size = size.min(xattr::SIZE_MAX);
                context.reply.fill(size, |buffer| overlay.getxattr(node, name, buffer))
            }
            Operation::ListXattr { size } => self.list_xattrs(context, size),
            Operation::RemoveXattr { name } => overlay.removexattr(node, name),
            _ => Err(Errno::NOSYS),
        }
    }

    fn list_xattrs(&self, context: &mut Context<'_>, size: usize) -> FsResult<()> {
        let names = self.overlay.listxattr(context.request.node)?;
        match size {
            0 => reply::xattr_size(context.reply, names.len()),
            _ if names.len() > size => Err(Errno::RANGE),
            _ => context.reply.put_bytes(&names),
        }
    }

    fn ioctl(
        &self,
        context: &mut Context<'_>,
        handle: Option<HandleId>,
        command: u32,
        input: &[u8],
    ) -> FsResult<()> {
        let node = context.request.node;
        let done = IoctlOut { result: 0, flags: 0, in_iovs: 0, out_iovs: 0 };
        match command {
            FS_IOC_GETFLAGS => {
                let flags = self.overlay.inode_flags(node, handle)?;
                context.reply.put(&done)?;
                context.reply.put(&flags)
            }
            // The kernel asks for these before it sets any, of either form.
            FS_IOC_FSGETXATTR => match self.overlay.extended_flags(node, handle) {
                Ok(flags) => {
                    context.reply.put(&done)?;
                    context.reply.put_bytes(&flags)
                }
                Err(_) => {
                    let flags = self.overlay.inode_flags(node, handle)?;
                    context.reply.put(&done)?;
                    context.reply.put(&FsXattr { xflags: extended(flags), ..zeroed::<_>() })
                }
            },
            FS_IOC_SETFLAGS => {
                let (flags, _) = u32::read_from_prefix(input).map_err(|_| Errno::INVAL)?;
                self.overlay.set_inode_flags(node, handle, flags)?;
                // The time of the change of attributes is another now.
                self.drop_attributes(context, node);
                context.reply.put(&done)
            }
            FS_IOC_FSSETXATTR => {
                let flags = input.first_chunk().ok_or(Errno::INVAL)?;
                self.overlay.set_extended_flags(node, handle, flags)?;
                self.drop_attributes(context, node);
                context.reply.put(&done)
            }
            // Not of the filesystem but of its daemon.
            _ => {
                let answer = self.answer_control(&context.request.caller, command, input)?;
                context.reply.put(&done)?;
                context.reply.put_bytes(&answer)
            }
        }
    }
}

/// Inode flags in the bits of `struct fsxattr` (`FS_XFLAG_*`), as far as both have them.
fn extended(flags: u32) -> u32 {
    const PAIRS: &[(IFlags, u32)] = &[
        (IFlags::IMMUTABLE, 0x08),
        (IFlags::APPEND, 0x10),
        (IFlags::SYNC, 0x20),
        (IFlags::NOATIME, 0x40),
        (IFlags::NODUMP, 0x80),
        (IFlags::PROJECT_INHERIT, 0x200),
    ];
    let flags = IFlags::from_bits_retain(flags);
    PAIRS
        .iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .fold(0, |bits, (_, extended)| bits | extended)
}
