//! `df`: what takes how much space.

use clap::Args;
use serde_json::{Value, json};

use crate::error::Result;
use crate::image::Timestamp;
use crate::store::{ContainerUsage, DiskUsage, ImageUsage, SnapshotKind, SnapshotUsage, Usage};

use super::json_flag::{Form, JsonFlag};
use super::{Context, output};

/// Show how much space images, containers and containerd's snapshots take
///
/// Layers that images share are counted once. The archives that layers came in are kept for save
/// and push.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs df -v")]
pub(super) struct Df {
    /// Show each image and container
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    json: JsonFlag,
}

impl Df {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let usage = context.store()?.disk_usage()?;
        match self.json.form()? {
            Form::Json => return output::print_json(&json!(usage)),
            Form::Template(template) => return template.print(&usage_fields(&usage)),
            Form::Table => {}
        }
        if self.verbose {
            return verbose(&usage);
        }
        let rows: Vec<_> = kinds(&usage).iter().map(|(name, usage)| row(name, usage)).collect();
        output::print_table(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &rows)
    }
}

/// Snapshots have a row where containerd has any.
fn kinds(usage: &DiskUsage) -> Vec<(&'static str, &Usage)> {
    let mut kinds = vec![
        ("Images", &usage.images),
        ("Containers", &usage.containers),
        ("Layer archives", &usage.archives),
    ];
    if usage.snapshots.total > 0 {
        kinds.push(("Snapshots", &usage.snapshots));
    }
    kinds
}

/// The rows for templates, with docker's names.
fn usage_fields(usage: &DiskUsage) -> Vec<Value> {
    let fields = |(name, usage): &(&str, &Usage)| {
        let row = row(name, usage);
        let keys = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
        keys.into_iter().map(str::to_owned).zip(row.into_iter().map(Value::from)).collect()
    };
    kinds(usage).iter().map(fields).collect()
}

fn row(name: &str, usage: &Usage) -> Vec<String> {
    let mut reclaimable = output::size(usage.reclaimable);
    if let Some(percent) = (usage.reclaimable * 100).checked_div(usage.size) {
        reclaimable.push_str(&format!(" ({percent}%)"));
    }
    let (total, active) = (usage.total.to_string(), usage.active.to_string());
    vec![name.to_owned(), total, active, output::size(usage.size), reclaimable]
}

fn verbose(usage: &DiskUsage) -> Result<()> {
    output::print_line("Images space usage:\n")?;
    let rows: Vec<_> = usage.by_image.iter().flat_map(image_rows).collect();
    let header = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    ];
    output::print_table(&header, &rows)?;
    output::print_line("\nContainers space usage:\n")?;
    let rows: Vec<_> = usage.by_container.iter().map(container_row).collect();
    output::print_table(&["CONTAINER ID", "IMAGE", "SIZE", "CREATED", "STATUS", "NAMES"], &rows)?;
    let archives = output::size(usage.archives.size);
    output::print_line(&format!("\nLayer archives: {} ({archives})", usage.archives.total))?;
    if usage.by_snapshot.is_empty() {
        return Ok(());
    }
    output::print_line("\nSnapshots space usage:\n")?;
    let rows: Vec<_> = usage.by_snapshot.iter().map(snapshot_row).collect();
    output::print_table(&["NAME", "KIND", "SIZE", "CREATED", "PARENT"], &rows)
}

fn snapshot_row(usage: &SnapshotUsage) -> Vec<String> {
    let kind = match usage.kind {
        SnapshotKind::View => "view",
        SnapshotKind::Active => "active",
        SnapshotKind::Committed => "committed",
    };
    let name = |text: &str| output::escaped(text.as_bytes());
    vec![
        name(&usage.name),
        kind.to_owned(),
        output::size(usage.size),
        output::age(Timestamp::now().unix() - usage.created.unix()),
        usage.parent.as_deref().map(name).unwrap_or_default(),
    ]
}

fn image_rows(usage: &ImageUsage) -> Vec<Vec<String>> {
    let image = &usage.image;
    let created = match image.created.as_deref().map(Timestamp::parse) {
        Some(Ok(at)) => output::age(Timestamp::now().unix() - at.unix()),
        _ => "N/A".to_owned(),
    };
    let row = |repository: &str, tag: &str| {
        let sizes = [image.size, usage.shared, usage.unique].map(output::size);
        let mut row = vec![repository.into(), tag.into(), image.id.0.short(), created.clone()];
        row.extend(sizes);
        row.push(usage.containers.to_string());
        row
    };
    match image.references.as_slice() {
        [] => vec![row("<none>", "<none>")],
        names => names.iter().map(|n| row(&n.familiar_repository(), n.tag())).collect(),
    }
}

fn container_row(usage: &ContainerUsage) -> Vec<String> {
    let container = &usage.container;
    vec![
        container.id.short(),
        container.image_name.clone(),
        output::size(usage.size),
        output::age(Timestamp::now().unix() - container.created.unix()),
        if usage.mounted { "Mounted" } else { "Unmounted" }.to_owned(),
        container.name.clone(),
    ]
}
