//! `export`: the tree of a container as a tar archive.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::archive::tar_write;
use crate::error::Result;

use super::layer_list::{LayerList, Subject};
use super::{Context, target};

/// Write the whole tree of a container as a tar archive
///
/// With --lowerdir and, where there is one, --upperdir it works on layers in directories,
/// without a store.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  plyfs export box | tar t\n  plyfs export --lowerdir top:base -o tree.tar"
)]
pub(super) struct Export {
    /// Name, id or start of an id
    #[arg(required_unless_present = "lowerdir")]
    container: Option<String>,
    #[command(flatten)]
    layers: LayerList,
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Export {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let subject = self.layers.or_container(self.container)?;
        let write = |out: &mut dyn Write| match subject {
            Subject::Container(name) => context.store()?.export(&name, out),
            Subject::Layers { lowers, upper } => tar_write::export(&lowers, upper, out),
        };
        target::write(self.output.as_deref(), write)
    }
}
