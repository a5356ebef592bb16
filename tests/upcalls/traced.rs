//! The system calls of a daemon, by strace(1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process whose calls are written down until [`Traced::end`].
pub(crate) struct Traced {
    strace: Child,
    log: PathBuf,
}

impl Traced {
    /// Returns when each of its threads is traced.
    pub(crate) fn begin(process: u32, log: &Path) -> Traced {
        let strace = Command::new("strace")
            .args(["-f", "-q", "-y", "-p", &process.to_string(), "-o"])
            .arg(log)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let traced = Traced { strace, log: log.to_path_buf() };
        let start = Instant::now();
        while !is_traced(process, traced.strace.id()) {
            assert!(start.elapsed() < Duration::from_secs(60), "strace does not attach");
            std::thread::sleep(Duration::from_millis(1));
        }
        traced
    }

    /// The names of the calls since, in order, but for those by which requests come, are answered
    /// and are waited for, and for statfs(2).
    pub(crate) fn end(mut self) -> Vec<String> {
        kill_process(Pid::from_child(&self.strace), Signal::INT).unwrap();
        self.strace.wait().unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines().filter_map(call).map(str::to_owned).collect()
    }
}

/// The name of the call that a line begins, if it is about a file of the layers. A line is
/// `PID NAME(ARGUMENTS`; what goes on with an earlier one begins with `<...`. Memory, threads, clocks
/// and devices (requests, processors that are kept awake) are the daemon's own affair; what is open is
/// closed with the FORGET or the RELEASE, when the kernel has time.
fn call(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let (name, arguments) = rest.trim_start().split_once('(')?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let files = ["open", "stat", "getdents", "seek", "read", "write", "mk", "link"];
    let names = ["rename", "chmod", "chown", "utime", "xattr", "handle", "sync", "truncate"];
    let space = ["fallocate", "copy_file_range", "ioctl", "fcntl"];
    let is_about = |part: &&str| name.contains(part);
    // What strace(1) does not know by name is among the latest: xattrs and modes by directory.
    let is_new = name.starts_with("syscall_0x");
    let counts = is_new || files.iter().chain(&names).chain(&space).any(is_about);
    // A look of the standard library's own in debug builds; and how the end of an operation is told.
    let own = name == "fcntl" && arguments.contains("F_GETFD") || name == "fstatfs";
    (counts && !own && !arguments.contains("</dev/")).then_some(name)
}

fn is_traced(process: u32, tracer: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.contains(&format!("TracerPid:\t{tracer}\n"))
    })
}
