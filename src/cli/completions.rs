//! `completions`: what a shell must know to complete the command line.

use clap::{Args, CommandFactory};

use crate::error::Result;

use super::{Cli, output};

/// Print a script by which a shell completes plyfs commands
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs completions bash >/etc/bash_completion.d/plyfs\n  \
                        plyfs completions fish >~/.config/fish/completions/plyfs.fish")]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "plyfs", &mut script);
        output::print(script)
    }
}
