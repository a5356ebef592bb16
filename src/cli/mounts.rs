//! Verbs on mounts: mount, umount.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};

use super::{Context, output};

/// The program that serves mounts.
const DAEMON: &str = "fuse-plyfs";

/// Mount a container and print where
///
/// The mount is served by a daemon in the background until it is unmounted. One that is mounted
/// already stays where it is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dir=$(plyfs mount box)\n  plyfs mount box /mnt")]
pub(super) struct Mount {
    /// Name, id or start of an id
    container: String,
    /// Directory to mount on [default: one in the store]
    directory: Option<PathBuf>,
}

impl Mount {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let place = store.mount(&self.container, self.directory.as_deref(), &daemon()?)?;
        let mut line = output::path_bytes(place.as_os_str().as_bytes());
        line.push(b'\n');
        output::print(line)
    }
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
    /// Names, ids or starts of ids of containers, or directories that are mounted on (with a
    /// slash in them)
    #[arg(required = true, value_name = "CONTAINER|DIR")]
    targets: Vec<String>,
}

impl Umount {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        output::for_each(&self.targets, |target| store.umount(target))
    }
}
