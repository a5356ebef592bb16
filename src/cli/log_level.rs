//! `log-level`: what a running daemon logs.

use clap::Args;

use crate::error::Result;
use crate::fuse::control::Control;

use super::{Context, output, stats};

/// Show or change what the daemon of a mount logs
///
/// The log of a daemon in the background goes to the system's log (journalctl -t fuse-plyfs).
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs log-level box debug")]
pub(super) struct LogLevel {
    /// Container, or a directory on a mount
    #[arg(value_name = "CONTAINER|DIR")]
    target: String,
    /// error, warn, info, debug, trace, off, or directives such as warn,plyfs::fuse=debug
    level: Option<String>,
}

impl LogLevel {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let place = stats::place_of(context, &self.target)?;
        let control = Control::open(&place)?;
        match self.level {
            Some(level) => control.set_log(&level),
            None => output::print_line(&control.snapshot()?.log),
        }
    }
}
