//! The ways to ask for another output than a table.

use clap::Args;

use crate::error::{Error, Result};

use super::template::Template;

/// `--json`, and docker's `--format`.
#[derive(Debug, Args)]
pub(super) struct JsonFlag {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How to print: table, json, or a template with {{.FIELD}} and {{json .}}
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<String>,
}

/// How to print.
#[derive(Debug)]
pub(super) enum Form {
    /// As a table, or what else a verb prints for people.
    Table,
    /// As one JSON document.
    Json,
    /// Each object by a template.
    Template(Template),
}

impl JsonFlag {
    /// Whether JSON is wanted, of a verb that has no fields to choose from.
    ///
    /// # Errors
    /// Where a template is wanted.
    pub(super) fn is_json(&self) -> Result<bool> {
        match self.form()? {
            Form::Json => Ok(true),
            Form::Table => Ok(false),
            Form::Template(_) => Err(Error::option("--format", "can be table or json here")),
        }
    }

    /// What is wanted.
    ///
    /// # Errors
    /// Where a template cannot be understood.
    pub(super) fn form(&self) -> Result<Form> {
        match self.format.as_deref() {
            _ if self.json => Ok(Form::Json),
            None | Some("table") => Ok(Form::Table),
            Some("json") => Ok(Form::Json),
            Some(text) => Template::parse(text).map(Form::Template),
        }
    }
}
