//! The two ways to ask for JSON.

use clap::{Args, ValueEnum};

/// `--json`, and docker's way to say the same.
#[derive(Debug, Args)]
pub(super) struct JsonFlag {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How to print
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// As --json does
    Json,
}

impl JsonFlag {
    /// Whether JSON is wanted.
    pub(super) fn is_set(&self) -> bool {
        self.json || self.format == Some(Format::Json)
    }
}
