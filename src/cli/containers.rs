//! Verbs on containers: create, ps, rm.

use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::json;

use crate::error::Result;
use crate::image::Timestamp;
use crate::store::{Container, State, Store};

use super::filters::Filters;
use super::json_flag::{Form, JsonFlag};
use super::{Context, output};

/// Create a container from an image
///
/// Prints the id of the new container, which has an empty writable layer and is not mounted.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs create --name box busybox:1.35")]
pub(super) struct Create {
    /// Name, id or start of an id of an image
    image: String,
    /// Name of the container [default: a random one]
    #[arg(long)]
    name: Option<String>,
    /// Command in the place of the image's: noted for inspect and commit, for nothing is run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Create {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let container =
            context.store()?.create_for(&self.image, self.name.as_deref(), &self.command)?;
        output::print_line(&container.id.hex())
    }
}

/// List containers that are mounted, or all
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs ps -as")]
pub(super) struct List {
    /// Also list those that are not mounted
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Only those that fit: name=TEXT, id=START, ancestor=IMAGE, status=mounted|unmounted
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show sizes: of the writable layer, and with the image
    #[arg(short, long)]
    size: bool,
    #[command(flatten)]
    json: JsonFlag,
}

impl List {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let listed = self.listed(&store)?;
        let sizes = self.sizes(&store, &listed)?;
        match self.json.form()? {
            Form::Json => {
                let objects = listed.iter().enumerate().map(|(i, (container, state))| {
                    as_json(&store, container, state, sizes.get(i).copied())
                });
                return output::print_json(&objects.collect());
            }
            Form::Template(template) => {
                return template.print(&self.fields(&store, &listed, &sizes));
            }
            Form::Table => {}
        }
        if self.quiet {
            let mut ids = listed.iter().map(|(container, _)| self.id(container));
            return ids.try_for_each(|id| output::print_line(&id));
        }
        let header = ["CONTAINER ID", "IMAGE", "CREATED", "STATUS", "NAMES", "SIZE"];
        let columns = if self.size { header.len() } else { header.len() - 1 };
        let rows = self.rows(&store, &listed, &sizes);
        output::print_table(header.get(..columns).unwrap_or(&header), &rows)
    }

    /// The containers for templates, with docker's names.
    fn fields(
        &self,
        store: &Store,
        listed: &[(Container, State)],
        sizes: &[(u64, u64)],
    ) -> Vec<serde_json::Value> {
        let rows = self.rows(store, listed, sizes);
        let object = |((container, state), row): (&(Container, State), Vec<String>)| {
            let mut row = row.into_iter();
            let mut next = || row.next().unwrap_or_default();
            json!({
                "ID": next(),
                "Image": next(),
                "RunningFor": next(),
                "Status": next(),
                "Names": next(),
                "Size": next(),
                "CreatedAt": container.created,
                "State": if matches!(state, State::Unmounted) { "unmounted" } else { "mounted" },
            })
        };
        listed.iter().zip(rows).map(object).collect()
    }

    fn rows(
        &self,
        store: &Store,
        listed: &[(Container, State)],
        sizes: &[(u64, u64)],
    ) -> Vec<Vec<String>> {
        let now = Timestamp::now().unix();
        let rows = listed.iter().enumerate().map(|(i, (container, state))| {
            let age = output::age(now - container.created.unix());
            let mut row = vec![
                self.id(container),
                container.image_name.clone(),
                age,
                status(store, container, state),
                container.name.clone(),
            ];
            row.extend(sizes.get(i).map(|(writable, whole)| {
                format!("{} (virtual {})", output::size(*writable), output::size(*whole))
            }));
            row
        });
        rows.collect()
    }

    /// Bytes of each container's writable layer, and of that with the image; none unless asked.
    fn sizes(&self, store: &Store, listed: &[(Container, State)]) -> Result<Vec<(u64, u64)>> {
        let asked = listed.iter().filter(|_| self.size);
        let size = |(container, _): &(Container, State)| {
            let writable = store.writable_size(container)?;
            Ok((writable, writable + store.image_size(container)?))
        };
        asked.map(size).collect()
    }

    fn listed(&self, store: &Store) -> Result<Vec<(Container, State)>> {
        let filters = Filters::parse(&self.filter, &["name", "id", "ancestor", "status"])?;
        let mut listed = Vec::new();
        for container in store.containers()? {
            let state = store.state(&container)?;
            let all = self.all || filters.has("status");
            if (all || state != State::Unmounted) && fits(&filters, &container, &state) {
                listed.push((container, state));
            }
        }
        Ok(listed)
    }

    fn id(&self, container: &Container) -> String {
        if self.no_trunc { container.id.hex() } else { container.id.short() }
    }
}

fn fits(filters: &Filters, container: &Container, state: &State) -> bool {
    let status = if *state == State::Unmounted { "unmounted" } else { "mounted" };
    filters.any("name", |name| container.name.contains(name))
        && filters.any("id", |id| container.id.hex().starts_with(id))
        && filters.any("status", |wanted| wanted == status)
        && filters.any("ancestor", |image| {
            let id = image.strip_prefix("sha256:").unwrap_or(image);
            container.image_name == image || container.image.0.hex().starts_with(id)
        })
}

fn status(store: &Store, container: &Container, state: &State) -> String {
    match state {
        State::Unmounted => "Unmounted".to_owned(),
        State::Busy => "Busy".to_owned(),
        State::Mounted(places) => match places.first() {
            Some(place) if *place == store.default_mount_point(container) => "Mounted".to_owned(),
            Some(place) => {
                format!("Mounted on {}", output::escaped(place.as_os_str().as_bytes()))
            }
            None => "Mounted elsewhere".to_owned(),
        },
    }
}

fn as_json(
    store: &Store,
    container: &Container,
    state: &State,
    size: Option<(u64, u64)>,
) -> serde_json::Value {
    let places = match state {
        State::Unmounted | State::Busy => &[][..],
        State::Mounted(places) => places,
    };
    let mut object = json!({
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "image_name": container.image_name,
        "created": container.created,
        "mounted": matches!(state, State::Mounted(_)),
        "mount_points": places.iter().map(|place| place.to_string_lossy()).collect::<Vec<_>>(),
        "upper": store.upper(container).to_string_lossy(),
    });
    if let (Some((writable, whole)), Some(fields)) = (size, object.as_object_mut()) {
        fields.insert("size_rw".to_owned(), json!(writable));
        fields.insert("size_root_fs".to_owned(), json!(whole));
    }
    object
}

/// Remove containers with everything that was written in them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs umount box && plyfs rm box")]
pub(super) struct Remove {
    /// Names, ids or starts of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Unmount those that are mounted
    #[arg(short, long)]
    force: bool,
}

impl Remove {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        output::for_each(&self.containers, |name| {
            match output::unless_gone(self.force, store.remove_container(name, self.force))? {
                Some(_) => output::print_line(name),
                None => Ok(()),
            }
        })
    }
}

/// Rename a container
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs rename box old-box")]
pub(super) struct Rename {
    /// Name, id or start of an id
    container: String,
    /// The new name
    name: String,
}

impl Rename {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        context.store()?.rename(&self.container, &self.name).map(drop)
    }
}
