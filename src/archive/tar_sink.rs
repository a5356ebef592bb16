//! Tar entries being written: ustar, with PAX records for whatever ustar cannot say.
//!
//! The inverse of `tar_stream`. Equal entries give equal bytes: nothing of the time, the process
//! or the machine goes into them.

use std::ffi::{OsStr, OsString};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use tar::{EntryType, Header};

use super::pax::{append_record, encode_key, format_time};
use super::tar_stream::Kind;
use crate::error::{Error, Result};
use crate::sys::stat::{Time, decode_dev};

const BLOCK: u64 = 512;
/// Headers and small files gather until there are this many bytes to write.
const BUFFER: usize = 256 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// The largest numbers of ustar's octal fields of 8 and 12 bytes.
const OCTAL_8: u64 = 0o7_777_777;
const OCTAL_12: u64 = 0o77_777_777_777;
/// The longest name and link target that ustar holds without its prefix field.
const NAME_MAX: usize = 100;

/// What is written before an entry's data.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// Without a leading slash; a directory's ends with one.
    pub(crate) path: &'a [u8],
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// In the form of [`crate::sys::stat::encode_dev`].
    pub(crate) rdev: u32,
    /// Bytes of data that follow.
    pub(crate) size: u64,
    pub(crate) xattrs: &'a [(OsString, Vec<u8>)],
}

/// A tar archive being written.
pub(crate) struct TarSink<'a> {
    out: BufWriter<&'a mut dyn Write>,
    /// No later time is written.
    latest: Option<Time>,
    /// Bytes missing to a whole block once the data is written.
    padding: usize,
}

impl std::fmt::Debug for TarSink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarSink").field("latest", &self.latest).finish_non_exhaustive()
    }
}

impl<'a> TarSink<'a> {
    /// Writes to `out`; times after `SOURCE_DATE_EPOCH`, where the environment has it, become
    /// that time.
    pub(crate) fn new(out: &'a mut dyn Write) -> Result<Self> {
        Ok(TarSink::until(out, source_date_epoch()?))
    }

    /// Writes to `out`; times after `latest` become that time.
    pub(crate) fn until(out: &'a mut dyn Write, latest: Option<Time>) -> Self {
        TarSink { out: BufWriter::with_capacity(BUFFER, out), latest, padding: 0 }
    }

    /// Begins an entry; `head.size` bytes of data must follow.
    pub(crate) fn begin(&mut self, head: &Head<'_>) -> Result<()> {
        let mtime = self.latest.map_or(head.mtime, |latest| head.mtime.min(latest));
        let records = pax_records(head, mtime);
        if !records.is_empty() {
            let mut header = ordinary_header(EntryType::XHeader, records.len() as u64);
            copy_into(&mut header.as_old_mut().name, b"PaxHeaders/entry");
            header.set_cksum();
            self.write(header.as_bytes())?;
            self.write(&records)?;
            self.padding = padding_of(records.len() as u64);
            self.end()?;
        }
        let header = ustar_header(head, mtime);
        self.write(header.as_bytes())?;
        self.padding = padding_of(head.size);
        Ok(())
    }

    /// Writes a part of the entry's data.
    pub(crate) fn data(&mut self, data: &[u8]) -> Result<()> {
        self.write(data)
    }

    /// Writes `count` zero bytes of the entry's data.
    pub(crate) fn zeros(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.write(ZEROS.get(..n).unwrap_or_default())?;
            left -= n as u64;
        }
        Ok(())
    }

    /// Ends the entry.
    pub(crate) fn end(&mut self) -> Result<()> {
        let zeros = [0u8; BLOCK as usize];
        let missing = std::mem::take(&mut self.padding);
        self.write(zeros.get(..missing).unwrap_or_default())
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<()> {
        let TarSink { mut out, .. } = self;
        out.write_all(&[0; 2 * BLOCK as usize])
            .and_then(|()| out.flush())
            .map_err(|error| not_written(&error))
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.out.write_all(data).map_err(|error| not_written(&error))
    }
}

/// How much the last block of `size` bytes lacks.
fn padding_of(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0)
}

fn not_written(error: &std::io::Error) -> Error {
    Error::std_io("write", "the archive", error)
}

/// The time in `SOURCE_DATE_EPOCH`, where the environment has it.
///
/// # Errors
/// Where it is not a number of seconds.
pub fn source_date_epoch() -> Result<Option<Time>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let Some(value) = std::env::var_os(NAME).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let sec = value.to_str().and_then(|text| text.parse().ok());
    match sec {
        Some(sec) => Ok(Some(Time { sec, nsec: 0 })),
        None => Err(Error::option(NAME, "it must be a number of seconds since 1970")),
    }
}

/// The records that this entry needs, in a fixed order.
fn pax_records(head: &Head<'_>, mtime: Time) -> Vec<u8> {
    let mut records = Vec::new();
    let mut number = |key: &str, value: u64, max: u64| {
        if value > max {
            append_record(&mut records, key.as_bytes(), value.to_string().as_bytes());
        }
    };
    number("size", head.size, OCTAL_12);
    number("uid", head.uid.into(), OCTAL_8);
    number("gid", head.gid.into(), OCTAL_8);
    if mtime.nsec != 0 || !u64::try_from(mtime.sec).is_ok_and(|sec| sec <= OCTAL_12) {
        append_record(&mut records, b"mtime", format_time(mtime).as_bytes());
    }
    if head.path.len() > NAME_MAX {
        append_record(&mut records, b"path", head.path);
    }
    if let Kind::HardLink(target) | Kind::Symlink(target) = &head.kind
        && target.len() > NAME_MAX
    {
        append_record(&mut records, b"linkpath", target);
    }
    for (name, value) in head.xattrs {
        let key = [b"SCHILY.xattr.", encode_key(name.as_bytes()).as_slice()].concat();
        append_record(&mut records, &key, value);
    }
    records
}

fn ustar_header(head: &Head<'_>, mtime: Time) -> Header {
    let (kind, link) = match &head.kind {
        Kind::File => (EntryType::Regular, None),
        Kind::HardLink(target) => (EntryType::Link, Some(target)),
        Kind::Symlink(target) => (EntryType::Symlink, Some(target)),
        Kind::CharDevice => (EntryType::Char, None),
        Kind::BlockDevice => (EntryType::Block, None),
        Kind::Directory => (EntryType::Directory, None),
        Kind::Fifo => (EntryType::Fifo, None),
    };
    let mut header = ordinary_header(kind, if head.size > OCTAL_12 { 0 } else { head.size });
    header.set_mode(head.mode & 0o7777);
    let octal = |id: u32| if u64::from(id) > OCTAL_8 { 0 } else { u64::from(id) };
    header.set_uid(octal(head.uid));
    header.set_gid(octal(head.gid));
    let sec = u64::try_from(mtime.sec).unwrap_or(0);
    header.set_mtime(if sec > OCTAL_12 { 0 } else { sec });
    copy_into(&mut header.as_old_mut().name, head.path);
    if let Some(target) = link {
        copy_into(&mut header.as_old_mut().linkname, target);
    }
    if let (Kind::CharDevice | Kind::BlockDevice, Some(ustar)) = (&head.kind, header.as_ustar_mut())
    {
        let (major, minor) = decode_dev(head.rdev);
        ustar.set_device_major(major);
        ustar.set_device_minor(minor);
    }
    header.set_cksum();
    header
}

fn ordinary_header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(0);
        ustar.set_device_minor(0);
    }
    header
}

/// Fills a field with as much of `value` as fits; a PAX record has the whole where it does not.
fn copy_into(field: &mut [u8], value: &[u8]) {
    for (to, from) in field.iter_mut().zip(value) {
        *to = *from;
    }
}

/// Whether an archive carries the xattr `name`: not overlay's own, whose meaning ends with the
/// layers, and not a label of this machine's policy.
pub(crate) fn carries_xattr(name: &OsStr) -> bool {
    !crate::layer::xattrs::is_private(name) && name != "security.selinux"
}
