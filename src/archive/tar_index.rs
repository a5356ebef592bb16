//! Where in the tar of an archive its files are.
//!
//! The outer tar of an archive is never unpacked. It is walked once, header by header, and the
//! names lead to byte ranges; names and links only mean something inside this map.

use std::collections::BTreeMap;
use std::fs::File;

use tar::{EntryType, Header};

use super::pax::{next_record, parse_decimal};
use super::tar_header::{checksum_matches, number};
use crate::error::{Error, Result};
use crate::sys::{file, stat};

/// Entries and bytes of names that an archive may have; real ones have dozens.
const ENTRIES_MAX: usize = 1 << 20;
const NAME_MAX: u64 = 4096;
const PAX_MAX: u64 = 1 << 20;
/// Links to links that are followed.
const LINKS_MAX: usize = 8;

const BLOCK: u64 = 512;

/// The files of a tar by name, without `./` in front.
#[derive(Debug, Default)]
pub(super) struct TarIndex(BTreeMap<Vec<u8>, Entry>);

#[derive(Debug)]
enum Entry {
    File { start: u64, size: u64 },
    Link { target: Vec<u8> },
}

impl TarIndex {
    /// Start and size of the file `name`; links inside the archive are followed.
    pub(super) fn find(&self, name: &[u8]) -> Option<(u64, u64)> {
        let mut name = normal(b"", name)?;
        for _ in 0..LINKS_MAX {
            match self.0.get(&name)? {
                Entry::File { start, size } => return Some((*start, *size)),
                Entry::Link { target } => name = target.clone(),
            }
        }
        None
    }
}

/// `name` as seen from the directory of `from`, without `.` and `..`; `None` where it leaves the
/// archive.
fn normal(from: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = from.split(|b| *b == b'/').collect();
    parts.pop();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// What the entries before a file's own header say of it.
#[derive(Default)]
struct Announced {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

struct Scan<'a> {
    file: &'a File,
    length: u64,
    what: &'a str,
    index: TarIndex,
}

/// Walks the tar in `file`.
pub(super) fn scan(file: &File, what: &str) -> Result<TarIndex> {
    let stat = stat::stat_fd(file).map_err(|errno| Error::io("read", what, errno))?;
    let mut scan = Scan { file, length: stat.size, what, index: TarIndex::default() };
    let mut announced = Announced::default();
    let mut position = 0;
    while let Some(header) = scan.header(position)? {
        position = scan.entry(&header, position + BLOCK, &mut announced)?;
    }
    if position == 0 {
        return Err(scan.invalid(0, "no tar archive"));
    }
    Ok(scan.index)
}

impl Scan<'_> {
    fn invalid(&self, position: u64, why: &str) -> Error {
        Error::invalid(self.what, format!("{why} (at byte {position})"))
    }

    /// The header at `position`, or `None` at the end of the archive.
    fn header(&self, position: u64) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let n = file::read_at(self.file, header.as_mut_bytes(), position)
            .map_err(|errno| Error::io("read", self.what, errno))?;
        if n == 0 || (n as u64 == BLOCK && header.as_bytes().iter().all(|b| *b == 0)) {
            return Ok(None);
        }
        if n as u64 != BLOCK {
            return Err(self.invalid(position, "the tar archive is cut off"));
        }
        if !checksum_matches(&header) {
            return Err(self.invalid(position, "not a tar header"));
        }
        Ok(Some(header))
    }

    /// Takes in the entry of `header`, whose data begin at `data`; returns where the next header
    /// is.
    fn entry(&mut self, header: &Header, data: u64, announced: &mut Announced) -> Result<u64> {
        let own_size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
        let own_size = own_size.ok_or_else(|| self.invalid(data, "an entry without a size"))?;
        match header.entry_type() {
            EntryType::GNULongName => announced.name = Some(self.long_name(data, own_size)?),
            EntryType::GNULongLink => announced.target = Some(self.long_name(data, own_size)?),
            EntryType::XHeader => self.pax(data, own_size, announced)?,
            EntryType::XGlobalHeader => {}
            EntryType::GNUSparse => return Err(self.invalid(data, "a sparse entry")),
            kind => {
                let told = std::mem::take(announced);
                return self.file(header, kind, data, told.size.unwrap_or(own_size), told);
            }
        }
        self.after(data, own_size)
    }

    fn file(
        &mut self,
        header: &Header,
        kind: EntryType,
        data: u64,
        size: u64,
        told: Announced,
    ) -> Result<u64> {
        let name = told.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let target = || {
            let own = || header.link_name_bytes().map(std::borrow::Cow::into_owned);
            told.target.or_else(own).unwrap_or_default()
        };
        let Some(name) = normal(b"", &name) else { return self.after(data, size) };
        // As every other reader of such archives has it, only files have data.
        let (entry, size) = match kind {
            EntryType::Symlink => {
                (normal(&name, &target()).map(|target| Entry::Link { target }), 0)
            }
            EntryType::Link => (normal(b"", &target()).map(|target| Entry::Link { target }), 0),
            EntryType::Directory | EntryType::Char | EntryType::Block | EntryType::Fifo => {
                (None, 0)
            }
            _ => (Some(Entry::File { start: data, size }), size),
        };
        let next = self.after(data, size)?;
        if let Some(entry) = entry {
            self.insert(name, entry, data)?;
        }
        Ok(next)
    }

    fn insert(&mut self, name: Vec<u8>, entry: Entry, data: u64) -> Result<()> {
        if self.index.0.len() >= ENTRIES_MAX {
            return Err(self.invalid(data, "more entries than an archive of images can have"));
        }
        // Two readers may disagree on which of two equal names counts; where everything else
        // hangs on it there must be no choice. A blob's content is proven by its digest.
        let decisive = matches!(name.as_slice(), b"manifest.json" | b"index.json");
        if self.index.0.insert(name, entry).is_some() && decisive {
            return Err(self.invalid(data, "a second manifest.json or index.json"));
        }
        Ok(())
    }

    /// Where the header after `size` bytes of data is, which must all be there.
    fn after(&self, data: u64, size: u64) -> Result<u64> {
        let end = data.checked_add(size).filter(|end| *end <= self.length);
        let next = end.and_then(|end| end.checked_next_multiple_of(BLOCK));
        next.ok_or_else(|| self.invalid(data, "the tar archive is cut off"))
    }

    fn small(&self, data: u64, size: u64, most: u64) -> Result<Vec<u8>> {
        if size > most {
            return Err(self.invalid(data, "an oversized header"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        let n = file::read_at(self.file, &mut bytes, data)
            .map_err(|errno| Error::io("read", self.what, errno))?;
        bytes.truncate(n);
        Ok(bytes)
    }

    fn long_name(&self, data: u64, size: u64) -> Result<Vec<u8>> {
        let mut name = self.small(data, size, NAME_MAX)?;
        name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn pax(&self, data: u64, size: u64, announced: &mut Announced) -> Result<()> {
        let bytes = self.small(data, size, PAX_MAX)?;
        let mut rest = bytes.as_slice();
        while let Some(record) = next_record(rest).map_err(|why| self.invalid(data, why))? {
            rest = record.rest;
            let name = || match record.value.len() as u64 {
                0..=NAME_MAX => Ok(Some(record.value.to_vec())),
                _ => Err(self.invalid(data, "an oversized name")),
            };
            match record.key {
                b"path" => announced.name = name()?,
                b"linkpath" => announced.target = name()?,
                b"size" => {
                    let size = parse_decimal(record.value);
                    announced.size =
                        Some(size.ok_or_else(|| self.invalid(data, "a malformed PAX size"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(self.invalid(data, "a sparse entry"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
