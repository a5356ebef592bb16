//! Processes: umask, limits, going to the background.

#![expect(unsafe_code, reason = "fork and dup2 onto the standard descriptors have no safe wrapper")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions};
use rustix::thread::CapabilitySet;

use super::OwnedFd;
use super::file_handle::last_errno;
use crate::error::{Errno, FsResult};

/// Clears this process's umask, so that the modes that clients ask for are the modes they get.
pub fn clear_umask() {
    rustix::process::umask(Mode::empty());
}

/// Calls `make` under another umask, so that what it makes has fewer rights from the start. The
/// umask is one for all threads.
pub fn with_umask<T>(mask: u32, make: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(Mode::from_raw_mode(mask));
    let made = make();
    rustix::process::umask(before);
    made
}

/// Raises the limit of open files as far as this process may.
pub fn raise_open_files() -> FsResult<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)
}

/// Makes the kernel's table of this process's descriptors long enough for `most`, or as many as it may
/// open. The table grows by doubling, and where threads share it whoever opens the one that is too many
/// waits for a grace period of RCU each time, 5 to 15 ms. To be called before there are threads: then
/// nothing is waited for. `fd` is any that is open.
pub fn reserve_descriptors(fd: impl AsFd, most: u64) -> FsResult<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(most);
    let last = limit.min(most).saturating_sub(1);
    let last = i32::try_from(last).map_err(|_| Errno::INVAL)?;
    rustix::io::fcntl_dupfd_cloexec(fd, last).map(drop)
}

/// Whether this process acts as root of the initial user namespace, as far as it can tell: some
/// of root's rights may be missing still.
pub fn is_initial_root() -> bool {
    rustix::process::geteuid().is_root() && in_initial_user_namespace()
}

fn in_initial_user_namespace() -> bool {
    let all = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(all)
}

/// Whether `group` is a supplementary group of the process or thread `pid`; "no" of one that is
/// unknown here.
pub fn is_member(pid: u32, group: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().any(|word| word.parse() == Ok(group))
}

/// Whether this process may read and write `trusted.*` xattrs: it has `CAP_SYS_ADMIN` in the
/// initial user namespace.
pub fn may_use_trusted_xattrs() -> bool {
    let held = rustix::thread::capabilities(None);
    in_initial_user_namespace()
        && held.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether the modes of files do not bind this process (`CAP_DAC_OVERRIDE`), in its user namespace
/// at least.
pub fn overrides_modes() -> bool {
    let held = rustix::thread::capabilities(None);
    held.is_ok_and(|sets| sets.effective.contains(CapabilitySet::DAC_OVERRIDE))
}

/// Whether the process `pid` is in the pid namespace of this one; not where that cannot be known.
///
/// Its status says which number it has in each namespace from ours down to its own: one, where these
/// are the same. The links in `/proc/PID/ns` would take the right to trace it.
pub fn shares_pid_namespace(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1)
}

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Side {
    /// The process that called, and its new child.
    Parent(Child),
    /// The new process.
    Child,
}

/// A child of this process.
#[derive(Debug)]
pub struct Child(Pid);

impl Child {
    /// Waits until it ends; its exit code, or `None` where a signal ended it.
    pub fn wait(self) -> FsResult<Option<i32>> {
        loop {
            match rustix::process::waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(status.exit_status()),
                Ok(None) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Doubles this process, which must not have other threads: they would be missing in the child
/// with whatever locks they hold.
///
/// # Errors
/// `EBUSY` where there are other threads.
pub fn fork() -> FsResult<Side> {
    // Beside the two names that each directory has, one for each thread.
    let links = super::stat::stat_at(rustix::fs::CWD, "/proc/self/task".as_ref());
    if links.is_ok_and(|tasks| tasks.nlink > 3) {
        return Err(Errno::BUSY);
    }
    // SAFETY: there is one thread only, so that the child's memory is as consistent as ours.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => Ok(Side::Child),
        pid => Pid::from_raw(pid).map(|pid| Side::Parent(Child(pid))).ok_or(Errno::CHILD),
    }
}

/// Leaves the caller's session, working directory and standard streams: nothing that waits for
/// the end of one of them waits for this process any more.
pub fn detach() -> FsResult<()> {
    // Fails only for the leader of a process group, which a fresh child is not; one that is
    // has a session of its own already or wants to stay in the one it leads.
    if let Err(errno) = rustix::process::setsid()
        && errno != Errno::PERM
    {
        return Err(errno);
    }
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for standard in 0..=2 {
        replace(&null, standard)?;
    }
    Ok(())
}

fn replace(with: &OwnedFd, standard: i32) -> FsResult<()> {
    // SAFETY: only the standard streams are replaced; the standard library expects no more of
    // them than that they are open.
    let result = unsafe { libc::dup2(with.as_raw_fd(), standard) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// From this size on memory is mapped by itself: the buffers of requests, of which most pages are
/// never touched. On the heap they would be cleared at each start.
const MAPPED_FROM: libc::c_int = 512 << 10;

/// Keeps what threads allocate in one heap. With one heap for each thread, memory that one
/// thread frees is not used again by the others, and a daemon grows with each walk of its tree.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets parameters of the allocator; called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}

/// Gives memory that was freed back to the system.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator's own lock protects it.
    unsafe {
        libc::malloc_trim(0);
    }
}
