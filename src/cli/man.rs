//! `man`: the manual pages, for those who package.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::error::{Error, Result};

use super::Cli;
use super::fuse_plyfs::FUSE_PLYFS_HELP;

/// Write the manual pages into a directory
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Directory, which is made where it is missing
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<()> {
        let dir = &self.directory;
        std::fs::create_dir_all(dir)
            .map_err(|error| Error::std_io("create directory", dir, &error))?;
        clap_mangen::generate_to(Cli::command(), dir)
            .map_err(|error| Error::std_io("write pages into", dir, &error))?;
        let path = dir.join("fuse-plyfs.1");
        std::fs::write(&path, fuse_plyfs_page())
            .map_err(|error| Error::std_io("write", &path, &error))
    }
}

/// The words of `--help`, as they stand there: its parts are called by their first lines.
fn fuse_plyfs_page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".TH fuse-plyfs 1 \"\" \"plyfs {version}\" \"PlyFS\"\n\
         .SH NAME\nfuse-plyfs \\- mount layers as one merged tree\n"
    );
    for part in FUSE_PLYFS_HELP.split("\n\n") {
        let (title, text) = match part.split_once('\n') {
            Some(("Options:", text)) => ("MOUNT OPTIONS", text),
            _ if part.starts_with("Usage: ") => ("SYNOPSIS", part),
            _ if part.starts_with("  -") => ("OPTIONS", part),
            _ if part.starts_with("Mounts") => ("DESCRIPTION", part),
            _ => ("NOTES", part),
        };
        page.push_str(&format!(".SH {title}\n.nf\n"));
        for line in text.lines() {
            page.push_str(&escaped(line.strip_prefix("Usage: ").unwrap_or(line)));
            page.push('\n');
        }
        page.push_str(".fi\n");
    }
    page.push_str(".SH SEE ALSO\n.BR plyfs (1),\n.BR mount (8)\n");
    page
}

/// A line of text for roff, where backslashes, hyphens and a dot or quote at the start mean more.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
