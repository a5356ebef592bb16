//! A mount namespace and a directory in which engines run, so that nothing of the machine's own
//! engines is touched, and nothing stays.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::{PLYFS, run, wait_until};

/// The calling thread's own mount namespace: what it starts lives in it, and sees empty places
/// where engines keep what they have. At the end all mounts are taken off and their daemons'
/// ends are waited for.
#[derive(Debug)]
pub(crate) struct Room {
    dir: tempfile::TempDir,
}

/// Where engines keep things whatever their configuration says.
const PRIVATE: &[&str] = &["/run", "/var/lib/containers"];

impl Room {
    /// Makes the namespace and the directory. The thread stays in it.
    pub(crate) fn enter() -> Room {
        own_mounts();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let room = Room { dir: crate::support::scratch() };
        for place in PRIVATE.iter().filter(|place| Path::new(place).exists()) {
            room.cover(place);
        }
        room
    }

    /// A path in the room's directory, which is made (as is its parent).
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A path in the room's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts an empty directory of the room over a place of the machine.
    pub(crate) fn cover(&self, place: &str) {
        let ours = self.dir(&format!("private{place}"));
        rustix::mount::mount_bind(ours, place).unwrap();
    }

    /// Lets the room change what is at a place of the machine, for itself alone.
    pub(crate) fn own(&self, place: &str) {
        let dir = format!("own{place}");
        let [upper, work] = ["upper", "work"].map(|name| self.dir(&format!("{dir}/{name}")));
        let options =
            format!("lowerdir={place},upperdir={},workdir={}", upper.display(), work.display());
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), Some(&*options))
            .unwrap_or_else(|error| panic!("an overlay on {place}: {error}"));
    }

    /// The mount table's lines whose mountpoint is in the room's directory or covers a place.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let here = self.dir.path().to_str().unwrap().to_owned();
        table.lines().filter(|line| line.contains(&here)).map(str::to_owned).collect()
    }

    /// The mount daemons that serve something in this room, as their command lines.
    pub(crate) fn daemons(&self) -> Vec<(i32, String)> {
        let own = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let program = Path::new(PLYFS);
        let mut found = Vec::new();
        for pid in fs::read_dir("/proc").unwrap().filter_map(|entry| {
            entry.unwrap().file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        }) {
            let here = fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|ns| ns == own);
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if here && (exe == program || exe.file_name() == program.file_name()) {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Takes off all that was mounted below the room's directory, the newest first.
    fn unmount_all(&self) {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let here = self.dir.path().as_os_str().as_bytes().to_owned();
        let points: Vec<PathBuf> = table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| point.as_bytes().starts_with(&here))
            .map(PathBuf::from)
            .collect();
        for point in points.iter().rev() {
            if let Err(error) = rustix::mount::unmount(point, UnmountFlags::DETACH) {
                eprintln!("{}: {error}", point.display());
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.unmount_all();
        if std::thread::panicking() {
            return;
        }
        wait_until("the mount daemons to end", || self.daemons().is_empty());
    }
}

/// Gives the calling thread a mount namespace of its own.
#[expect(unsafe_code, reason = "unshare has no safe wrapper")]
fn own_mounts() {
    // SAFETY: the file descriptor table stays shared; only the view of the mounts is parted.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
}

/// A program that stands at a fixed place in the room, as a package would install it.
pub(crate) fn install(program: &Path, place: &str) {
    run(Command::new("install").args(["-m", "755"]).arg(program).arg(place));
}
