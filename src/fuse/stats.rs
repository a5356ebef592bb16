//! What a daemon did so far: requests by kind with their latencies, and what the overlay counts.
//!
//! | file | what it holds |
//! |---|---|
//! | `histogram` | latencies in logarithmic buckets, written by one thread without waiting |
//! | `snapshot` | all figures at one moment, as data and as JSON |
//! | `text`, `prometheus` | the same for people and for monitoring |
//! | `socket` | giving them to whoever connects |
//!
//! Each serving thread writes its own [`Recorder`], so that counting a request costs a few plain
//! stores; the threads measure nothing that they had not measured before.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::abi::opcode;

mod histogram;
pub mod prometheus;
mod snapshot;
mod socket;
mod text;

use histogram::Histogram;
pub use snapshot::{Latencies, Passthrough, RequestKind, Snapshot};
pub(super) use socket::Socket;

/// One more than the largest opcode; what is beyond is counted under 0.
const KINDS: usize = 64;

/// The requests that one thread served, by opcode.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Made with the first request of a kind: most threads meet few kinds.
    kinds: [OnceLock<Box<Histogram>>; KINDS],
}

impl Recorder {
    fn new() -> Recorder {
        Recorder { kinds: [const { OnceLock::new() }; KINDS] }
    }

    /// Counts one request that took `time` from being read until its answer was ready. Only the thread
    /// that has this recorder may call it.
    pub(super) fn note(&self, opcode: u32, time: Duration, failed: bool) {
        let kind = self.kinds.get(opcode as usize).or(self.kinds.first());
        if let Some(kind) = kind {
            kind.get_or_init(Box::default).note(time, failed);
        }
    }
}

/// All recorders of one mount.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) started: Instant,
    recorders: Mutex<Recorders>,
    /// Requests that ended in a panic.
    panics: AtomicU64,
}

#[derive(Debug, Default)]
struct Recorders {
    all: Vec<Arc<Recorder>>,
    /// Those whose threads ended; the next thread goes on with one of them.
    free: Vec<Arc<Recorder>>,
}

impl Board {
    pub(super) fn new() -> Board {
        let (started, panics) = (Instant::now(), AtomicU64::new(0));
        Board { started, recorders: Mutex::default(), panics }
    }

    /// A recorder for the calling thread alone, to be given back at its end.
    pub(super) fn lend(&self) -> Arc<Recorder> {
        let mut recorders = self.recorders.lock();
        recorders.free.pop().unwrap_or_else(|| {
            let new = Arc::new(Recorder::new());
            recorders.all.push(new.clone());
            new
        })
    }

    pub(super) fn give_back(&self, recorder: Arc<Recorder>) {
        self.recorders.lock().free.push(recorder);
    }

    pub(super) fn note_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Serving threads at present.
    pub(super) fn threads(&self) -> u64 {
        let recorders = self.recorders.lock();
        (recorders.all.len() - recorders.free.len()) as u64
    }

    /// The requests of all threads, those of kinds that never came left out.
    pub(super) fn requests(&self) -> Vec<RequestKind> {
        let recorders = self.recorders.lock().all.clone();
        let of_kind = |opcode: usize| {
            let histograms = recorders.iter().filter_map(|r| r.kinds.get(opcode)?.get());
            let mut sum = histogram::Sum::default();
            histograms.for_each(|histogram| sum.add(histogram));
            (sum.count() > 0).then(|| RequestKind::new(name(opcode as u32), &sum))
        };
        (0..KINDS).filter_map(of_kind).collect()
    }
}

/// What an operation is called in `linux/fuse.h`, in small letters.
pub(super) fn name(code: u32) -> &'static str {
    match code {
        opcode::LOOKUP => "lookup",
        opcode::FORGET => "forget",
        opcode::GETATTR => "getattr",
        opcode::SETATTR => "setattr",
        opcode::READLINK => "readlink",
        opcode::SYMLINK => "symlink",
        opcode::MKNOD => "mknod",
        opcode::MKDIR => "mkdir",
        opcode::UNLINK => "unlink",
        opcode::RMDIR => "rmdir",
        opcode::RENAME => "rename",
        opcode::LINK => "link",
        opcode::OPEN => "open",
        opcode::READ => "read",
        opcode::WRITE => "write",
        opcode::STATFS => "statfs",
        opcode::RELEASE => "release",
        opcode::FSYNC => "fsync",
        opcode::SETXATTR => "setxattr",
        opcode::GETXATTR => "getxattr",
        opcode::LISTXATTR => "listxattr",
        opcode::REMOVEXATTR => "removexattr",
        opcode::FLUSH => "flush",
        opcode::OPENDIR => "opendir",
        opcode::READDIR => "readdir",
        opcode::RELEASEDIR => "releasedir",
        opcode::FSYNCDIR => "fsyncdir",
        opcode::GETLK => "getlk",
        opcode::SETLK => "setlk",
        opcode::SETLKW => "setlkw",
        opcode::ACCESS => "access",
        opcode::CREATE => "create",
        opcode::INTERRUPT => "interrupt",
        opcode::DESTROY => "destroy",
        opcode::IOCTL => "ioctl",
        opcode::POLL => "poll",
        opcode::BATCH_FORGET => "batch_forget",
        opcode::FALLOCATE => "fallocate",
        opcode::READDIRPLUS => "readdirplus",
        opcode::RENAME2 => "rename2",
        opcode::LSEEK => "lseek",
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => "copy_file_range",
        opcode::SYNCFS => "syncfs",
        opcode::TMPFILE => "tmpfile",
        opcode::STATX => "statx",
        _ => "other",
    }
}
