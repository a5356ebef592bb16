//! All figures of one mount at one moment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::histogram::Sum;
use crate::overlay::counters::Figures;

/// What a daemon did since it mounted, and what it holds. Serialized it is the JSON of
/// `plyfs stats --json`; fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of the daemon.
    pub version: String,
    /// Its process, as it sees itself.
    pub pid: u32,
    /// Where it mounted, as a path of its mount namespace.
    pub mountpoint: PathBuf,
    /// Seconds since it mounted.
    pub uptime_seconds: f64,
    /// What is logged, in the form that `PLYFS_LOG` has.
    pub log: String,
    /// Threads that serve requests.
    pub threads: u64,
    /// Requests that ended in a panic; each is a bug of ours.
    pub panics: u64,
    /// How often processors were kept awake for a time, because requests came one after the other.
    #[serde(default)]
    pub kept_awake: u64,
    /// Requests by kind; kinds that never came are left out.
    pub requests: Vec<RequestKind>,
    /// Which open files the kernel serves by itself.
    pub passthrough: Passthrough,
    /// What the merged filesystem counts.
    pub overlay: Figures,
    /// Memory, processor time and descriptors of the process; absent without procfs.
    pub process: Option<crate::sys::footprint::Footprint>,
}

/// The requests of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestKind {
    /// The operation's name in `linux/fuse.h`, in small letters.
    pub kind: String,
    /// How many were answered.
    pub count: u64,
    /// How many of them with an error. A name that does not exist is none.
    pub errors: u64,
    /// How long they took.
    pub latency: Latencies,
}

/// How long requests took, from being read by the daemon until the reply was ready: the kernel's
/// and the scheduler's part of a round trip is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// All together, in nanoseconds.
    pub total_ns: u64,
    /// What half of them did not exceed, to within a quarter.
    pub p50_ns: u64,
    /// What nine in ten did not exceed.
    pub p90_ns: u64,
    /// What 99 in a hundred did not exceed.
    pub p99_ns: u64,
    /// The slowest.
    pub max_ns: u64,
    /// For powers of two in nanoseconds, up to the slowest: how many were faster.
    pub cumulative: Vec<(u64, u64)>,
}

/// Open files that the kernel reads and writes without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Passthrough {
    /// Opens that were passed through.
    pub passed: u64,
    /// Opens that go through the page cache and the daemon.
    pub cached: u64,
    /// Opens that had to be repeated, because a lower file was in use when it was copied up.
    pub stale: u64,
    /// Backing files that the kernel would not take.
    pub refused: u64,
    /// Backing files in use now.
    pub backing_files: u64,
}

impl RequestKind {
    pub(super) fn new(kind: &str, sum: &Sum) -> RequestKind {
        RequestKind {
            kind: kind.to_owned(),
            count: sum.count(),
            errors: sum.errors,
            latency: Latencies {
                total_ns: sum.total,
                p50_ns: sum.quantile(0.5),
                p90_ns: sum.quantile(0.9),
                p99_ns: sum.quantile(0.99),
                max_ns: sum.longest,
                cumulative: sum.cumulative(),
            },
        }
    }
}

impl Snapshot {
    /// How many requests of a kind were answered.
    pub fn count(&self, kind: &str) -> u64 {
        self.requests.iter().find(|request| request.kind == kind).map_or(0, |r| r.count)
    }
}
