//! `inspect`: all that is known, as JSON with docker's names.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::{Reference, RepoDigest};
use crate::store::{ContainerDetails, ImageDetails, State, Store};

use super::template::Template;
use super::{Context, output};

/// Print all that is known of containers and images as JSON
///
/// A name that a container and an image have means the container, unless --type says otherwise.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs inspect box | jq -r '.[0].GraphDriver.Data.UpperDir'")]
pub(super) struct Inspect {
    /// Names, ids or starts of ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// What to look for
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
    /// How to print: json, or a template with {{.FIELD}} and {{json .}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Add the sizes of containers, which takes a walk through their writable layers
    #[arg(short, long)]
    size: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Only containers
    Container,
    /// Only images
    Image,
}

impl Inspect {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let mut found = Vec::new();
        let outcome = output::for_each(&self.names, |name| {
            found.push(self.find(&store, name)?);
            Ok(())
        });
        match self.format.as_deref() {
            None | Some("json") => output::print_json(&Value::from(found))?,
            Some(text) => Template::parse(text)?.print(&found)?,
        }
        outcome
    }

    fn find(&self, store: &Store, name: &str) -> Result<Value> {
        if self.kind != Some(Kind::Image) {
            match store.inspect_container(name) {
                Err(Error::NotFound { .. }) if self.kind.is_none() => {}
                other => return self.container(store, &other?),
            }
        }
        match store.inspect_image(name) {
            Err(Error::NotFound { kind: "image", name }) if self.kind.is_none() => {
                Err(Error::NotFound { kind: "container or image", name })
            }
            other => Ok(image(&other?)),
        }
    }

    fn container(&self, store: &Store, details: &ContainerDetails) -> Result<Value> {
        let container = &details.container;
        let (status, places) = match &details.state {
            State::Unmounted => ("unmounted", &[][..]),
            State::Busy => ("busy", &[][..]),
            State::Mounted(places) => ("mounted", places.as_slice()),
        };
        let merged = store.default_mount_point(container);
        let merged = places.first().unwrap_or(&merged);
        let mut object = json!({
            "Id": container.id,
            "Name": container.name,
            "Created": container.created,
            "Image": container.image,
            "ImageName": container.image_name,
            "State": { "Status": status, "Mounted": status == "mounted" },
            "MountPoints": places.iter().map(|place| text(place)).collect::<Vec<_>>(),
            "Config": whole(details.config.get("config")),
            "GraphDriver": {
                "Name": "plyfs",
                "Data": {
                    "LowerDir": joined(&details.lowers),
                    "UpperDir": text(&details.upper),
                    "WorkDir": text(&details.work),
                    "MergedDir": text(merged),
                },
            },
        });
        if self.size
            && let Some(fields) = object.as_object_mut()
        {
            let writable = store.writable_size(container)?;
            fields.insert("SizeRw".to_owned(), json!(writable));
            fields.insert("SizeRootFs".to_owned(), json!(details.image_size + writable));
        }
        Ok(object)
    }
}

/// A config with the keys that docker shows always, so that templates find them.
fn whole(config: Option<&Value>) -> Value {
    let mut whole = json!({
        "Cmd": null, "Entrypoint": null, "Env": null, "Labels": null, "OnBuild": null,
        "User": "", "Volumes": null, "WorkingDir": "",
    });
    if let (Some(whole), Some(config)) = (whole.as_object_mut(), config.and_then(Value::as_object))
    {
        whole.extend(config.clone());
    }
    whole
}

fn image(details: &ImageDetails) -> Value {
    let image = &details.image;
    let said = |key: &str| details.config.get(key).cloned().unwrap_or(Value::Null);
    json!({
        "Id": image.id,
        "RepoTags": image.references.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": image.digests.iter().map(RepoDigest::familiar).collect::<Vec<_>>(),
        "References": image.references,
        "Created": image.created,
        "Author": said("author"),
        "Comment": details.config.pointer("/history").and_then(Value::as_array)
            .and_then(|steps| steps.last()?.get("comment")).unwrap_or(&json!("")),
        "Architecture": said("architecture"),
        "Os": said("os"),
        "Config": whole(details.config.get("config")),
        "History": said("history"),
        "Size": image.size,
        "RootFS": {
            "Type": "layers",
            "Layers": details.config.pointer("/rootfs/diff_ids"),
            "ChainIds": image.layers,
        },
        "GraphDriver": { "Name": "plyfs", "Data": { "LowerDir": joined(&details.trees) } },
    })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn joined(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| text(path)).collect::<Vec<_>>().join(":")
}
