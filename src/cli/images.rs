//! Verbs on images: load, images, rmi.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::image::{Reference, RepoDigest, Timestamp};
use crate::store::{Image, Source};

use super::filters::{Filters, glob, is_on};
use super::json_flag::{Form, JsonFlag};
use super::progress::Bars;
use super::{Context, output};

/// Load images from an archive
///
/// Reads what docker, podman and skopeo save: docker-archives, OCI archives and OCI layout
/// directories, plain or compressed with gzip, zstd, bzip2 or xz. Every digest is checked; an archive that
/// is not what it claims to be is refused and leaves nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  podman save busybox | plyfs load\n  plyfs load -i busybox.tar")]
pub(super) struct Load {
    /// Archive to read instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let source = match &self.input {
            Some(path) if path.as_os_str() != "-" => Source::Path(path),
            _ => Source::Stream(standard_input()?),
        };
        let bars = Bars::new(self.quiet);
        let all = context.store()?.load_watched(source, &bars)?;
        drop(bars);
        for loaded in all {
            if loaded.references.is_empty() {
                output::print_line(&format!("Loaded image ID: {}", loaded.id))?;
            }
            for reference in &loaded.references {
                output::print_line(&format!("Loaded image: {}", reference.familiar()))?;
            }
        }
        Ok(())
    }
}

/// Standard input, unless a person would have to type it.
pub(super) fn standard_input() -> Result<File> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let why = "give -i FILE, or redirect standard input, which is a terminal";
        return Err(Error::Refused(why.to_owned()));
    }
    let fd = stdin.as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(|error| Error::std_io("read", "standard input", &error))
}

/// List images
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs images --no-trunc")]
pub(super) struct List {
    /// Only images with this repository or repository:tag; * and ? stand for anything
    name: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Show the digests under which registries have them
    #[arg(long)]
    digests: bool,
    /// Only those that fit: dangling=true|false, reference=NAME
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Has no effect: no image is hidden
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    json: JsonFlag,
}

/// The column of digests.
const DIGEST: usize = 2;

impl List {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let mut images = context.store()?.images()?;
        if let Some(name) = &self.name {
            for image in &mut images {
                image.references.retain(|reference| matches(reference, name));
            }
            images.retain(|image| !image.references.is_empty());
        }
        let filters = Filters::parse(&self.filter, &["dangling", "reference"])?;
        filters.check_switch("dangling")?;
        images.retain(|image| fits(&filters, image));
        match self.json.form()? {
            Form::Json => return output::print_json(&images.iter().map(as_json).collect()),
            Form::Template(template) => {
                let fields: Vec<_> = images.iter().flat_map(|image| self.fields(image)).collect();
                return template.print(&fields);
            }
            Form::Table => {}
        }
        if self.quiet {
            return images.iter().try_for_each(|image| output::print_line(&self.id(image)));
        }
        let mut header = vec!["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
        let mut rows: Vec<_> = images.iter().flat_map(|image| self.rows(image)).collect();
        if !self.digests {
            header.remove(DIGEST);
            rows.iter_mut().for_each(|row| drop(row.remove(DIGEST)));
        }
        output::print_table(&header, &rows)
    }

    /// The rows of an image for templates, with docker's names.
    fn fields(&self, image: &Image) -> Vec<serde_json::Value> {
        let keys = ["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];
        let object = |row: Vec<String>| {
            let mut object = json!({ "CreatedAt": image.created });
            if let Some(fields) = object.as_object_mut() {
                fields.extend(
                    keys.into_iter().map(str::to_owned).zip(row.into_iter().map(Into::into)),
                );
            }
            object
        };
        self.rows(image).into_iter().map(object).collect()
    }

    fn id(&self, image: &Image) -> String {
        if self.no_trunc { image.id.to_string() } else { image.id.0.short() }
    }

    /// One row for each of its names; of an image that has none, for each place in a registry.
    fn rows(&self, image: &Image) -> Vec<Vec<String>> {
        let row = |repository: &str, tag: &str, digest: Option<&RepoDigest>| {
            let digest = digest.map_or("<none>".to_owned(), |pinned| pinned.digest().to_string());
            let (id, created) = (self.id(image), created(image.created.as_deref()));
            vec![repository.into(), tag.into(), digest, id, created, output::size(image.size)]
        };
        if !image.references.is_empty() {
            let named = |name: &Reference| {
                let there = image.digests.iter().find(|pinned| pinned.is_in(name));
                row(&name.familiar_repository(), name.tag(), there)
            };
            return image.references.iter().map(named).collect();
        }
        if !image.digests.is_empty() {
            let pinned = image.digests.iter();
            return pinned.map(|at| row(&at.familiar_repository(), "<none>", Some(at))).collect();
        }
        vec![row("<none>", "<none>", None)]
    }
}

fn fits(filters: &Filters, image: &Image) -> bool {
    filters.any("dangling", |wanted| is_on(wanted) == Some(image.references.is_empty()))
        && filters.any("reference", |name| image.references.iter().any(|own| matches(own, name)))
}

/// Whether `filter`, with a tag or without, fits a name.
fn matches(reference: &Reference, filter: &str) -> bool {
    let tagged = format!("{filter}:{}", reference.tag());
    let same = |text: &str| {
        reference.answers_to(text) || Reference::parse(text).is_ok_and(|full| full == *reference)
    };
    let (whole, repository) = (reference.familiar(), reference.familiar_repository());
    same(filter) || same(&tagged) || glob(filter, &whole) || glob(filter, &repository)
}

fn created(text: Option<&str>) -> String {
    match text.map(Timestamp::parse) {
        Some(Ok(at)) => output::age(Timestamp::now().unix() - at.unix()),
        _ => "N/A".to_owned(),
    }
}

fn as_json(image: &Image) -> serde_json::Value {
    json!({
        "id": image.id,
        "references": image.references,
        "digests": image.digests,
        "created": image.created,
        "size": image.size,
        "layers": image.layers,
    })
}

/// Remove images, or names of images
///
/// A name is taken away; with the last one, or by id, the image goes, and with it every layer
/// that no other image uses. An image that containers were made from stays.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs rmi busybox:1.35")]
pub(super) struct Remove {
    /// Names, ids or starts of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image with all its names; one that containers use keeps none, but stays
    #[arg(short, long)]
    force: bool,
}

impl Remove {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        output::for_each(&self.images, |image| {
            let Some(removed) =
                output::unless_gone(self.force, store.remove_image(image, self.force))?
            else {
                return Ok(());
            };
            for reference in &removed.untagged {
                output::print_line(&format!("Untagged: {}", reference.familiar()))?;
            }
            if let Some(id) = removed.image {
                output::print_line(&format!("Deleted: {id}"))?;
            }
            removed
                .layers
                .iter()
                .try_for_each(|layer| output::print_line(&format!("Deleted: {layer}")))
        })
    }
}
