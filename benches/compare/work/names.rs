//! Names and attributes: stat, missing names, xattrs, directories, opens.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::{Digest, Done, Job};
use crate::Res;
use crate::shell::on;

pub(super) fn work(id: &str, job: &Job) -> Option<Res<Done>> {
    Some(match id {
        "stat-hot" => hot(job, "files", stat),
        "stat-cold" => cold(job, "files", stat),
        "negative-hot" => hot(job, "files", missing),
        "negative-cold" => cold(job, "files", missing),
        "getxattr-hot" => getxattr(job),
        "readdir-hot" => hot(job, "dirs", readdir),
        "readdir-cold" => cold(job, "dirs", readdir),
        "walk-hot" => job.hot(|digest| walk_all(job, by_stat, digest)),
        "walk-cold" => job.once(|digest| walk_all(job, by_stat, digest)),
        "walk-btime-cold" => job.once(|digest| walk_all(job, by_statx, digest)),
        "open-read-hot" => hot(job, "files", open_read),
        "open-read-cold" => cold(job, "files", open_read),
        "two-open-read-hot" => two(job, open_read),
        "two-stat-cold" => two_cold(job, stat),
        _ => return None,
    })
}

type One = fn(&File, &str, &mut Digest) -> Res<()>;

fn root(job: &Job) -> Res<File> {
    on(&job.root, File::open(&job.root))
}

fn hot(job: &Job, what: &str, one: One) -> Res<Done> {
    let (root, names) = (root(job)?, job.listed(what)?);
    job.hot(|digest| each(&root, &names, one, digest))
}

fn cold(job: &Job, what: &str, one: One) -> Res<Done> {
    let (root, names) = (root(job)?, job.listed(what)?);
    job.once(|digest| each(&root, &names, one, digest))
}

fn each(root: &File, names: &[String], one: One, digest: &mut Digest) -> Res<u64> {
    for name in names {
        one(root, name, digest)?;
    }
    Ok(names.len() as u64)
}

fn stat(root: &File, name: &str, digest: &mut Digest) -> Res<()> {
    let stat = rustix::fs::statat(root, name, AtFlags::SYMLINK_NOFOLLOW);
    let stat = stat.map_err(|errno| format!("stat of {name}: {errno}"))?;
    digest.number(stat.st_size as u64);
    Ok(())
}

/// The same few missing names in each directory, as a search path makes them.
fn missing(root: &File, name: &str, digest: &mut Digest) -> Res<()> {
    let name = format!("{name}.none");
    match rustix::fs::statat(root, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {
            digest.number(1);
            Ok(())
        }
        other => Err(format!("stat of {name}, which is not there: {other:?}")),
    }
}

fn getxattr(job: &Job) -> Res<Done> {
    let names: Vec<String> = job.listed("files")?.iter().map(|name| job.path(name)).collect();
    let mut buffer = [0; 256];
    job.hot(|digest| {
        for name in &names {
            match rustix::fs::lgetxattr(name, "security.capability", &mut buffer[..]) {
                Err(Errno::NODATA) => digest.number(1),
                other => return Err(format!("an xattr that is not there: {other:?}")),
            }
        }
        Ok(names.len() as u64)
    })
}

fn readdir(root: &File, name: &str, digest: &mut Digest) -> Res<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = rustix::fs::openat(root, name, flags, Mode::empty());
    let dir = dir.map_err(|errno| format!("open of {name}: {errno}"))?;
    let mut names = 0;
    let mut sum = 0_u64;
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = rustix::fs::RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| format!("list of {name}: {errno}"))?;
        // In any order.
        sum = sum.wrapping_add(entry.file_name().to_bytes().iter().map(|b| u64::from(*b)).sum());
        names += 1;
    }
    digest.number(names);
    digest.number(sum);
    Ok(())
}

fn open_read(root: &File, name: &str, digest: &mut Digest) -> Res<()> {
    let file = rustix::fs::openat(root, name, OFlags::RDONLY, Mode::empty());
    let file = file.map_err(|errno| format!("open of {name}: {errno}"))?;
    let mut buffer = [0; 4096];
    let length = File::from(file).read(&mut buffer).map_err(|e| format!("read of {name}: {e}"))?;
    digest.bytes(&buffer[..length]);
    Ok(())
}

fn walk_all(job: &Job, look: Look, digest: &mut Digest) -> Res<u64> {
    let root = on(&job.root, File::open(job.root.join("tree")))?;
    let (seen, sum) = walk(&root.into(), look).map_err(|errno| format!("walk: {errno}"))?;
    digest.number(seen);
    digest.number(sum);
    Ok(seen)
}

/// Whether a name is a directory, and its size.
type Look = fn(&OwnedFd, &CStr) -> rustix::io::Result<(bool, u64)>;

/// As C, Go and Python programs do.
fn by_stat(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<(bool, u64)> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((FileType::from_raw_mode(stat.st_mode).is_dir(), stat.st_size as u64))
}

/// As programs of Rust and Node.js do, which ask for the time of creation, too.
fn by_statx(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<(bool, u64)> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, flags)?;
    Ok((FileType::from_raw_mode(stat.stx_mode.into()).is_dir(), stat.stx_size))
}

/// Lists a tree and looks at each entry, as `find` with a condition and `ls -lR` do: how many
/// there are, and the sum of the files' sizes, which no order changes.
fn walk(dir: &OwnedFd, look: Look) -> rustix::io::Result<(u64, u64)> {
    let (mut seen, mut sum) = (1, 0_u64);
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let (is_dir, size) = look(dir, name)?;
        if is_dir {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let (below, sizes) = walk(&rustix::fs::openat(dir, name, flags, Mode::empty())?, look)?;
            (seen, sum) = (seen + below, sum.wrapping_add(sizes));
        } else {
            sum = sum.wrapping_add(size);
            seen += 1;
        }
    }
    Ok((seen, sum))
}

/// Two clients at once, each on half of the names.
fn two(job: &Job, one: One) -> Res<Done> {
    let (root, names) = (root(job)?, job.listed("files")?);
    job.hot(|digest| halves(&root, &names, one, digest))
}

fn two_cold(job: &Job, one: One) -> Res<Done> {
    let (root, names) = (root(job)?, job.listed("files")?);
    job.once(|digest| halves(&root, &names, one, digest))
}

fn halves(root: &File, names: &[String], one: One, digest: &mut Digest) -> Res<u64> {
    let (first, second) = names.split_at(names.len() / 2);
    std::thread::scope(|scope| {
        let clients = [first, second]
            .map(|half| scope.spawn(|| each(root, half, one, &mut Digest::default())));
        let mut all = 0;
        for client in clients {
            all += client.join().map_err(|_| "a client ended in a panic".to_owned())??;
        }
        digest.number(all);
        Ok(all)
    })
}
