//! `--format` as docker's users write it: `{{.Repository}}:{{.Tag}}`, `{{json .}}`,
//! `table {{.ID}}\t{{.Size}}`. Of Go's templates what is used for that: fields, fields of fields,
//! text, and the functions `json`, `len`, `index`, `join`, `upper` and `lower`.

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
    /// The value at a path of fields, and what is made of it.
    Value {
        path: Vec<String>,
        function: Function,
    },
}

/// What is made of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Function {
    /// It is printed as people read it.
    Plain,
    /// As JSON.
    Json,
    /// How many elements or characters it has.
    Len,
    /// The element at this place, or under this key.
    Index(String),
    /// Its elements with this between them.
    Join(String),
    Upper,
    Lower,
}

impl Function {
    fn of(&self, value: &Value) -> Result<String> {
        Ok(match (self, value) {
            (Function::Plain, value) => plain(value),
            (Function::Json, value) => value.to_string(),
            (Function::Upper, value) => plain(value).to_uppercase(),
            (Function::Lower, value) => plain(value).to_lowercase(),
            (Function::Len, Value::Array(values)) => values.len().to_string(),
            (Function::Len, Value::Object(fields)) => fields.len().to_string(),
            (Function::Len, Value::String(text)) => text.len().to_string(),
            (Function::Len, Value::Null) => "0".to_owned(),
            (Function::Index(key), Value::Array(values)) => {
                let at = key.parse().ok().and_then(|place: usize| values.get(place));
                plain(at.ok_or_else(|| wrong(&format!("there is no element {key}")))?)
            }
            // What is not in a map is nothing, which prints as nothing.
            (Function::Index(key), Value::Object(fields)) => {
                fields.get(key).map(plain).unwrap_or_default()
            }
            (Function::Index(_), Value::Null) => String::new(),
            (Function::Join(between), Value::Array(values)) => {
                values.iter().map(plain).collect::<Vec<_>>().join(between)
            }
            (Function::Join(_), Value::Null) => String::new(),
            (function, value) => {
                return Err(wrong(&format!("{function:?} of {value} has no meaning")));
            }
        })
    }
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
                Part::Value { path, function } => {
                    line.push_str(&function.of(find(object, path)?)?);
                }
            }
        }
        Ok(line)
    }
}

fn wrong(why: &str) -> Error {
    Error::option(
        "--format",
        format!(
            "{why}; {{{{.FIELD}}}}, text, and json, len, index, join, upper and lower can be used"
        ),
    )
}

/// Reads what stands between the braces.
fn value(action: &str) -> Result<Part> {
    let words = words(action);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (function, path) = match words.as_slice() {
        [path] => (Function::Plain, *path),
        ["json", path] => (Function::Json, *path),
        ["len", path] => (Function::Len, *path),
        ["upper", path] => (Function::Upper, *path),
        ["lower", path] => (Function::Lower, *path),
        ["index", path, key] => (Function::Index((*key).to_owned()), *path),
        ["join", path, between] => (Function::Join((*between).to_owned()), *path),
        _ => return Err(wrong(&format!("{{{{{action}}}}} is not understood"))),
    };
    let Some(fields) = path.strip_prefix('.') else {
        return Err(wrong(&format!("{{{{{action}}}}} is not understood")));
    };
    let path = fields.split('.').filter(|_| !fields.is_empty()).map(str::to_owned).collect();
    Ok(Part::Value { path, function })
}

/// The words of an action; what stands between quotation marks is one.
fn words(action: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in action.split('"').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
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

/// The fuzz target's way in: reads a template and fills it in.
#[cfg(fuzzing)]
pub fn fuzz_template(text: &str, object: &Value) {
    if let Ok(template) = Template::parse(text) {
        drop((template.header(), template.render(object)));
    }
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
        assert_eq!(render("{{len .Names}}{{index .Names 1}}{{join .Names \", \"}}"), "2ba, b");
        assert_eq!(render("{{upper .ID}}|{{index .Config \"Nope\"}}|{{lower .ID}}"), "0A||0a");
        for wrong in ["", "text", "{{", "{{.ID", "{{range .}}", "{{if .ID}}", "{{ID}}", "{{len}}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Template::parse("{{.Nope}}").unwrap().render(&object).is_err());
        let table = Template::parse("table {{.ID}}\\t{{.CreatedBy}}").unwrap();
        assert_eq!(table.header(), "ID\tCREATED BY");
    }
}
