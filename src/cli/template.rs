//! `--format` as docker's users write it: `{{.Repository}}:{{.Tag}}`, `{{json .}}`,
//! `table {{.ID}}\t{{.Size}}`. Of Go's templates what is used for that: fields, fields of fields,
//! `json` and text.

use serde_json::Value;

use crate::error::{Error, Result};

use super::output;

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    is_table: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The value at a path of fields, as people read it or as JSON.
    Value {
        path: Vec<String>,
        json: bool,
    },
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is beyond fields, `json` and text.
    pub(super) fn parse(text: &str) -> Result<Template> {
        let (is_table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, action)) = rest.split_once("{{") {
            let Some((action, after)) = action.split_once("}}") else {
                return Err(wrong("{{ without }}"));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(value(action)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        if !parts.iter().any(|part| matches!(part, Part::Value { .. })) {
            return Err(wrong("no {{.FIELD}} in it"));
        }
        Ok(Template { parts, is_table })
    }

    /// Prints each of `objects` by the template, one a line.
    pub(super) fn print(&self, objects: &[Value]) -> Result<()> {
        let lines = objects.iter().map(|object| self.render(object)).collect::<Result<Vec<_>>>()?;
        if self.is_table {
            let header = self.header();
            let header: Vec<&str> = header.split('\t').collect();
            let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
            return output::print_table(&header, &lines.iter().map(cells).collect::<Vec<_>>());
        }
        lines.iter().try_for_each(|line| output::print_line(line))
    }

    /// The names of the fields in the place of their values, in words as docker has them.
    fn header(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value { path, .. } => title(path.last().map_or("", String::as_str)),
        };
        self.parts.iter().map(part).collect()
    }

    fn render(&self, object: &Value) -> Result<String> {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Value { path, json: true } => line.push_str(&find(object, path)?.to_string()),
                Part::Value { path, json: false } => line.push_str(&plain(find(object, path)?)),
            }
        }
        Ok(line)
    }
}

fn wrong(why: &str) -> Error {
    Error::option("--format", format!("{why}; {{{{.FIELD}}}}, {{{{json .}}}} and text can be used"))
}

/// Reads what stands between the braces.
fn value(action: &str) -> Result<Part> {
    let words: Vec<&str> = action.split_whitespace().collect();
    let (json, path) = match words.as_slice() {
        ["json", path] => (true, *path),
        [path] => (false, *path),
        _ => return Err(wrong(&format!("{{{{{action}}}}} is not understood"))),
    };
    let Some(fields) = path.strip_prefix('.') else {
        return Err(wrong(&format!("{{{{{action}}}}} is not understood")));
    };
    let path = fields.split('.').filter(|_| !fields.is_empty()).map(str::to_owned).collect();
    Ok(Part::Value { path, json })
}

fn find<'a>(object: &'a Value, path: &[String]) -> Result<&'a Value> {
    let mut at = object;
    for field in path {
        at = match at {
            Value::Object(fields) => fields.get(field).ok_or_else(|| {
                let known = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                Error::option("--format", format!("there is no field {field:?}, but {known}"))
            })?,
            // A map that is not there has nothing in it.
            Value::Null => &Value::Null,
            _ => return Err(Error::option("--format", format!("nothing has a field {field:?}"))),
        };
    }
    Ok(at)
}

/// A value as Go prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key}:{}", plain(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// `CreatedBy` as `CREATED BY`.
fn title(field: &str) -> String {
    let mut text = String::new();
    let mut before = ' ';
    for c in field.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            text.push(' ');
        }
        text.extend(c.to_uppercase());
        before = c;
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_json_and_text_are_filled_in() {
        let object = json!({ "ID": "0a", "Names": ["a", "b"], "Config": { "Cmd": null, "N": 3 } });
        let render = |text: &str| Template::parse(text).unwrap().render(&object).unwrap();
        assert_eq!(render("{{.ID}}\\t{{ .Names }}"), "0a\t[a b]");
        assert_eq!(render("{{json .Names}} {{.Config.N}}"), "[\"a\",\"b\"] 3");
        assert_eq!(render("{{json .}}"), object.to_string());
        assert_eq!(render("x{{.Config.Cmd.X}}"), "x<no value>");
        for wrong in ["", "text", "{{", "{{.ID", "{{range .}}", "{{if .ID}}", "{{ID}}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Template::parse("{{.Nope}}").unwrap().render(&object).is_err());
        let table = Template::parse("table {{.ID}}\\t{{.CreatedBy}}").unwrap();
        assert_eq!(table.header(), "ID\tCREATED BY");
    }
}
