//! Space, mappings and files without a name, on the overlay core.

use super::{Answer, CALLER, Core, DONE, FILE};
use crate::model::op::{Op, Outcome};
use plyfs::sys::OFlags;

impl Core<'_> {
    pub(super) fn call_on_data(&self, op: &Op) -> Answer {
        match op {
            Op::Allocate { path, how, offset, length } => self
                .with_file(path, OFlags::WRONLY, |file| {
                    self.fs().fallocate(file, how.flags().bits(), *offset, *length)
                })
                .map(|_| Outcome::Done),
            // The core has no pages: what comes of them is a write.
            Op::MapWrite { path, offset, data } => {
                let size = self.walk(path).map_or(0, |found| found.stat.size);
                let length = data.0.len().min(size.saturating_sub(*offset) as usize);
                self.with_file(path, OFlags::WRONLY, |handle| {
                    self.write_all(handle, *offset, &data.0[..length])
                })
                .map(|_| Outcome::Done)
            }
            Op::Unnamed { path, mode, data } => {
                let (dir, name) = self.vacant(path)?;
                let flags = OFlags::TMPFILE | OFlags::WRONLY;
                let (entry, opened) = self.fs().tmpfile(&CALLER, dir, FILE | mode, 0, flags)?;
                self.counted.borrow_mut().push(entry.node);
                let written = self.write_all(opened.handle.into(), 0, &data.0);
                let linked = self.fs().link(entry.node, dir, name);
                self.fs().release(opened.handle);
                self.counted.borrow_mut().push(linked?.node);
                written.and(DONE)
            }
            _ => panic!("an operation without a call: {op:?}"),
        }
    }
}
