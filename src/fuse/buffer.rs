//! The two buffers that each serving thread uses over and over.

use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::abi::{InHeader, OutHeader, WriteIn};
use crate::error::{Errno, FsResult};

/// The most data of one READ or WRITE, in bytes.
pub(crate) const MAX_DATA: usize = 1 << 20;

/// The page size that data is aligned to, so that a backing file opened with O_DIRECT takes it.
const PAGE: usize = 4096;

/// Bytes allocated for `data`: a page for the headers, the data, and a page of slack for the
/// alignment (and for names and values beyond the largest data, of which there are none that long).
const fn allocated(data: usize) -> usize {
    PAGE + data + 2 * PAGE
}

/// The most data that INIT and its answer could ever grow to; the kernel gives no request to who
/// has not room for 8 KiB.
const INIT_DATA: usize = 2 * PAGE;

/// Where a request is read to. The data of a WRITE starts at a page boundary.
pub(crate) struct RequestBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl RequestBuffer {
    pub(crate) fn new() -> RequestBuffer {
        RequestBuffer::with_data(MAX_DATA)
    }

    /// For INIT alone.
    pub(crate) fn for_init() -> RequestBuffer {
        RequestBuffer::with_data(INIT_DATA)
    }

    fn with_data(data: usize) -> RequestBuffer {
        let bytes = vec![0; allocated(data)];
        let start = page_in(&bytes) - size_of::<InHeader>() - size_of::<WriteIn>();
        RequestBuffer { bytes, start }
    }

    /// The whole room.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }

    /// The first `length` bytes of it.
    pub(crate) fn message(&self, length: usize) -> &[u8] {
        self.bytes.get(self.start..self.start.saturating_add(length)).unwrap_or_default()
    }
}

/// Where a reply is put together: the header, and behind it the body, which starts at a page
/// boundary. One write sends both.
pub(crate) struct ReplyBuffer {
    bytes: Vec<u8>,
    /// Where the body starts.
    body: usize,
    /// How long the body is by now.
    length: usize,
}

impl ReplyBuffer {
    pub(crate) fn new() -> ReplyBuffer {
        ReplyBuffer::with_data(MAX_DATA)
    }

    /// For INIT, and for notifications without data.
    pub(crate) fn small() -> ReplyBuffer {
        ReplyBuffer::with_data(INIT_DATA)
    }

    fn with_data(data: usize) -> ReplyBuffer {
        let bytes = vec![0; allocated(data)];
        let body = page_in(&bytes);
        ReplyBuffer { bytes, body, length: 0 }
    }

    /// Forgets the last reply.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    /// Bytes in the body.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends one structure.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, value: &T) -> FsResult<()> {
        self.put_bytes(value.as_bytes())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `ERANGE` where the buffer is full.
    pub(crate) fn put_bytes(&mut self, value: &[u8]) -> FsResult<()> {
        self.room(value.len())?.copy_from_slice(value);
        self.length += value.len();
        Ok(())
    }

    /// Appends up to `size` bytes that `fill` writes and counts.
    pub(crate) fn fill(
        &mut self,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> FsResult<usize>,
    ) -> FsResult<()> {
        let room = self.room(size)?;
        self.length += fill(room)?.min(size);
        Ok(())
    }

    /// Appends zeros up to a multiple of eight bytes.
    pub(crate) fn pad(&mut self) -> FsResult<()> {
        let missing = self.length.next_multiple_of(8) - self.length;
        self.put_bytes([0; 8].get(..missing).unwrap_or_default())
    }

    /// The whole message in answer to request `unique`: the body after a success, none after a
    /// failure.
    pub(crate) fn message(&mut self, unique: u64, result: FsResult<()>) -> &[u8] {
        let error = match result {
            Ok(()) => 0,
            Err(errno) => {
                self.length = 0;
                -errno.raw_os_error()
            }
        };
        self.seal(unique, error)
    }

    /// A message that nobody asked for; `code` is one of [`super::abi::notify`].
    pub(crate) fn notification(&mut self, code: i32) -> &[u8] {
        self.seal(0, code)
    }

    fn seal(&mut self, unique: u64, error: i32) -> &[u8] {
        let start = self.body - size_of::<OutHeader>();
        let end = self.body + self.length;
        let message = self.bytes.get_mut(start..end).unwrap_or_default();
        // The body is bounded by the buffer, far below 4 GiB.
        let header = OutHeader { len: message.len() as u32, error, unique };
        if let Some(place) = message.get_mut(..size_of::<OutHeader>()) {
            place.copy_from_slice(header.as_bytes());
        }
        message
    }

    fn room(&mut self, size: usize) -> FsResult<&mut [u8]> {
        let start = self.body + self.length;
        self.bytes.get_mut(start..start.saturating_add(size)).ok_or(Errno::RANGE)
    }
}

/// The first page boundary that has a page's worth of room before it.
fn page_in(bytes: &[u8]) -> usize {
    PAGE + bytes.as_ptr().align_offset(PAGE)
}

/// A structure of zeros, to be filled in.
pub(crate) fn zeroed<T: FromZeros>() -> T {
    T::new_zeroed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_aligned_and_has_room() {
        let mut request = RequestBuffer::new();
        let headers = size_of::<InHeader>() + size_of::<WriteIn>();
        assert!(request.room().len() >= headers + MAX_DATA);
        assert_eq!(request.room()[headers..].as_ptr().align_offset(PAGE), 0);

        let mut reply = ReplyBuffer::new();
        reply.fill(MAX_DATA, |room| Ok(room.len())).unwrap();
        assert_eq!(reply.message(7, Ok(())).len(), size_of::<OutHeader>() + MAX_DATA);
        assert_eq!(reply.message(7, Err(Errno::IO)).len(), size_of::<OutHeader>());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut reply = ReplyBuffer::new();
        assert_eq!(reply.fill(usize::MAX, |_| Ok(0)), Err(Errno::RANGE));
        assert_eq!(reply.put_bytes(&[0; 2 * MAX_DATA]), Err(Errno::RANGE));
        assert_eq!(reply.len(), 0);
    }
}
