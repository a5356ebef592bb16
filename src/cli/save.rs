//! `save`: images as an archive.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::error::{Error, Result};
use crate::store::ArchiveForm;

use super::progress::Bars;
use super::{Context, target};

/// Write images as an archive
///
/// Several images become one archive, in which a layer that they share is written once. Layers
/// are the very ones that were loaded, and equal images give equal bytes.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs save -o busybox.tar busybox:1.35\n  \
                        plyfs save app:1 app:2 | podman load")]
pub(super) struct Save {
    /// Names, ids or starts of ids; an image that is asked for by its id has no name in the
    /// archive
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// File, or directory for oci-dir, to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Form of the archive
    #[arg(long, value_enum, default_value = "docker-archive", value_name = "FORM")]
    format: Form,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Has no effect: an archive takes any number of images
    #[arg(short, long)]
    multi_image_archive: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// What docker save writes; layers uncompressed
    DockerArchive,
    /// A tar of an OCI image layout; layers as they came
    OciArchive,
    /// A directory with an OCI image layout; layers as they came
    OciDir,
}

impl Save {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let form = match self.format {
            Form::DockerArchive => ArchiveForm::Docker,
            Form::OciArchive => ArchiveForm::Oci,
            Form::OciDir => {
                let Some(dir) = self.output.filter(|dir| dir.as_os_str() != "-") else {
                    return Err(Error::option("--output", "oci-dir needs a directory to write"));
                };
                let bars = Bars::new(self.quiet);
                let write = |dir: &Path| store.save_directory(&self.images, dir, &bars);
                return target::directory(&dir, write);
            }
        };
        let bars = Bars::new(self.quiet);
        let write = |out: &mut dyn Write| store.save(&self.images, form, out, &bars);
        target::write(self.output.as_deref(), write)
    }
}
