//! Instructions of a Dockerfile that change an image's config: what `--change` takes.

use serde_json::{Map, Value, json};

use super::ParseError;

/// One instruction, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `CMD`: what a container runs.
    Cmd(Command),
    /// `ENTRYPOINT`: what a container runs, whatever its command.
    Entrypoint(Command),
    /// `ENV`: variables.
    Env(Vec<(String, String)>),
    /// `EXPOSE`: ports as `80/tcp`.
    Expose(Vec<String>),
    /// `LABEL`: keys and values.
    Label(Vec<(String, String)>),
    /// `ONBUILD`: an instruction for images built on this one.
    OnBuild(String),
    /// `STOPSIGNAL`: by name or number.
    StopSignal(String),
    /// `USER`: name or number, and a group.
    User(String),
    /// `VOLUME`: directories.
    Volume(Vec<String>),
    /// `WORKDIR`: a directory; a relative one is below the present one.
    Workdir(String),
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A list of words: `["ls", "-l"]`.
    Exec(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

impl Instruction {
    /// Reads one instruction, as `CMD ["sh"]` or `env A=1 B="2 3"`.
    ///
    /// # Errors
    /// Where it is not one that a config can take in, or is malformed.
    pub fn parse(text: &str) -> Result<Instruction, ParseError> {
        let text = text.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(ParseError::new(format!("{text:?} has no argument")));
        }
        Ok(match name.to_ascii_uppercase().as_str() {
            "CMD" => Instruction::Cmd(command(rest)),
            "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
            "ENV" => Instruction::Env(pairs(rest)?),
            "EXPOSE" => Instruction::Expose(ports(rest)?),
            "LABEL" => Instruction::Label(pairs(rest)?),
            "ONBUILD" => Instruction::OnBuild(rest.to_owned()),
            "STOPSIGNAL" => Instruction::StopSignal(rest.to_owned()),
            "USER" => Instruction::User(rest.to_owned()),
            "VOLUME" => Instruction::Volume(exec_form(rest).map_or_else(|| words(rest), Ok)?),
            "WORKDIR" => Instruction::Workdir(words(rest)?.join(" ")),
            _ => {
                return Err(ParseError::new(format!(
                    "{name:?} cannot change an image; what can is CMD, ENTRYPOINT, ENV, EXPOSE, \
                     LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR"
                )));
            }
        })
    }

    /// Applies it to the `config` object of an image config.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) {
        match self {
            Instruction::Cmd(command) => set(config, "Cmd", command.words(config)),
            Instruction::Entrypoint(command) => set(config, "Entrypoint", command.words(config)),
            Instruction::Env(pairs) => pairs.iter().for_each(|(key, value)| {
                set_variable(config, key, value);
            }),
            Instruction::Expose(ports) => add_keys(config, "ExposedPorts", ports),
            Instruction::Label(pairs) => {
                let labels = pairs.iter().map(|(key, value)| (key.clone(), json!(value)));
                add(config, "Labels", labels);
            }
            Instruction::OnBuild(text) => {
                let mut list = take_list(config, "OnBuild");
                list.push(json!(text));
                set(config, "OnBuild", Value::from(list));
            }
            Instruction::StopSignal(signal) => set(config, "StopSignal", json!(signal)),
            Instruction::User(user) => set(config, "User", json!(user)),
            Instruction::Volume(paths) => add_keys(config, "Volumes", paths),
            Instruction::Workdir(dir) => {
                let present = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let dir = below(present, dir);
                set(config, "WorkingDir", json!(dir));
            }
        }
    }
}

impl Command {
    fn words(&self, config: &Map<String, Value>) -> Value {
        match self {
            Command::Exec(words) => json!(words),
            Command::Shell(line) => {
                let shell = config.get("Shell").and_then(Value::as_array).cloned();
                let mut words = shell.unwrap_or_else(|| vec![json!("/bin/sh"), json!("-c")]);
                words.push(json!(line));
                Value::from(words)
            }
        }
    }
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// Adds fields to the object at `key`; made where there is none.
fn add(config: &mut Map<String, Value>, key: &str, fields: impl Iterator<Item = (String, Value)>) {
    let mut object = match config.remove(key) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    };
    object.extend(fields);
    config.insert(key.to_owned(), Value::Object(object));
}

/// The list at `key`, taken out; empty where there is none.
fn take_list(config: &mut Map<String, Value>, key: &str) -> Vec<Value> {
    match config.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn add_keys(config: &mut Map<String, Value>, key: &str, names: &[String]) {
    add(config, key, names.iter().map(|name| (name.clone(), json!({}))));
}

/// Sets one variable in the place that it had.
fn set_variable(config: &mut Map<String, Value>, key: &str, value: &str) {
    let mut env = take_list(config, "Env");
    let line = json!(format!("{key}={value}"));
    let is_key = |line: &Value| {
        line.as_str().and_then(|line| line.split_once('=')).is_some_and(|(name, _)| name == key)
    };
    match env.iter_mut().find(|line| is_key(line)) {
        Some(present) => *present = line,
        None => env.push(line),
    }
    set(config, "Env", Value::from(env));
}

fn below(present: &str, dir: &str) -> String {
    if dir.starts_with('/') {
        return dir.to_owned();
    }
    format!("{}/{dir}", present.trim_end_matches('/'))
}

fn command(text: &str) -> Command {
    exec_form(text).map_or_else(|| Command::Shell(text.to_owned()), Command::Exec)
}

/// A JSON list of strings, if that is what it is.
fn exec_form(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// `KEY=VALUE` in any number, or the old form `KEY VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, ParseError> {
    let wrong = || ParseError::new(format!("{text:?} is not KEY=VALUE"));
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace).ok_or_else(wrong)?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(wrong()),
    };
    words(text)?.into_iter().map(pair).collect()
}

/// Splits at white space, which quotes and backslashes protect.
fn words(text: &str) -> Result<Vec<String>, ParseError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let escaped = characters.next().unwrap_or('\\');
                word.get_or_insert_default().push(escaped);
            }
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(ParseError::new(format!("{text:?} has a quote that is not closed")));
    }
    words.extend(word);
    Ok(words)
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, ParseError> {
    let mut ports = Vec::new();
    for word in text.split_whitespace() {
        let wrong = || ParseError::new(format!("{word:?} is not a port, as 80, 80/udp or 80-89"));
        let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || !matches!(protocol, "tcp" | "udp" | "sctp") {
            return Err(wrong());
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_a_config() {
        let mut config = json!({ "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv" });
        let config = config.as_object_mut().unwrap();
        for text in [
            r#"env A="2 3" B=4"#,
            "EXPOSE 80 90-91/udp",
            "LABEL one.two='x y'",
            "ONBUILD RUN true",
            "user 5:6",
            "VOLUME /data /more",
            "WORKDIR www",
            "CMD echo $A",
            r#"ENTRYPOINT ["/init", "-q"]"#,
        ] {
            Instruction::parse(text).unwrap().apply(config);
        }
        let expected = json!({
            "Env": ["PATH=/bin", "A=2 3", "B=4"],
            "ExposedPorts": { "80/tcp": {}, "90/udp": {}, "91/udp": {} },
            "Labels": { "one.two": "x y" },
            "OnBuild": ["RUN true"],
            "User": "5:6",
            "Volumes": { "/data": {}, "/more": {} },
            "WorkingDir": "/srv/www",
            "Cmd": ["/bin/sh", "-c", "echo $A"],
            "Entrypoint": ["/init", "-q"],
        });
        assert_eq!(*config, *expected.as_object().unwrap());
        for wrong in ["RUN x", "ENV", "ENV A", "EXPOSE x", "EXPOSE 9-8", "ENV A='x", ""] {
            assert!(Instruction::parse(wrong).is_err(), "{wrong}");
        }
    }
}
