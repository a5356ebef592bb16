//! `diff`: what was changed in a container.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::changeset::{Change, Meta};
use crate::error::{Error, Result};
use crate::store::ChangeRule;

use super::layer_list::{LayerList, Subject};
use super::{Context, output};

/// Show what a container changed in its image, or how two trees differ
///
/// One line for each path: A for added, C for changed, D for deleted. With two names, of
/// containers or images, it shows what makes the second of the first. With --lowerdir and
/// --upperdir it works on layers in directories, without a store.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs diff box\n  plyfs diff app:1 app:2\n  \
                        plyfs diff --lowerdir top:base --upperdir upper")]
pub(super) struct Diff {
    /// Name, id or start of an id
    #[arg(required_unless_present = "lowerdir")]
    container: Option<String>,
    /// Container or image to compare with the first
    #[arg(requires = "container")]
    other: Option<String>,
    #[command(flatten)]
    layers: LayerList,
    /// What counts as a change, or how to print
    #[arg(long, visible_alias = "rule", value_enum, default_value = "exact")]
    format: Format,
    /// Print JSON, with what each path was and is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Content, attributes and xattrs, compared for what they are
    Exact,
    /// What docker diff lists, which takes size and time for content
    Docker,
    /// As exact, printed as JSON
    Json,
}

impl Diff {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let rule = match self.format {
            Format::Exact | Format::Json => ChangeRule::Exact,
            Format::Docker => ChangeRule::Docker,
        };
        let changes = match (self.layers.or_container(self.container)?, self.other) {
            (Subject::Container(old), Some(new)) => {
                context.store()?.diff_between(&old, &new, rule)?
            }
            (Subject::Container(name), None) => context.store()?.diff(&name, rule)?,
            (Subject::Layers { lowers, upper: Some(upper) }, _) => rule.diff(&lowers, upper)?,
            (Subject::Layers { upper: None, .. }, _) => {
                return Err(Error::option("--upperdir", "must be given beside --lowerdir"));
            }
        };
        if self.json || self.format == Format::Json {
            return output::print_json(&changes.iter().map(as_json).collect());
        }
        let mut lines = Vec::new();
        for change in &changes {
            lines.extend_from_slice(format!("{} ", change.kind).as_bytes());
            lines.extend(output::path_bytes(&change.path));
            lines.push(b'\n');
        }
        output::print(lines)
    }
}

/// A path that is not UTF-8 is given in hex besides.
fn as_json(change: &Change) -> Value {
    let mut object = json!({
        "kind": change.kind.to_string(),
        "path": String::from_utf8_lossy(&change.path),
        "old": change.old.as_ref().map(meta),
        "new": change.new.as_ref().map(meta),
    });
    if std::str::from_utf8(&change.path).is_err()
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert("path_bytes".to_owned(), hex::encode(&change.path).into());
    }
    object
}

fn meta(meta: &Meta) -> Value {
    json!({
        "type": meta.kind.name(),
        "mode": format!("{:04o}", meta.mode),
        "uid": meta.uid,
        "gid": meta.gid,
        "size": meta.size,
        "mtime": { "sec": meta.mtime.sec, "nsec": meta.mtime.nsec },
        "device": meta.device.map(|(major, minor)| json!([major, minor])),
    })
}
