//! `prune`: removes what nobody uses.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;

use crate::error::{Error, Result};
use crate::image::Reference;

use super::{Context, output};

/// Remove images that have no name and no container
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs prune -f\n  plyfs prune --all --containers")]
pub(super) struct Prune {
    /// Also remove images that have names, but no container
    #[arg(short, long)]
    all: bool,
    /// First remove every container that is not mounted, with what was written in it
    #[arg(long)]
    containers: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        if !self.force && !self.agreed()? {
            return Ok(());
        }
        let store = context.store()?;
        let mut space = 0;
        if self.containers {
            let pruned = store.prune_containers()?;
            space += pruned.space;
            pruned.containers.iter().try_for_each(|name| output::print_line(name))?;
        }
        let pruned = store.prune_images(self.all)?;
        for removed in &pruned.images {
            for name in removed.untagged.iter().map(Reference::familiar) {
                output::print_line(&format!("Untagged: {name}"))?;
            }
            if let Some(id) = removed.image {
                output::print_line(&format!("Deleted: {id}"))?;
            }
        }
        let space = output::size(space + pruned.space);
        output::print_line(&format!("Total reclaimed space: {space}"))
    }

    fn agreed(&self) -> Result<bool> {
        if !io::stdin().is_terminal() {
            return Err(Error::option("--force", "is needed where nobody can be asked"));
        }
        let containers = match self.containers {
            true => "all containers that are not mounted, and then ",
            false => "",
        };
        let images = if self.all {
            "all images without a container"
        } else {
            "all images without name and container"
        };
        output::print(format!("This will remove {containers}{images}.\nAre you sure? [y/N] "))?;
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.map_err(|error| Error::std_io("read", "standard input", &error))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
