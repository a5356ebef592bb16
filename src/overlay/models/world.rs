//! The layers that the models work on, requests on them, and how a model is run.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::thread::{self, JoinHandle};

use crate::error::Errno;
use crate::overlay::options::UpperOption;
use crate::overlay::{Caller, NodeId, Options, Overlay, With};
use crate::sys::OFlags;

pub(super) const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1 };

pub(super) fn n(name: &str) -> &OsStr {
    OsStr::new(name)
}

pub(super) fn is_device(meta: &fs::Metadata) -> bool {
    meta.file_type().is_char_device()
}

/// Two directories with files in a lower, and a file with two names.
pub(super) struct World {
    pub dir: tempfile::TempDir,
    pub fs: Arc<Overlay>,
}

impl World {
    pub fn new() -> World {
        World::with(|_| ())
    }

    pub fn with(choose: impl FnOnce(&mut Options)) -> World {
        // In memory where that is possible: thousands of them are made.
        let memory = PathBuf::from("/dev/shm");
        let dir = tempfile::tempdir_in(if memory.is_dir() { memory } else { std::env::temp_dir() });
        let dir = dir.unwrap();
        for sub in ["lower/a", "lower/b", "upper", "work"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        for file in ["f", "a/x", "b/y", "one"] {
            fs::write(dir.path().join("lower").join(file), "below").unwrap();
        }
        fs::hard_link(dir.path().join("lower/one"), dir.path().join("lower/two")).unwrap();
        let (upperdir, workdir) = (dir.path().join("upper"), dir.path().join("work"));
        let mut options = Options {
            lowerdirs: vec![dir.path().join("lower")],
            upper: Some(UpperOption { upperdir, workdir }),
            volatile: true,
            ..Options::default()
        };
        choose(&mut options);
        let fs = Arc::new(Overlay::new(&options).unwrap());
        World { dir, fs }
    }

    pub fn spawn<T: 'static>(
        &self,
        work: impl FnOnce(&Overlay) -> T + Send + 'static,
    ) -> JoinHandle<T>
    where
        T: Send,
    {
        let fs = Arc::clone(&self.fs);
        thread::spawn(move || work(&fs))
    }

    /// What holds whatever threads did, once they have given back all that they looked up.
    pub fn nothing_is_left(&self) {
        assert_eq!(self.fs.live_nodes(), 1, "nodes that nobody holds are kept");
        assert_eq!(self.fs.figures().open_files, 0);
        let staged: Vec<_> = fs::read_dir(self.dir.path().join("work/work"))
            .unwrap()
            .map(Result::unwrap)
            // The whiteout that further ones are made of by linking it.
            .filter(|entry| {
                entry.file_name() != "incompat" && !is_device(&entry.metadata().unwrap())
            })
            .map(|entry| entry.file_name())
            .collect();
        assert!(staged.is_empty(), "left in staging: {staged:?}");
    }
}

/// What a request needs of the file `path`: its node, while it is looked up.
pub(super) fn on<T>(fs: &Overlay, path: &str, work: impl FnOnce(NodeId) -> T) -> Result<T, Errno> {
    let mut held = vec![NodeId::ROOT];
    let mut found = Ok(());
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match fs.lookup(*held.last().unwrap(), n(name)) {
            Ok(entry) => held.push(entry.node),
            Err(errno) => {
                found = Err(errno);
                break;
            }
        }
    }
    let done = found.map(|()| work(*held.last().unwrap()));
    for node in held.into_iter().skip(1) {
        fs.forget(node, 1);
    }
    done
}

pub(super) fn write(fs: &Overlay, node: NodeId, text: &str) -> Result<(), Errno> {
    let opened = fs.open(node, OFlags::RDWR, false)?;
    let written = fs.write(opened.handle.into(), 0, text.as_bytes(), OFlags::empty());
    fs.release(opened.handle);
    written.map(|length| assert_eq!(length, text.len()))
}

pub(super) fn content(fs: &Overlay, path: &str) -> Result<String, Errno> {
    on(fs, path, |node| {
        let opened = fs.open(node, OFlags::RDONLY, false)?;
        let mut buffer = [0; 64];
        let length = fs.read(opened.handle.into(), 0, &mut buffer);
        fs.release(opened.handle);
        Ok(String::from_utf8_lossy(&buffer[..length?]).into_owned())
    })?
}

pub(super) fn names(fs: &Overlay, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    on(fs, path, |dir| {
        fs.readdir(dir, 0, With::Nothing, &mut |entry| {
            names.push(entry.name.to_str().unwrap().to_owned());
            true
        })
    })
    .unwrap()
    .unwrap();
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

/// Runs a model: half of the times in orders that are random at each step, half in such with few
/// changes of the thread, which find what needs many steps of one.
pub(super) fn explore(model: fn()) {
    let stack_size = 1 << 20;
    let config = || {
        let mut config = shuttle::Config::new();
        config.stack_size = stack_size;
        config.silence_warnings = true;
        config
    };
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        shuttle::Runner::new(scheduler, config()).run(model);
    };
    if let Ok(schedule) = std::env::var("PLYFS_MODELS_SCHEDULE") {
        return run(Box::new(ReplayScheduler::new_from_encoded(&schedule)));
    }
    let runs = std::env::var("PLYFS_MODELS_RUNS").map_or(400, |runs| runs.parse().unwrap());
    let seed = 7;
    run(Box::new(RandomScheduler::new_from_seed(seed, runs / 2)));
    run(Box::new(PctScheduler::new_from_seed(seed, 3, runs / 2)));
}
