//! `commit`: an image from a container.

use clap::Args;

use crate::error::{Error, Result};
use crate::image::{Instruction, Reference};
use crate::store::CommitOptions;

use super::progress::Progress;
use super::{Context, output};

/// Make an image of what a container changed
///
/// Prints the id of the new image. What programs write meanwhile may be in it or not; unmount
/// the container first where that matters.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs commit -m 'add a greeting' \
                        -c 'CMD [\"cat\", \"/etc/greeting\"]' box hello:1")]
pub(super) struct Commit {
    /// Name, id or start of an id of a container
    container: String,
    /// Name of the image [default: none]
    name: Option<String>,
    #[command(flatten)]
    how: How,
    /// Make one layer of the whole tree instead of one more layer with what changed
    #[arg(long)]
    squash: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// What commit and import say of the image that they make.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Author, as "Name <name@example.com>"
    #[arg(short, long)]
    author: Option<String>,
    /// What was done
    #[arg(short, long)]
    message: Option<String>,
    /// Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Time of the image, in seconds since 1970, and latest time of the files in its layer
    /// [default: SOURCE_DATE_EPOCH, or now]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timestamp: Option<i64>,
}

impl How {
    pub(super) fn options(self, name: Option<&str>, squash: bool) -> Result<CommitOptions> {
        let changes = self.change.iter().map(|text| {
            Instruction::parse(text).map_err(|error| Error::option("--change", error.to_string()))
        });
        Ok(CommitOptions {
            reference: name.map(reference).transpose()?,
            author: self.author,
            message: self.message,
            changes: changes.collect::<Result<_>>()?,
            squash,
            timestamp: self.timestamp,
        })
    }
}

/// A name that an image is to get.
pub(super) fn reference(name: &str) -> Result<Reference> {
    Reference::parse(name).map_err(|error| Error::Refused(error.to_string()))
}

impl Commit {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let options = self.how.options(self.name.as_deref(), self.squash)?;
        let progress = Progress::time("Committing", self.quiet);
        let id = context.store()?.commit(&self.container, &options)?;
        drop(progress);
        output::print_line(&id.to_string())
    }
}
