//! Verbs on layers in directories, without a store: layer-tar, apply.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;

use clap::Args;

use crate::archive::{compress, tar_read, tar_write};
use crate::error::{Error, Result};

use super::images::standard_input;
use super::layer_list::{LayerList, Subject};
use super::{Context, target};

/// Write what a container changed as a layer archive
///
/// The archive is an OCI changeset: what was added and changed, and .wh.NAME for what is gone.
/// With --lowerdir and --upperdir it works on layers in directories, without a store.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs layer-tar --lowerdir top:base --upperdir upper \
                        --workdir work -o layer.tar\n  plyfs layer-tar box | tar t")]
pub(super) struct LayerTar {
    /// Name, id or start of an id
    #[arg(required_unless_present = "lowerdir")]
    container: Option<String>,
    #[command(flatten)]
    layers: LayerList,
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl LayerTar {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let subject = self.layers.or_container(self.container)?;
        target::write(self.output.as_deref(), |out: &mut dyn Write| match subject {
            Subject::Container(name) => context.store()?.layer_tar(&name, out),
            Subject::Layers { lowers, upper: Some(upper) } => {
                tar_write::layer_tar(upper, &lowers, out)
            }
            Subject::Layers { upper: None, .. } => {
                Err(Error::option("--upperdir", "must be given beside --lowerdir"))
            }
        })
    }
}

/// Apply a layer archive to a directory
///
/// Applied to the tree that it was made against, it gives the tree that it was made of. Nothing
/// outside the directory is touched, whatever the archive says.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs apply -i layer.tar rootfs\n  \
                        plyfs apply --layer -i layer.tar.gz lower")]
pub(super) struct Apply {
    /// Directory to change
    directory: PathBuf,
    /// Archive to read, plain or compressed, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Unpack it as a layer to be mounted: deletions become whiteouts instead of being carried
    /// out. The directory must be empty
    #[arg(long)]
    layer: bool,
}

impl Apply {
    pub(super) fn run(self) -> Result<()> {
        let (file, what) = match &self.input {
            Some(path) if path.as_os_str() != "-" => {
                let file = File::open(path).map_err(|error| Error::std_io("open", path, &error))?;
                (file, path.display().to_string())
            }
            _ => (standard_input()?, "standard input".to_owned()),
        };
        let mut tar = compress::decompressed(BufReader::new(file), &what)?;
        if self.layer {
            self.check_empty()?;
            return tar_read::unpack_layer(&mut tar, &self.directory, &what).map(drop);
        }
        tar_read::apply_layer(&mut tar as &mut dyn Read, &self.directory, &what).map(drop)
    }

    fn check_empty(&self) -> Result<()> {
        let dir = &self.directory;
        let mut entries =
            std::fs::read_dir(dir).map_err(|error| Error::std_io("open", dir, &error))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::io("unpack into", dir, crate::error::Errno::NOTEMPTY)),
        }
    }
}
