//! What a stretch of work costs: time, the work of processors here and in the daemon, requests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plyfs::fuse::control::Control;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Job;

/// The cost of all operations of a stretch together.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) nanos: u64,
    /// Processor time of this process and of those that it started.
    pub(crate) client_nanos: u64,
    /// Processor time of the daemon, where there is one.
    pub(crate) daemon_nanos: Option<u64>,
    /// Requests of the kernel to the daemon, where that counts them; without those by which the
    /// kernel forgets.
    pub(crate) requests: Option<u64>,
}

/// Begun just before the work that counts.
pub(crate) struct Meter {
    root: PathBuf,
    daemon: Option<u32>,
    requests: Option<u64>,
    daemon_nanos: Option<u64>,
    client_nanos: u64,
    start: Instant,
}

impl Meter {
    pub(crate) fn begin(job: &Job) -> Meter {
        let requests = requests(&job.root);
        let daemon_nanos = job.daemon.and_then(daemon_nanos);
        Meter {
            root: job.root.clone(),
            daemon: job.daemon,
            requests,
            daemon_nanos,
            client_nanos: client_nanos(),
            start: Instant::now(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// To be called when the work is done.
    pub(crate) fn end(self) -> Cost {
        let nanos = self.start.elapsed().as_nanos() as u64;
        let client_nanos = client_nanos() - self.client_nanos;
        let since = |before: Option<u64>, now: Option<u64>| Some(now?.saturating_sub(before?));
        let daemon_nanos = since(self.daemon_nanos, self.daemon.and_then(daemon_nanos));
        let requests = since(self.requests, requests(&self.root));
        Cost { nanos, client_nanos, daemon_nanos, requests }
    }
}

/// Of this process to the nanosecond, of ended children in ticks of the clock.
fn client_nanos() -> u64 {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = own.tv_sec as u64 * 1_000_000_000 + own.tv_nsec as u64;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    own + ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// What all threads of a process that live now have run.
fn daemon_nanos(id: u32) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).ok()?;
    let of_thread = |thread: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Some(threads.flatten().filter_map(of_thread).sum())
}

fn requests(root: &Path) -> Option<u64> {
    let figures = Control::open(root).ok()?.snapshot().ok()?;
    let counts = |kind: &str| !["ioctl", "forget", "batch_forget"].contains(&kind);
    Some(figures.requests.iter().filter(|one| counts(&one.kind)).map(|one| one.count).sum())
}
