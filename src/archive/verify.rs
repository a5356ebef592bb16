//! A reader that checks what passes through it.

use std::fs::File;
use std::io::{self, Read};

use crate::error::{Error, FsResult, Result};
use crate::image::digest::Hasher;
use crate::image::{DiffId, Digest};
use crate::sys::file;

use super::holes;

/// Hashes and counts what is read from `R`. The reader of the last byte gets an error instead of
/// the end where digest or size are wrong, and more than the promised size is never let through.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    what: String,
    digest: Option<Digest>,
    size: Option<u64>,
    hasher: Hasher,
    count: u64,
    ended: bool,
    /// The digest of everything, once the end was reached.
    found: Option<Digest>,
    /// Where everything that is read is written to, too.
    copy: Option<File>,
    /// The end of what was written there: zeros after it are still to become a hole.
    copied_to: u64,
    /// The first thing that went wrong. Code between here and the caller may turn the
    /// [`io::Error`] into something vaguer; this is the exact one.
    failure: Option<Error>,
}

impl<R: Read> Verified<R> {
    /// Expects `promise`, a digest and a size; with `None` nothing is checked.
    pub fn new(inner: R, what: String, promise: Option<(Digest, u64)>) -> Self {
        let (digest, size) = promise.unzip();
        let (hasher, count) = (Hasher::new(), 0);
        Verified {
            inner,
            what,
            digest,
            size,
            hasher,
            count,
            ended: false,
            found: None,
            copy: None,
            copied_to: 0,
            failure: None,
        }
    }

    /// Expects the digest of an uncompressed layer, whose size nobody states.
    pub fn diff(inner: R, what: String, diff_id: DiffId) -> Self {
        let mut verified = Verified::new(inner, what, None);
        verified.digest = Some(diff_id.0);
        verified
    }

    /// Also writes everything that is read to `copy`.
    pub fn copying(mut self, copy: File) -> Self {
        self.copy = Some(copy);
        self
    }

    /// The digest and size of everything; `None` where the end was not reached.
    pub fn found(&self) -> Option<(Digest, u64)> {
        Some((self.found?, self.count))
    }

    /// What went wrong so far, once.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Reads what is left, where something is to be checked or copied, and gives the verdict.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where digest or size are wrong; the error of a read that failed.
    pub fn finish(&mut self) -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        let wanted = self.digest.is_some() || self.copy.is_some();
        while wanted && !self.ended && self.failure.is_none() {
            match self.read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn check_size(&self) -> Result<()> {
        let Some(size) = self.size else { return Ok(()) };
        let wrong = self.count > size || (self.ended && self.count < size);
        if !wrong {
            return Ok(());
        }
        let found = if self.ended { format!("{}", self.count) } else { "more".to_owned() };
        let expected = format!("{size} bytes");
        Err(Error::Mismatch { what: self.what.clone(), expected, found })
    }

    fn check_digest(&mut self) -> Result<()> {
        let found = std::mem::take(&mut self.hasher).finish();
        self.found = Some(found);
        match self.digest {
            Some(expected) if expected != found => Err(Error::Mismatch {
                what: self.what.clone(),
                expected: expected.to_string(),
                found: found.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, error: Error) -> io::Error {
        let text = error.to_string();
        self.failure.get_or_insert(error);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let n = match self.inner.read(buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let failure = read_error(&self.what, &error);
                return Err(self.fail(failure));
            }
        };
        let part = buffer.get(..n).unwrap_or_default();
        self.hasher.update(part);
        if let Some(copy) = &self.copy {
            match copied(copy, part, self.count, self.copied_to) {
                Ok(copied_to) => self.copied_to = copied_to,
                Err(errno) => {
                    let failure = Error::io("keep a copy of", &self.what, errno);
                    return Err(self.fail(failure));
                }
            }
        }
        self.count += n as u64;
        self.ended = n == 0;
        self.check_size().map_err(|error| self.fail(error))?;
        if self.ended {
            self.check_digest().map_err(|error| self.fail(error))?;
        }
        Ok(n)
    }
}

/// Writes the next `part` of a copy, which begins at `at`; with the empty one, the end, the file gets
/// its size. Returns the end of what is written by now.
fn copied(copy: &File, part: &[u8], at: u64, copied_to: u64) -> FsResult<u64> {
    match part.is_empty() && copied_to < at {
        true => file::truncate(copy, at).map(|()| at),
        false => holes::write(copy, part, at, copied_to),
    }
}

/// The error of a read: of the system, or of a codec that found its input malformed.
pub fn read_error(what: &str, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::std_io("read", what, error),
        None => Error::invalid(what, error.to_string()),
    }
}
