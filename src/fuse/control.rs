//! Asking a running daemon for its figures, and telling it what to log: by an ioctl on any
//! directory of its mount.
//!
//! This way needs no file that a killed daemon would leave behind, and no name that somebody
//! else could take; it works on read-only mounts, on bind mounts and in any mount namespace that
//! sees the mount. The kernel says who asks. Allowed are root and the user of the daemon, in the
//! daemon's own pid namespace: the root user of a container must not turn the host's log up.
//!
//! Figures travel as JSON, in pages: the first one is of new figures, further ones (rarely
//! needed) of the same figures by their number.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::log;
use super::stats::Snapshot;
use crate::error::{Errno, Error, FsResult, Result};
use crate::overlay::Caller;
use crate::sys::{fuse_dev, process};

/// The most bytes of one page; an ioctl's number has 14 bits for the size of what it carries.
const PAGE: usize = 0x3f00;
/// `_IOWR('y', 1, char[PAGE])`: a page of the figures.
const FIGURES: u32 = 0xc000_7901 | (PAGE as u32) << 16;
/// The longest filter of what is logged.
const FILTER: usize = 1024;
/// `_IOW('y', 2, char[FILTER])`: a new filter, ended by NUL.
const SET_LOG: u32 = 0x4000_7902 | (FILTER as u32) << 16;
/// How often figures that somebody else replaced meanwhile are asked for again.
const ATTEMPTS: u32 = 8;

/// What stands before the text of a page; in the question, before nothing.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    /// Numbers the figures; 0 asks for new ones.
    number: u64,
    /// In the question: which byte of the text the page starts with. In the answer: how many
    /// bytes the whole text has.
    position: u64,
}

/// The figures that were last asked for, for whoever reads on.
#[derive(Debug, Default)]
pub(super) struct Pages {
    last: Mutex<(u64, Arc<str>)>,
}

impl Pages {
    /// Answers one ioctl of `caller` with the bytes for it.
    ///
    /// # Errors
    /// `ENOTTY` for a command that is none of ours, `EPERM` for who may not ask, `EAGAIN` where
    /// others have asked since the page before.
    pub(super) fn answer(
        &self,
        caller: &Caller,
        command: u32,
        input: &[u8],
        snapshot: impl FnOnce() -> Snapshot,
    ) -> FsResult<Vec<u8>> {
        match command {
            FIGURES | SET_LOG if !may_ask(caller) => Err(Errno::PERM),
            FIGURES => self.page(input, snapshot),
            SET_LOG => {
                let text = input.split(|byte| *byte == 0).next().unwrap_or_default();
                let text = std::str::from_utf8(text).map_err(|_| Errno::INVAL)?;
                log::set_filter(text).map_err(|error| error.errno())?;
                log::announce([format!("the log is now at {text}")]);
                Ok(Vec::new())
            }
            _ => Err(Errno::NOTTY),
        }
    }

    fn page(&self, input: &[u8], snapshot: impl FnOnce() -> Snapshot) -> FsResult<Vec<u8>> {
        let (asked, _) = Head::read_from_prefix(input).map_err(|_| Errno::INVAL)?;
        let mut last = self.last.lock();
        if asked.number == 0 {
            let text = serde_json::to_string(&snapshot()).map_err(|_| Errno::IO)?;
            *last = (last.0 + 1, text.into());
        } else if asked.number != last.0 {
            return Err(Errno::AGAIN);
        }
        let (number, text) = &*last;
        let start = usize::try_from(asked.position).map_err(|_| Errno::INVAL)?;
        let rest = text.as_bytes().get(start..).ok_or(Errno::INVAL)?;
        let head = Head { number: *number, position: text.len() as u64 };
        let room = PAGE - size_of::<Head>();
        Ok([head.as_bytes(), rest.get(..room).unwrap_or(rest)].concat())
    }
}

fn may_ask(caller: &Caller) -> bool {
    let (own, _) = crate::sys::creds::own_ids();
    (caller.uid == 0 || caller.uid == own) && process::shares_pid_namespace(caller.pid)
}

/// The whole text, in as many pages as it takes; `ask` sends a page and has the answer put in it.
fn text(mut ask: impl FnMut(&mut [u8]) -> FsResult<()>) -> FsResult<Vec<u8>> {
    let mut text = Vec::new();
    let mut number = 0;
    loop {
        let mut page = [0; PAGE];
        let asked = Head { number, position: text.len() as u64 };
        asked.write_to_prefix(&mut page).map_err(|_| Errno::INVAL)?;
        ask(&mut page)?;
        let (head, rest) = Head::read_from_prefix(&page).map_err(|_| Errno::IO)?;
        let whole = usize::try_from(head.position).map_err(|_| Errno::IO)?;
        let missing = whole.saturating_sub(text.len());
        text.extend_from_slice(rest.get(..missing).unwrap_or(rest));
        if text.len() >= whole {
            return Ok(text);
        }
        number = head.number;
    }
}

/// A mount whose daemon is asked.
#[derive(Debug)]
pub struct Control<'a> {
    path: &'a Path,
    directory: File,
}

impl<'a> Control<'a> {
    /// That of the mount which the directory `path` lies on.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &'a Path) -> Result<Control<'a>> {
        let directory = File::open(path).map_err(|error| Error::std_io("open", path, &error))?;
        Ok(Control { path, directory })
    }

    /// What its daemon counted.
    ///
    /// # Errors
    /// Where this is no mount of PlyFS, its daemon is gone, or this user may not ask.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut attempt = 0;
        let text = loop {
            match text(|page| fuse_dev::control(&self.directory, FIGURES, page)) {
                Err(Errno::AGAIN) if attempt < ATTEMPTS => attempt += 1,
                Err(errno) => return Err(self.failed(errno)),
                Ok(text) => break text,
            }
        };
        serde_json::from_slice(&text).map_err(|error| {
            let what = format!("the figures of {}", self.path.display());
            Error::invalid(what, error.to_string())
        })
    }

    /// Has its daemon log what `filter` says: a level, or directives as `PLYFS_LOG` takes them.
    ///
    /// # Errors
    /// As [`Control::snapshot`], and for a filter that means nothing.
    pub fn set_log(&self, filter: &str) -> Result<()> {
        log::check(filter)?;
        let mut text = [0; FILTER];
        let place = text.get_mut(..filter.len()).filter(|place| place.len() < FILTER);
        let place = place.ok_or_else(|| Error::option("filter", "is too long"))?;
        place.copy_from_slice(filter.as_bytes());
        fuse_dev::control(&self.directory, SET_LOG, &mut text).map_err(|errno| self.failed(errno))
    }

    fn failed(&self, errno: Errno) -> Error {
        let path = self.path.display();
        match errno {
            Errno::NOTTY | Errno::NOSYS | Errno::INVAL => {
                Error::Refused(format!("{path} is no mount of a PlyFS daemon"))
            }
            Errno::PERM => Error::Refused(format!(
                "the daemon of {path} answers root and its own user only, in its own pid namespace"
            )),
            errno => Error::io("ask the daemon of", self.path, errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(length: usize) -> Snapshot {
        Snapshot {
            version: "x".repeat(length),
            pid: 1,
            mountpoint: "/m".into(),
            uptime_seconds: 1.5,
            log: "warn".to_owned(),
            threads: 1,
            panics: 0,
            kept_awake: 0,
            requests: Vec::new(),
            passthrough: crate::fuse::stats::Passthrough::default(),
            overlay: crate::overlay::counters::Figures::default(),
            process: None,
        }
    }

    /// What the kernel does with an ioctl.
    fn carry(pages: &Pages, page: &mut [u8], length: usize) -> FsResult<()> {
        let answer = pages.page(page, || of(length))?;
        assert!(answer.len() <= page.len());
        page[..answer.len()].copy_from_slice(&answer);
        Ok(())
    }

    #[test]
    fn a_text_of_any_length_comes_whole() {
        let lengths = [0, PAGE, 10_000, PAGE - 500, 3 * PAGE, 100_000];
        // Miri takes minutes for the large ones.
        for length in lengths.into_iter().take(if cfg!(miri) { 2 } else { usize::MAX }) {
            let pages = Pages::default();
            let text = text(|page| carry(&pages, page, length)).unwrap();
            let read: Snapshot = serde_json::from_slice(&text).unwrap();
            assert_eq!(read, of(length));
        }
    }

    #[test]
    fn pages_of_different_figures_are_never_mixed() {
        let pages = Pages::default();
        let mut asked = 0;
        let mixed = text(|page| {
            asked += 1;
            if asked == 2 {
                text(|page| carry(&pages, page, 5)).unwrap();
            }
            carry(&pages, page, 2 * PAGE)
        });
        assert_eq!(mixed, Err(Errno::AGAIN));
    }

    #[test]
    #[cfg_attr(miri, ignore = "who we are is a system call")]
    fn nonsense_is_refused() {
        let root = Caller { uid: 0, gid: 0, pid: std::process::id() };
        let pages = Pages::default();
        let answer = |command, input: &[u8]| pages.answer(&root, command, input, || of(1));
        assert_eq!(answer(0x1234, &[]), Err(Errno::NOTTY));
        assert_eq!(answer(FIGURES, &[0; 3]), Err(Errno::INVAL));
        let beyond = Head { number: 0, position: 1 << 40 };
        assert_eq!(answer(FIGURES, beyond.as_bytes()), Err(Errno::INVAL));
        assert_eq!(answer(SET_LOG, b"\xff\0"), Err(Errno::INVAL));
        let stranger = Caller { uid: 4_000_000, ..root };
        assert_eq!(pages.answer(&stranger, SET_LOG, b"info", || of(1)), Err(Errno::PERM));
    }
}
