//! The work itself. Each sample is taken by a process of its own, which says how long the part
//! that counts took and what it found, so that a filesystem that is fast but wrong is seen.

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Res;
use crate::shell::{on, text};
use meter::{Cost, Meter};

mod change;
mod data;
mod lower;
mod meter;
mod names;
mod programs;

/// What one process is to do.
pub(crate) struct Job {
    /// The root of the merged tree.
    pub(crate) root: PathBuf,
    /// Counts over all passes: names of a round are its own.
    pub(crate) round: u32,
    pub(crate) quick: bool,
    /// What lies outside of the merged tree: lists of names, archives.
    pub(crate) aside: PathBuf,
    /// Relative paths of the files and directories below `tree/`.
    pub(crate) list: String,
    /// The process that serves the mount.
    pub(crate) daemon: Option<u32>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) cost: Cost,
    /// Among how many operations it is shared.
    pub(crate) operations: u64,
    /// Of what was found: the same for all contenders.
    pub(crate) digest: String,
}

/// A digest of what is seen, in order.
#[derive(Default)]
pub(crate) struct Digest(std::hash::DefaultHasher);

impl Digest {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
        self.0.write_u8(0xff);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    fn text(&self) -> String {
        format!("{:016x}", self.0.finish())
    }
}

impl Job {
    /// Those names of the tree that are files, or directories.
    fn listed(&self, what: &str) -> Res<Vec<String>> {
        let path = self.aside.join(format!("{}.{what}", self.list));
        Ok(text(&path)?.lines().map(str::to_owned).collect())
    }

    /// How long a hot loop goes on.
    fn long_enough(&self) -> Duration {
        Duration::from_millis(if self.quick { 60 } else { 250 })
    }

    /// One pass that only warms up and tells what is found, and then passes for long enough.
    fn hot(&self, mut pass: impl FnMut(&mut Digest) -> Res<u64>) -> Res<Done> {
        let mut digest = Digest::default();
        pass(&mut digest)?;
        let mut ignored = Digest::default();
        let (meter, mut operations) = (Meter::begin(self), 0);
        while meter.elapsed() < self.long_enough() {
            operations += pass(&mut ignored)?;
        }
        Ok(Done { cost: meter.end(), operations, digest: digest.text() })
    }

    /// One pass that counts.
    fn once(&self, pass: impl FnOnce(&mut Digest) -> Res<u64>) -> Res<Done> {
        let mut digest = Digest::default();
        let meter = Meter::begin(self);
        let operations = pass(&mut digest)?;
        Ok(Done { cost: meter.end(), operations, digest: digest.text() })
    }

    /// One pass that counts, and a look at the directory `at` afterwards that does not.
    fn change(&self, at: &str, pass: impl FnOnce() -> Res<u64>) -> Res<Done> {
        let meter = Meter::begin(self);
        let operations = pass()?;
        let cost = meter.end();
        let mut digest = Digest::default();
        see(&self.root.join(at), &mut digest)?;
        Ok(Done { cost, operations, digest: digest.text() })
    }

    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.root.display())
    }

    /// A new directory for what this round makes.
    fn made(&self, name: &str) -> Res<String> {
        let name = format!("made/{name}-{}", self.round);
        crate::shell::make_dir(&self.root.join(&name))?;
        Ok(name)
    }

    fn count(&self) -> u32 {
        if self.quick { 500 } else { 2000 }
    }
}

/// Everything below a directory that all filesystems must agree on: names, types, modes, sizes,
/// targets, and content of small files.
fn see(dir: &Path, digest: &mut Digest) -> Res<()> {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else {
        digest.bytes(b"nothing");
        return Ok(());
    };
    let mut names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    names.sort();
    for path in names {
        let meta = on(&path, std::fs::symlink_metadata(&path))?;
        digest.bytes(path.file_name().unwrap_or_default().as_encoded_bytes());
        digest.number(u64::from(meta.mode()));
        if meta.is_dir() {
            see(&path, digest)?;
        } else if meta.is_file() {
            digest.number(meta.nlink());
            digest.number(meta.len());
            if meta.len() <= 1 << 16 {
                digest.bytes(&on(&path, std::fs::read(&path))?);
            }
        } else {
            digest.bytes(on(&path, std::fs::read_link(&path))?.as_os_str().as_encoded_bytes());
        }
    }
    Ok(())
}

/// `worker WORKLOAD ROOT ROUND quick|full ASIDE LIST free|pinned DAEMON`: works, and prints what
/// came of it as JSON. DAEMON is a process, or 0.
pub(crate) fn main(arguments: &[String]) -> Res<()> {
    let [id, root, round, scale, aside, list, bound, daemon] = arguments else {
        return Err("worker: eight arguments are needed".to_owned());
    };
    if bound == "pinned" {
        let mut one = rustix::thread::CpuSet::new();
        one.set(0);
        rustix::thread::sched_setaffinity(None, &one).map_err(|e| format!("cannot pin: {e}"))?;
    }
    let job = Job {
        root: root.into(),
        round: round.parse().map_err(|_| "a round is a number")?,
        quick: scale == "quick",
        aside: aside.into(),
        list: list.clone(),
        daemon: daemon.parse().ok().filter(|id| *id != 0),
    };
    let done = work(id, &job)?;
    println!("{}", serde_json::to_string(&done).map_err(|error| error.to_string())?);
    Ok(())
}

fn work(id: &str, job: &Job) -> Res<Done> {
    // Some are done on stacks of several depths, told by the number at their end.
    let id = id.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    let work = names::work(id, job)
        .or_else(|| data::work(id, job))
        .or_else(|| change::work(id, job))
        .or_else(|| lower::work(id, job))
        .or_else(|| programs::work(id, job));
    work.unwrap_or_else(|| Err(format!("{id}: no such workload")))
}
