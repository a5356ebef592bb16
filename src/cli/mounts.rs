//! Verbs on mounts: mount, umount.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::error::{Error, Result};
use crate::store::{MountDriver, State, Store};

use super::{Context, output};

/// The program that serves mounts.
const DAEMON: &str = "fuse-plyfs";

/// Mount a container and print where
///
/// The mount is served by a daemon in the background until it is unmounted, or by the kernel's
/// overlayfs. A container that is mounted already stays where it is. Without a container, those
/// that are mounted are listed, each with where.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dir=$(plyfs mount box)\n  plyfs mount --driver auto box /mnt")]
pub(super) struct Mount {
    /// Name, id or start of an id
    container: Option<String>,
    /// Directory to mount on [default: one in the store]
    directory: Option<PathBuf>,
    /// What serves the mount
    #[arg(long, value_enum, default_value = "fuse")]
    driver: Driver,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Driver {
    /// The daemon fuse-plyfs
    Fuse,
    /// The kernel's overlayfs; refused where it would show another tree
    Kernel,
    /// The kernel's overlayfs where it lacks nothing that the container uses, else the daemon
    Auto,
}

impl Mount {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let Some(container) = &self.container else { return list(&store) };
        let daemon = match self.driver {
            Driver::Kernel => PathBuf::new(),
            Driver::Fuse | Driver::Auto => daemon()?,
        };
        let driver = match self.driver {
            Driver::Fuse => MountDriver::Fuse(&daemon),
            Driver::Kernel => MountDriver::Kernel,
            Driver::Auto => MountDriver::Auto(&daemon),
        };
        let place = store.mount(container, self.directory.as_deref(), driver)?;
        let mut line = output::path_bytes(place.as_os_str().as_bytes());
        line.push(b'\n');
        output::print(line)
    }
}

/// Prints the places of all mounted containers, as podman does.
fn list(store: &Store) -> Result<()> {
    for container in store.containers()? {
        if let State::Mounted(places) = store.state(&container)? {
            for place in places {
                let mut line = format!("{} ", container.id.short()).into_bytes();
                line.extend(output::path_bytes(place.as_os_str().as_bytes()));
                line.push(b'\n');
                output::print(line)?;
            }
        }
    }
    Ok(())
}

/// The daemon that lies beside this program; else the one in PATH.
pub(super) fn daemon() -> Result<PathBuf> {
    let own = std::env::current_exe();
    let own = own.map_err(|error| Error::std_io("find", "the running program", &error))?;
    let sibling = own.with_file_name(DAEMON);
    if sibling.is_file() {
        return Ok(sibling);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(DAEMON))
        .find(|place| place.is_absolute() && place.is_file());
    found.ok_or_else(|| Error::NotFound {
        kind: "program",
        name: format!("{DAEMON} (neither beside {} nor in PATH)", own.display()),
    })
}

/// Unmount containers
///
/// Returns when the daemon has written everything and ended.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs umount box\n  plyfs umount /mnt")]
pub(super) struct Umount {
    /// Names, ids or starts of ids of containers, or directories that are mounted on
    #[arg(required = true, value_name = "CONTAINER|DIR")]
    targets: Vec<String>,
}

impl Umount {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        output::for_each(&self.targets, |target| store.umount(target))
    }
}
