//! `snapshotter`: containerd's images and containers on PlyFS.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::error::Result;
use crate::snapshotter::{Driver, Snapshotter, serve};

use super::{Context, mounts};

/// Serve containerd as a proxy snapshotter
///
/// Stays in the foreground until SIGTERM or SIGINT. Mounts do not depend on it: it may be
/// restarted under running containers. Its snapshots lie in the store, beside images and
/// containers.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  plyfs snapshotter &
  ctr run --snapshotter plyfs ...

In /etc/containerd/config.toml:
  [proxy_plugins.plyfs]
    type = \"snapshot\"
    address = \"/run/plyfs/snapshotter.sock\"")]
pub(super) struct Serve {
    /// Socket to listen at; only its owner may connect
    #[arg(long, value_name = "SOCKET", default_value = "/run/plyfs/snapshotter.sock")]
    address: PathBuf,
    /// What serves mounts of several layers
    #[arg(long, value_enum, default_value = "fuse")]
    driver: Choice,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    /// The daemon fuse-plyfs
    Fuse,
    /// The kernel's overlayfs, without id maps; root only
    Kernel,
    /// The kernel's overlayfs where it can be mounted and ids are not mapped, else the daemon
    Auto,
}

impl Serve {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let driver = match self.driver {
            Choice::Fuse => Driver::Fuse,
            Choice::Kernel => Driver::Kernel,
            Choice::Auto => Driver::Auto,
        };
        let snapshotter = Snapshotter::open(context.store()?, driver, &mounts::daemon()?)?;
        serve(Arc::new(snapshotter), &self.address)
    }
}
