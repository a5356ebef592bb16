//! The entries of a tar stream, one after another: ustar, GNU and PAX.
//!
//! The `tar` crate's header is used, its iterator is not: that one keeps names of any claimed
//! size in memory, turns the holes of sparse files into zeros and knows no PAX sparse files.
//! Nothing here allocates by a claimed size: what is kept is bounded, the rest is streamed.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::pax::{self, parse_decimal, parse_time};
use super::sparse::{self, PaxSparse, SparseMap};
use super::tar_header::{checksum_matches, device_number, number, owner, small, unknown_kind};
use crate::sys::stat::Time;

const BLOCK: usize = 512;
/// The most that the PAX headers and GNU long names before one entry may take together; xattrs have
/// 64 KiB each at most.
const EXTENSION_MAX: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// A further name of an earlier entry, whose name it holds.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, whose data the stream gives next.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The name as the archive has it; nothing about it was checked.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) atime: Option<Time>,
    /// As [`crate::sys::stat::encode_dev`] forms it.
    pub(crate) rdev: u32,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
    /// Where the data goes; a plain file has one extent.
    pub(crate) map: SparseMap,
}

/// Why a stream cannot be read on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The source failed.
    Read(std::io::Error),
    /// It is not a tar archive, or not one that can be honoured.
    Bad(String),
}

impl From<&'static str> for Failure {
    fn from(reason: &'static str) -> Self {
        Failure::Bad(reason.to_owned())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Read(error) => write!(f, "reading failed: {error}"),
            Failure::Bad(reason) => f.write_str(reason),
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// A tar stream being read.
pub(crate) struct TarStream<'a> {
    tar: &'a mut dyn Read,
    /// Bytes of the current entry's data not yet read.
    left: u64,
    /// Bytes of padding that follow them.
    padding: u64,
    /// Bytes that the extension headers of the entry to come may still take.
    extension_left: u64,
}

impl std::fmt::Debug for TarStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarStream").field("left", &self.left).finish_non_exhaustive()
    }
}

/// What the extension headers before an entry say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    atime: Option<Time>,
    xattrs: Vec<(OsString, Vec<u8>)>,
    sparse: PaxSparse,
}

impl<'a> TarStream<'a> {
    /// Reads `tar` from its first header.
    pub(crate) fn new(tar: &'a mut dyn Read) -> Self {
        TarStream { tar, left: 0, padding: 0, extension_left: EXTENSION_MAX }
    }

    /// The next entry, or `None` at the end; data of the one before that was not read is
    /// skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        self.extension_left = EXTENSION_MAX;
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else {
                if extended {
                    return Err("an extension header without the entry it belongs to".into());
                }
                return Ok(None);
            };
            let size = number(&header.as_old().size).and_then(|n| u64::try_from(n).ok());
            self.begin_data(size.ok_or("a header with a broken size")?)?;
            match header.entry_type() {
                EntryType::XHeader => extensions.take_pax(&self.read_extension()?)?,
                EntryType::GNULongName => extensions.path = Some(self.read_long_name()?),
                EntryType::GNULongLink => extensions.link = Some(self.read_long_name()?),
                // Comments and defaults of the whole archive: nothing of them concerns a layer.
                EntryType::XGlobalHeader => continue,
                _ => return self.entry(&header, extensions).map(Some),
            }
            extended = true;
        }
    }

    /// Reads data of the current entry; 0 at its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(buffer.len()).min(buffer.len());
        let Some(part) = buffer.get_mut(..want).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let n = read_some(self.tar, part)?;
        if n == 0 {
            return Err("the archive ends within an entry".into());
        }
        self.left -= n as u64;
        Ok(n)
    }

    /// Reads what follows the archive's end marker (padding), so that a digest taken of the
    /// stream covers all of it.
    pub(crate) fn drain(&mut self) -> Result<()> {
        let mut buffer = [0u8; 16 * 1024];
        while read_some(self.tar, &mut buffer)? != 0 {}
        Ok(())
    }

    fn begin_data(&mut self, size: u64) -> Result<()> {
        let whole = size.checked_next_multiple_of(BLOCK as u64);
        let whole = whole.filter(|whole| i64::try_from(*whole).is_ok());
        self.padding = whole.ok_or("an entry larger than any file")? - size;
        self.left = size;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut buffer = [0u8; 16 * 1024];
        while self.read_data(&mut buffer)? != 0 {}
        self.left = std::mem::take(&mut self.padding);
        while self.read_data(&mut buffer)? != 0 {}
        Ok(())
    }

    /// The next header; `None` after the end marker or where the stream ends between entries,
    /// which some writers leave it at.
    fn read_header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.read_block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            let mut second = [0u8; BLOCK];
            if self.read_block(&mut second)? && second.iter().any(|b| *b != 0) {
                return Err("a lone zero block between two entries".into());
            }
            return Ok(None);
        }
        if !checksum_matches(&header) {
            return Err("not a tar header (its checksum is wrong)".into());
        }
        Ok(Some(header))
    }

    /// Fills `block`; `false` where the stream ends before its first byte.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut done = 0;
        while let Some(rest) = block.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match read_some(self.tar, rest)? {
                0 if done == 0 => return Ok(false),
                0 => return Err("the archive ends within a header".into()),
                n => done += n,
            }
        }
        Ok(true)
    }

    fn read_extension(&mut self) -> Result<Vec<u8>> {
        // What is empty counts, too: there could be any number of them.
        let claimed = self.left.max(BLOCK as u64);
        let Some(rest) = self.extension_left.checked_sub(claimed) else {
            return Err(Failure::Bad(format!(
                "an extension header of {claimed} bytes; at most {EXTENSION_MAX} are taken for an entry"
            )));
        };
        self.extension_left = rest;
        let mut content = Vec::new();
        let mut buffer = [0u8; 8 * 1024];
        loop {
            let n = self.read_data(&mut buffer)?;
            if n == 0 {
                return Ok(content);
            }
            content.extend_from_slice(buffer.get(..n).unwrap_or_default());
        }
    }

    fn read_long_name(&mut self) -> Result<Vec<u8>> {
        let mut name = self.read_extension()?;
        if let Some(end) = name.iter().position(|b| *b == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn entry(&mut self, header: &Header, mut extensions: Extensions) -> Result<Entry> {
        if let Some(size) = extensions.size {
            self.begin_data(size)?;
        }
        let name = extensions.sparse.name.take().or(extensions.path.take());
        let path = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions.link.take();
        let link = || link.or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let kind = match header.entry_type() {
            // Before there was a type for directories, a trailing slash told them.
            EntryType::Regular if header.as_old().linkflag == [0] && path.ends_with(b"/") => {
                Kind::Directory
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::HardLink(link().unwrap_or_default()),
            EntryType::Symlink => Kind::Symlink(link().unwrap_or_default()),
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            other => return Err(Failure::Bad(unknown_kind(&path, other))),
        };
        if kind != Kind::File {
            // Some writers give links the size of their file; no data follows them.
            self.begin_data(0)?;
        }
        let map = self.data_map(header, &mut extensions)?;
        let old = header.as_old();
        Ok(Entry {
            path,
            kind,
            mode: small(&old.mode, "mode")? & 0o7777,
            uid: owner(extensions.uid, &old.uid)?,
            gid: owner(extensions.gid, &old.gid)?,
            mtime: match extensions.mtime {
                Some(time) => time,
                None => Time { sec: number(&old.mtime).ok_or("a broken time")?, nsec: 0 },
            },
            atime: extensions.atime,
            rdev: device_number(header)?,
            xattrs: extensions.xattrs,
            map,
        })
    }

    /// Where the data of the entry goes, once its map, if it has one, is read.
    fn data_map(&mut self, header: &Header, extensions: &mut Extensions) -> Result<SparseMap> {
        let pax = std::mem::take(&mut extensions.sparse);
        let map = if header.entry_type() == EntryType::GNUSparse {
            self.old_gnu_map(header)?
        } else if let Some(size) = pax.size() {
            if pax.map_is_in_data() { self.map_in_data(size)? } else { pax.into_map(size)? }
        } else {
            let extents = vec![sparse::Extent { offset: 0, length: self.left }];
            SparseMap { extents, size: self.left }
        };
        map.check(self.left)?;
        Ok(map)
    }

    fn old_gnu_map(&mut self, header: &Header) -> Result<SparseMap> {
        let gnu = header.as_gnu().ok_or("a sparse file without a GNU header")?;
        let size = number(&gnu.realsize).and_then(|n| u64::try_from(n).ok());
        let mut map = SparseMap { extents: Vec::new(), size: size.ok_or("a broken sparse size")? };
        map.add_old_gnu(&gnu.sparse)?;
        let mut more = gnu.isextended != [0];
        let mut taken = 0;
        while more {
            let mut block = GnuExtSparseHeader::new();
            taken += BLOCK as u64;
            if taken > sparse::MAP_MAX || !self.read_block(block.as_mut_bytes())? {
                return Err("a sparse map that is too long or cut off".into());
            }
            map.add_old_gnu(&block.sparse)?;
            more = block.isextended != [0];
        }
        Ok(map)
    }

    /// Reads a map of form 1.0: lines of decimal numbers, padded to a whole block.
    fn map_in_data(&mut self, size: u64) -> Result<SparseMap> {
        let mut taken = 0u64;
        let map = sparse::read_map_in_data(size, || {
            let mut line = Vec::new();
            loop {
                let mut byte = [0u8];
                taken += 1;
                if taken > sparse::MAP_MAX || self.read_data(&mut byte)? == 0 {
                    return Err(Failure::from("a sparse map that is too long or cut off"));
                }
                match byte {
                    [b'\n'] => break,
                    [digit] => line.push(digit),
                }
            }
            parse_decimal(&line).ok_or("a sparse map with a broken number".into())
        })?;
        let mut padding = taken.next_multiple_of(BLOCK as u64) - taken;
        while padding > 0 {
            if self.read_data(&mut [0u8])? == 0 {
                return Err("a sparse map that is cut off".into());
            }
            padding -= 1;
        }
        Ok(map)
    }
}

impl Extensions {
    fn take_pax(&mut self, block: &[u8]) -> Result<()> {
        let mut rest = block;
        while let Some(record) = pax::next_record(rest)? {
            rest = record.rest;
            self.take_record(record.key, record.value)?;
        }
        Ok(())
    }

    fn take_record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let broken = || {
            let key = String::from_utf8_lossy(key).into_owned();
            Failure::Bad(format!("a PAX record with a broken value of {key}"))
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(parse_decimal(value).ok_or_else(broken)?),
            b"uid" => self.uid = Some(parse_decimal(value).ok_or_else(broken)?),
            b"gid" => self.gid = Some(parse_decimal(value).ok_or_else(broken)?),
            b"mtime" => self.mtime = Some(parse_time(value).ok_or_else(broken)?),
            b"atime" => self.atime = Some(parse_time(value).ok_or_else(broken)?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse.take(key, value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    let name = pax::decode_key(name);
                    if name.is_empty() || name.contains(&0) {
                        return Err(broken());
                    }
                    self.xattrs.push((OsString::from_vec(name), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn read_some(tar: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match tar.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.map_err(Failure::Read),
        }
    }
}
