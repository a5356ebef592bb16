//! `cp`: files into a container and out of it.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, Result};
use crate::store::{CopyEnd, CopyOptions};

use super::mounts::daemon;
use super::{Context, output};

/// Copy files between a container and this machine
///
/// As docker cp: into a directory that exists, or to a new name; the content of a directory is
/// meant by a path that ends in "/.". A container that is not mounted is mounted meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs cp box:/etc/hosts .\n  plyfs cp site/. box:/srv/www\n  \
                        tar c data | plyfs cp - box:/srv")]
pub(super) struct Copy {
    /// CONTAINER:PATH, a path of this machine, or - for a tar archive from standard input
    source: PathBuf,
    /// CONTAINER:PATH, a path of this machine, or - for a tar archive to standard output
    destination: PathBuf,
    /// Keep owners; else files belong to root in the container, and here to the caller
    #[arg(short, long)]
    archive: bool,
    /// Copy what SOURCE leads to, where it is a symlink
    #[arg(short = 'L', long)]
    follow_link: bool,
}

impl Copy {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let (from, to) = (split(&self.source), split(&self.destination));
        let options = CopyOptions { archive: self.archive, follow: self.follow_link };
        let (container, ends) = match (from, to) {
            (Some((container, path)), None) => {
                let to = end(&self.destination);
                (container, (CopyEnd::There(path), to))
            }
            (None, Some((container, path))) => {
                let from = end(&self.source);
                (container, (from, CopyEnd::There(path)))
            }
            (Some(_), Some(_)) => {
                let why = "from container to container: go through a directory of this machine";
                return Err(Error::Refused(format!("cannot copy {why}")));
            }
            (None, None) => {
                let why = "one of the two must be in a container, as CONTAINER:PATH";
                return Err(Error::Refused(why.to_owned()));
            }
        };
        if let (CopyEnd::There(path), _) | (_, CopyEnd::There(path)) = &ends
            && path.as_os_str().is_empty()
        {
            let why = format!("a path must follow {container}:, such as {container}:/");
            return Err(Error::Refused(why));
        }
        if matches!(ends.1, CopyEnd::Archive) {
            output::check_not_terminal()?;
        }
        let (mut input, mut output) = (io::stdin(), io::stdout());
        let streams: (&mut (dyn io::Read + Send), &mut (dyn io::Write + Send)) =
            (&mut input, &mut output);
        context.store()?.copy(container, (&ends.0, &ends.1), options, streams, &daemon()?)
    }
}

fn end(path: &Path) -> CopyEnd<'_> {
    if path.as_os_str() == "-" { CopyEnd::Archive } else { CopyEnd::Here(path) }
}

/// Container and path of `CONTAINER:PATH`. What begins with a slash or a dot is a path of this
/// machine, as docker has it.
fn split(path: &Path) -> Option<(&str, &Path)> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let (container, rest) = bytes.split_at(colon);
    if container.contains(&b'/') || matches!(container.first(), None | Some(b'.')) {
        return None;
    }
    let path = rest.get(1..).unwrap_or_default();
    Some((std::str::from_utf8(container).ok()?, Path::new(std::ffi::OsStr::from_bytes(path))))
}
