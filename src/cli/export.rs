//! `export`: the tree of a container as a tar archive.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::archive::tar_write;
use crate::error::{Error, Result};

use super::layer_list::{LayerList, Subject};
use super::{Context, output};

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
            Subject::Layers { lowers, upper } => {
                let layers: Vec<_> = upper.into_iter().chain(lowers).collect();
                tar_write::export(&layers, out)
            }
        };
        match self.output.as_deref() {
            Some(path) if path.as_os_str() != "-" => to_file(path, write),
            _ => {
                output::check_not_terminal()?;
                let out = io::stdout().lock();
                buffered(out, Path::new("standard output"), write)
            }
        }
    }
}

/// Has `write` fill the file at `path`, which appears only when it is complete. What is not a
/// regular file, such as a pipe, is written directly.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let failed = |error: &io::Error| Error::std_io("write", path, error);
    if path.exists() && !path.is_file() {
        let file = File::options().write(true).open(path).map_err(|error| failed(&error))?;
        return buffered(file, path, write);
    }
    // A symlink stays and what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let file = File::create_new(&part).map_err(|error| failed(&error))?;
    let outcome = buffered(file, path, write)
        .and_then(|()| fs::rename(&part, path).map_err(|error| failed(&error)));
    if outcome.is_err()
        && let Err(error) = fs::remove_file(&part)
    {
        tracing::warn!(%error, part = %part.display(), "an incomplete file is left");
    }
    outcome
}

fn buffered(
    out: impl Write,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    write(&mut out)?;
    out.flush().map_err(|error| Error::std_io("write", path, &error))
}
