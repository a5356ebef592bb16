//! `history`: how an image came about.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::image::Timestamp;
use crate::store::Step;

use super::json_flag::{Form, JsonFlag};
use super::{Context, output};

/// The most characters of a command or comment in a table.
const SHOWN_MAX: usize = 45;

/// Show how an image was made, the last step first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs history busybox:1.35")]
pub(super) struct History {
    /// Name, id or start of an id of an image
    image: String,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print everything in full
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    json: JsonFlag,
}

impl History {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let steps = context.store()?.history(&self.image)?;
        match self.json.form()? {
            Form::Json => {
                let objects = steps.iter().map(|step| json!(step));
                return output::print_json(&objects.collect());
            }
            Form::Template(template) => {
                let fields: Vec<_> = steps.iter().map(|step| self.fields(step)).collect();
                return template.print(&fields);
            }
            Form::Table => {}
        }
        if self.quiet {
            return steps.iter().try_for_each(|step| output::print_line(&self.id(step)));
        }
        let rows: Vec<_> = steps.iter().map(|step| self.row(step)).collect();
        output::print_table(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows)
    }

    /// A step for templates, with docker's names.
    fn fields(&self, step: &Step) -> Value {
        let keys = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"];
        let row = keys.into_iter().map(str::to_owned).zip(self.row(step));
        let mut fields: Map<_, _> = row.map(|(key, text)| (key, Value::from(text))).collect();
        fields.insert("CreatedAt".to_owned(), json!(step.created));
        Value::Object(fields)
    }

    fn row(&self, step: &Step) -> Vec<String> {
        let created = match step.created.as_deref().map(Timestamp::parse) {
            Some(Ok(at)) => output::age(Timestamp::now().unix() - at.unix()),
            _ => "N/A".to_owned(),
        };
        let (by, comment) = (self.shown(&step.created_by), self.shown(&step.comment));
        vec![self.id(step), created, by, output::size(step.size), comment]
    }

    fn id(&self, step: &Step) -> String {
        match step.id {
            Some(id) if self.no_trunc => id.to_string(),
            Some(id) => id.0.short(),
            None => "<missing>".to_owned(),
        }
    }

    fn shown(&self, text: &str) -> String {
        let text = output::escaped(text.as_bytes());
        if self.no_trunc || text.chars().count() <= SHOWN_MAX {
            return text;
        }
        let start: String = text.chars().take(SHOWN_MAX - 1).collect();
        format!("{start}\u{2026}")
    }
}
