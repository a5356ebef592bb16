//! What is mounted where, in this process's mount namespace and in others
//! (proc_pid_mountinfo(5)).

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{FsResult, errno_of};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// The directory of its filesystem that is mounted, `/` unless only a part is.
    pub root: PathBuf,
    /// Where it is mounted.
    pub path: PathBuf,
    /// The filesystem type, `fuse.NAME` for a FUSE one with a subtype.
    pub kind: OsString,
    /// The source that it was mounted with.
    pub source: OsString,
    /// The device number of its filesystem, `MAJOR:MINOR`.
    pub device: String,
    /// The options of its filesystem, separated by commas.
    pub options: String,
}

/// All mounts, in the order in which they were made.
pub fn read() -> FsResult<Vec<MountPoint>> {
    read_of(Path::new("/proc/self")).map_err(|error| errno_of(&error))
}

/// The mounts in the other mount namespaces, as far as this process may look: into those of the
/// processes that it may trace, which for root are all.
pub fn read_elsewhere() -> FsResult<Vec<MountPoint>> {
    let namespace = |process: &Path| std::fs::read_link(process.join("ns/mnt"));
    let own = namespace(Path::new("/proc/self")).map_err(|error| errno_of(&error))?;
    let mut seen = HashSet::from([own]);
    let mut mounts = Vec::new();
    for process in std::fs::read_dir("/proc").map_err(|error| errno_of(&error))? {
        let process = process.map_err(|error| errno_of(&error))?.path();
        let number = process.file_name().unwrap_or_default().as_encoded_bytes();
        if !number.iter().all(u8::is_ascii_digit) {
            continue;
        }
        // One that ended meanwhile, or is somebody else's, tells nothing.
        let Ok(namespace) = namespace(&process) else { continue };
        if !seen.contains(&namespace)
            && let Ok(found) = read_of(&process)
        {
            mounts.extend(found);
            seen.insert(namespace);
        }
    }
    Ok(mounts)
}

fn read_of(process: &Path) -> std::io::Result<Vec<MountPoint>> {
    let table = std::fs::read(process.join("mountinfo"))?;
    Ok(parse_table(&table))
}

/// Reads a table of mounts; a line that is none is left out.
pub fn parse_table(table: &[u8]) -> Vec<MountPoint> {
    table.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// Reads one line: `id parent major:minor root PATH options [tags] - KIND SOURCE options`.
fn parse(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|b| *b == b' ');
    let device = String::from_utf8(fields.by_ref().nth(2)?.to_vec()).ok()?;
    let (root, path) = (fields.next()?, fields.next()?);
    fields.by_ref().find(|field| *field == b"-")?;
    let (kind, source) = (fields.next()?, fields.next()?);
    let options = fields.next().unwrap_or_default();
    Some(MountPoint {
        root: PathBuf::from(OsString::from_vec(unescape(root))),
        path: PathBuf::from(OsString::from_vec(unescape(path))),
        kind: OsString::from_vec(unescape(kind)),
        source: OsString::from_vec(unescape(source)),
        device,
        options: String::from_utf8_lossy(options).into_owned(),
    })
}

/// Space, tab, newline and backslash stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if *first == b'\\' => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line = b"36 35 98:0 / /mnt/a\\040b\\134 rw,noatime shared:1 master:2 - fuse.x src rw,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!(mount.path, PathBuf::from("/mnt/a b\\"));
        assert_eq!(mount.root, PathBuf::from("/"));
        assert_eq!(mount.options, "rw,user_id=0");
        assert_eq!((mount.kind, mount.source), ("fuse.x".into(), "src".into()));
        assert_eq!(parse(b"36 35"), None);
    }
}
