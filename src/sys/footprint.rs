//! What a process takes: memory, processor time, descriptors (proc(5)).

use serde::{Deserialize, Serialize};

use crate::error::{Errno, FsResult, errno_of};

/// What this process takes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Memory that is resident, in bytes; pages of files that others use as well are in it.
    pub resident_bytes: u64,
    /// The part of it that belongs to no file: heap and stacks.
    pub anonymous_bytes: u64,
    /// Processor time in user mode, in seconds.
    pub user_seconds: f64,
    /// Processor time in the kernel, in seconds.
    pub system_seconds: f64,
    /// Open descriptors.
    pub descriptors: u64,
    /// How many there may be.
    pub descriptor_limit: u64,
}

impl Footprint {
    /// That of this process.
    ///
    /// # Errors
    /// Where procfs is not mounted.
    pub fn own() -> FsResult<Footprint> {
        let read = |path| std::fs::read_to_string(path).map_err(|error| errno_of(&error));
        let status = read("/proc/self/status")?;
        let (user_seconds, system_seconds) = times(&read("/proc/self/stat")?).ok_or(Errno::IO)?;
        let descriptors = std::fs::read_dir("/proc/self/fd").map_err(|error| errno_of(&error))?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Ok(Footprint {
            resident_bytes: kilobytes(&status, "VmRSS:").unwrap_or(0),
            anonymous_bytes: kilobytes(&status, "RssAnon:").unwrap_or(0),
            user_seconds,
            system_seconds,
            // The one that reads the directory is among them.
            descriptors: descriptors.count().saturating_sub(1) as u64,
            descriptor_limit: limit.current.unwrap_or(u64::MAX),
        })
    }
}

/// The value of a line `KEY   NUMBER kB`, in bytes.
fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// User and system time of a line of `/proc/PID/stat`. The second field is a name in
/// parentheses, in which anything may stand.
fn times(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut next = || Some(fields.next()?.parse::<u64>().ok()? as f64 / ticks);
    Some((next()?, next()?))
}
