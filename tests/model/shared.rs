//! A directory that all threads work in, with operations of which the end is known in whatever
//! order they come: what adds up, what is done under a lock, and what only one can win.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::rng::Rng;
use crate::support::{Attributes, EntrySpec, LayerSpec, What, names};

/// Bytes of the file with two names that each thread may write.
const SHARE: usize = 512;
/// The name of the directory.
pub(crate) const DIR: &str = "shared";

/// Its entries in the lowest layer.
pub(crate) fn layer(threads: usize) -> LayerSpec {
    let entry = |path: &str, what| EntrySpec {
        path: Path::new(DIR).join(path),
        what,
        attributes: Attributes::default(),
    };
    let mut entries = vec![
        entry("log", What::File(Vec::new())),
        entry("counter", What::File(b"0".to_vec())),
        entry("one", What::File(vec![0; threads * SHARE])),
        entry("another", What::HardLink(Path::new(DIR).join("one"))),
        entry("here", What::Dir),
        entry("there", What::Dir),
    ];
    for thread in 0..threads {
        for number in 0..4 {
            entries.push(entry(&format!("here/{thread}-{number}"), What::File(b"l".to_vec())));
        }
    }
    LayerSpec { entries }
}

/// What one thread knows to have done.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: usize,
    root: PathBuf,
    records: usize,
    counted: u64,
    won: usize,
    rounds: usize,
    bytes: Vec<u8>,
    here: BTreeSet<String>,
    there: BTreeSet<String>,
}

impl Worker {
    pub(crate) fn new(thread: usize, mounted: &Path) -> Worker {
        Worker {
            thread,
            root: mounted.join(DIR),
            records: 0,
            counted: 0,
            won: 0,
            rounds: 0,
            bytes: vec![0; SHARE],
            here: (0..4).map(|number| format!("{thread}-{number}")).collect(),
            there: BTreeSet::new(),
        }
    }

    /// One operation that must succeed, or one that only one thread wins.
    pub(crate) fn step(&mut self, rng: &mut Rng) {
        match rng.below(7) {
            0 => self.append(),
            1 => self.count(),
            2 => self.write_share(rng),
            3 => self.come_or_go(rng),
            4 => self.cross(rng),
            5 => self.read_share(rng),
            _ => self.race(),
        }
    }

    fn append(&mut self) {
        let mut log = fs::OpenOptions::new().append(true).open(self.root.join("log")).unwrap();
        let record = format!("{:02} {:08}\n", self.thread, self.records);
        log.write_all(record.as_bytes()).unwrap();
        self.records += 1;
    }

    /// Read, add, write back: whole only under a lock that all threads see.
    fn count(&mut self) {
        let path = self.root.join("counter");
        let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let next = text.parse::<u64>().unwrap() + 1;
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(next.to_string().as_bytes()).unwrap();
        self.counted += 1;
    }

    fn share(&self, name: &str) -> File {
        fs::OpenOptions::new().read(true).write(true).open(self.root.join(name)).unwrap()
    }

    fn write_share(&mut self, rng: &mut Rng) {
        let name = rng.pick(&["one", "another"]);
        let start = rng.below(SHARE);
        let data = rng.bytes(SHARE - start + 1);
        let at = (self.thread * SHARE + start) as u64;
        self.share(name).write_all_at(&data, at).unwrap();
        self.bytes[start..start + data.len()].copy_from_slice(&data);
    }

    /// What this thread wrote through one name it reads through the other.
    fn read_share(&mut self, rng: &mut Rng) {
        let mut read = vec![0; SHARE];
        let file = self.share(rng.pick(&["one", "another"]));
        file.read_exact_at(&mut read, (self.thread * SHARE) as u64).unwrap();
        assert!(read == self.bytes, "thread {} does not read what it wrote", self.thread);
    }

    /// A file of this thread's own name is made or removed among those of the others.
    fn come_or_go(&mut self, rng: &mut Rng) {
        let name = format!("{}-{}", self.thread, rng.below(8));
        let path = self.root.join("here").join(&name);
        if self.here.remove(&name) {
            fs::remove_file(&path).unwrap();
        } else {
            File::create_new(&path).unwrap();
            self.here.insert(name);
        }
    }

    /// A file of this thread's own name goes to the other directory, or changes places.
    fn cross(&mut self, rng: &mut Rng) {
        let name = format!("{}-{}", self.thread, rng.below(8));
        let (here, there) =
            (self.root.join("here").join(&name), self.root.join("there").join(&name));
        let rename = |from: &Path, to: &Path, flags| {
            rustix::fs::renameat_with(CWD, from, CWD, to, flags).unwrap();
        };
        match (self.here.contains(&name), self.there.contains(&name)) {
            (true, true) => rename(&here, &there, RenameFlags::EXCHANGE),
            (true, false) => {
                rename(&here, &there, RenameFlags::NOREPLACE);
                self.here.remove(&name);
                self.there.insert(name);
            }
            (false, true) => {
                rename(&there, &here, RenameFlags::empty());
                self.there.remove(&name);
                self.here.insert(name);
            }
            (false, false) => {}
        }
    }

    /// All threads make the same directories, one after the other; each is made once.
    fn race(&mut self) {
        let path = self.root.join(format!("race-{}", self.rounds));
        match fs::create_dir(&path) {
            Ok(()) => self.won += 1,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("mkdir {}: {error}", path.display()),
        }
        self.rounds += 1;
    }
}

/// Compares what is there with what all threads did.
pub(crate) fn check(mounted: &Path, workers: &[&Worker]) {
    let root = mounted.join(DIR);
    let log = fs::read_to_string(root.join("log")).unwrap();
    let records: usize = workers.iter().map(|worker| worker.records).sum();
    assert_eq!(log.lines().count(), records, "records in the log");
    for worker in workers {
        let own = format!("{:02} ", worker.thread);
        let numbers: Vec<usize> = log
            .lines()
            .filter_map(|line| line.strip_prefix(&own))
            .map(|n| n.parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..worker.records).collect::<Vec<_>>(), "of thread {}", worker.thread);
    }
    let counted: u64 = workers.iter().map(|worker| worker.counted).sum();
    assert_eq!(fs::read_to_string(root.join("counter")).unwrap(), counted.to_string());
    let bytes: Vec<u8> = workers.iter().flat_map(|worker| worker.bytes.clone()).collect();
    for name in ["one", "another"] {
        assert!(fs::read(root.join(name)).unwrap() == bytes, "{name} is not what was written");
    }
    for (dir, of) in
        [("here", (|w| &w.here) as fn(&Worker) -> &BTreeSet<String>), ("there", |w| &w.there)]
    {
        let expected: Vec<String> = workers
            .iter()
            .flat_map(|worker| of(worker))
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(names(root.join(dir)), expected, "{dir}");
    }
    let made = workers.iter().map(|worker| worker.rounds).max().unwrap_or(0);
    let won: usize = workers.iter().map(|worker| worker.won).sum();
    assert_eq!(won, made, "each directory is made by one thread");
    let races = names(&root).iter().filter(|name| name.starts_with("race-")).count();
    assert_eq!(races, made);
}
