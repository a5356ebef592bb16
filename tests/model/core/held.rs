//! Files that stay open between operations, on the overlay core.

use std::path::Path;

use plyfs::overlay::SetAttr;
use plyfs::sys::OFlags;
use rustix::io::Errno;

use super::attributes::seen;
use super::{Answer, Core, DONE, Held};
use crate::model::op::{Data, Op, Outcome};

impl Core<'_> {
    pub(super) fn call_held(&mut self, op: &Op) -> Answer {
        let held = |slot: &usize| self.held.get(slot).copied().ok_or(Errno::BADF);
        match op {
            Op::Hold { slot, path, write } => self.hold(*slot, path, *write),
            Op::Release { slot } => {
                let Held { node, handle, .. } = held(slot)?;
                self.fs().release(handle);
                self.fs().forget(node, 1);
                self.held.remove(slot);
                DONE
            }
            Op::HeldRead { slot } => {
                let content = self.read_all(held(slot)?.handle.into())?;
                Ok(Outcome::Bytes(Data(content)))
            }
            Op::HeldWrite { slot, offset, data } => match held(slot)? {
                Held { handle, write: true, .. } => {
                    self.write_all(handle.into(), *offset, &data.0).map(|()| Outcome::Done)
                }
                _ => Err(Errno::BADF),
            },
            Op::HeldTruncate { slot, size } => match held(slot)? {
                Held { node, handle, write: true } => {
                    let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                    self.set(node, Some(handle), &set)
                }
                _ => Err(Errno::INVAL),
            },
            Op::HeldStat { slot } => {
                let Held { node, handle, .. } = held(slot)?;
                Ok(Outcome::Stat(seen(&self.fs().getattr(node, Some(handle))?)))
            }
            Op::HeldChmod { slot, mode } => {
                let Held { node, handle, .. } = held(slot)?;
                let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                self.set(node, Some(handle), &set)
            }
            _ => panic!("an operation without a call: {op:?}"),
        }
    }

    /// Only files are held: a directory's descriptor is the kernel's own affair.
    fn hold(&mut self, slot: usize, path: &Path, write: bool) -> Answer {
        let node = self.openable(path, write)?.ok_or(Errno::NXIO)?;
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let opened = self.fs().open(node, flags, false)?;
        // The lookup that found it stays counted, as the kernel's does.
        self.counted.borrow_mut().pop();
        self.held.insert(slot, Held { node, handle: opened.handle, write });
        DONE
    }
}
