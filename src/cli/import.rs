//! Verbs that make or name images from what is at hand: import, tag.

use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::store::Source;

use super::commit::{How, reference};
use super::images::standard_input;
use super::{Context, output};

/// Make an image of the tar of a root filesystem
///
/// The tar, plain or compressed, becomes the only layer as it is. Prints the id of the image.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  plyfs import -c 'CMD [\"/bin/sh\"]' rootfs.tar.xz debian:mine\n  \
                  tar c -C rootfs . | plyfs import - debian:mine"
)]
pub(super) struct Import {
    /// File to read; - for standard input
    file: PathBuf,
    /// Name of the image [default: none]
    name: Option<String>,
    #[command(flatten)]
    how: How,
    /// Has no effect: no progress is shown
    #[arg(short, long)]
    quiet: bool,
}

impl Import {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let options = self.how.options(self.name.as_deref(), false)?;
        let source = match self.file.as_os_str() == "-" {
            true => Source::Stream(standard_input()?),
            false => Source::Path(&self.file),
        };
        let id = context.store()?.import(source, &options)?;
        output::print_line(&id.to_string())
    }
}

/// Give an image one more name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs tag busybox:1.35 registry.example.com/base:1")]
pub(super) struct Tag {
    /// Name, id or start of an id
    image: String,
    /// The new name; an image that has it loses it
    name: String,
}

impl Tag {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let name = reference(&self.name)?;
        context.store()?.tag(&self.image, name).map(drop)
    }
}
