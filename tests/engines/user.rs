//! An ordinary user of the machine, for engines without root's rights.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal};

use super::{PLYFS, Room, documented_block, room, run, wait_until};

const NAME: &str = "plyfs-tester";

/// How many were made: each test has a user of its own, whose processes it can tell.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A user who is known in the room alone, with a home there, subordinate ids as the document has
/// them made, and a `/dev/fuse` that everybody may open; the mount program is where the package
/// has it.
#[derive(Debug)]
pub(crate) struct User {
    id: u32,
    home: PathBuf,
    runtime: PathBuf,
}

impl User {
    pub(crate) fn make(inside: &Room) -> User {
        User::with_ids_from(inside, 20_000)
    }

    /// One whose id is larger than the number of his subordinate ids, as a directory gives them.
    pub(crate) fn with_large_id(inside: &Room) -> User {
        User::with_ids_from(inside, 1_000_000)
    }

    fn with_ids_from(inside: &Room, first: u32) -> User {
        for place in ["/etc", "/usr/bin"] {
            inside.own(place);
        }
        room::install(Path::new(PLYFS), "/usr/bin/fuse-plyfs");
        // podman would take it unasked where the kernel's driver is wanted.
        if Path::new("/usr/bin/fuse-overlayfs").exists() {
            fs::remove_file("/usr/bin/fuse-overlayfs").unwrap();
        }
        let device = inside.path("fuse");
        run(Command::new("mknod").args(["-m", "666"]).arg(&device).args(["c", "10", "229"]));
        rustix::mount::mount_bind(&device, "/dev/fuse").unwrap();

        let home = inside.dir("home");
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let id = first + std::process::id() % 2500 * 16 + number;
        run(Command::new("groupadd").args(["--gid", &id.to_string(), NAME]));
        // Such a user is given no subordinate ids by the program itself.
        let mut add = Command::new("useradd");
        add.args(["--system", "--no-log-init", "--no-create-home", "--uid", &id.to_string()]);
        add.args(["--gid", NAME]);
        run(add.arg("--home-dir").arg(&home).arg(NAME));
        let ids = documented_block("podman rootless", "sh");
        run(Command::new("sh").args(["-e", "-c", &ids]).env("NAME", NAME));
        let runtime = PathBuf::from(format!("/run/user/{id}"));
        fs::create_dir_all(&runtime).unwrap();
        let user = User { id, home, runtime };
        user.own(&user.home);
        user.own(&user.runtime);
        user
    }

    /// A directory in his home.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.home.join(name);
        let mut made = self.home.clone();
        for part in Path::new(name) {
            made.push(part);
            if !made.exists() {
                fs::create_dir(&made).unwrap();
                self.own(&made);
            }
        }
        dir
    }

    /// Gives him what was made for him.
    fn own(&self, path: &Path) {
        chown(path, Some(self.id), Some(self.id)).unwrap();
    }

    /// A program as he runs it after a login.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        let id = self.id.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", program]);
        command.env_clear().current_dir(&self.home);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("HOME", &self.home).env("USER", NAME).env("XDG_RUNTIME_DIR", &self.runtime);
        command
    }

    /// His processes: their ids and programs.
    fn processes(&self) -> Vec<(Pid, PathBuf)> {
        let of = |process: PathBuf| {
            let status = fs::read_to_string(process.join("status")).ok()?;
            let his = status.lines().any(|line| line.starts_with(&format!("Uid:\t{}\t", self.id)));
            let exe = fs::read_link(process.join("exe")).ok().filter(|_| his)?;
            Some((Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?)?, exe))
        };
        fs::read_dir("/proc").unwrap().filter_map(|entry| of(entry.unwrap().path())).collect()
    }

    /// Whether a mount program serves him.
    fn is_served(&self) -> bool {
        self.processes().iter().any(|(_, exe)| exe.file_name().is_some_and(|n| n == "fuse-plyfs"))
    }
}

/// podman keeps a process that holds his namespaces.
impl Drop for User {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            wait_until("the user's mount daemons to end", || !self.is_served());
        }
        for (pid, _) in self.processes() {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
    }
}
