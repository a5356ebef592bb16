//! Instructions of a Dockerfile that change an image's config: what `--change` takes.

use serde_json::{Map, Value, json};

use super::ParseError;
use super::word::{Word, one_word, words};

/// One instruction, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `CMD`: what a container runs.
    Cmd(Command),
    /// `ENTRYPOINT`: what a container runs, whatever its command.
    Entrypoint(Command),
    /// `ENV`: variables.
    Env(Vec<(Word, Word)>),
    /// `EXPOSE`: ports as `80/tcp`.
    Expose(Vec<String>),
    /// `LABEL`: keys and values.
    Label(Vec<(Word, Word)>),
    /// `ONBUILD`: an instruction for images built on this one.
    OnBuild(String),
    /// `STOPSIGNAL`: by name or number.
    StopSignal(Word),
    /// `USER`: name or number, and a group.
    User(Word),
    /// `VOLUME`: directories.
    Volume(Vec<Word>),
    /// `WORKDIR`: a directory; a relative one is below the present one.
    Workdir(Word),
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
            "CMD" => Instruction::Cmd(command(rest)?),
            "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
            "ENV" => Instruction::Env(pairs(rest)?),
            "EXPOSE" => Instruction::Expose(ports(rest)?),
            "LABEL" => Instruction::Label(pairs(rest)?),
            "ONBUILD" => Instruction::OnBuild(trigger(rest)?),
            "STOPSIGNAL" => Instruction::StopSignal(one_word(rest)?),
            "USER" => Instruction::User(one_word(rest)?),
            "VOLUME" => Instruction::Volume(volumes(rest)?),
            "WORKDIR" => Instruction::Workdir(one_word(rest)?),
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
        // The variables are those of before the instruction, as with docker.
        let before = config.get("Env").cloned().unwrap_or_default();
        let said = |word: &Word| word.expand(&|name| variable(&before, name));
        match self {
            Instruction::Cmd(command) => set(config, "Cmd", command.words(config)),
            Instruction::Entrypoint(command) => set(config, "Entrypoint", command.words(config)),
            Instruction::Env(pairs) => pairs.iter().for_each(|(key, value)| {
                set_variable(config, &said(key), &said(value));
            }),
            Instruction::Expose(ports) => add_keys(config, "ExposedPorts", ports),
            Instruction::Label(pairs) => {
                let labels = pairs.iter().map(|(key, value)| (said(key), json!(said(value))));
                add(config, "Labels", labels);
            }
            Instruction::OnBuild(text) => {
                let mut list = take_list(config, "OnBuild");
                list.push(json!(text));
                set(config, "OnBuild", Value::from(list));
            }
            Instruction::StopSignal(signal) => set(config, "StopSignal", json!(said(signal))),
            Instruction::User(user) => set(config, "User", json!(said(user))),
            Instruction::Volume(paths) => {
                add_keys(config, "Volumes", &paths.iter().map(said).collect::<Vec<_>>());
            }
            Instruction::Workdir(dir) => {
                let present = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let dir = below(present, &said(dir));
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

/// What a variable of the list `env` is.
fn variable(env: &Value, name: &str) -> Option<String> {
    let lines = env.as_array()?.iter().filter_map(|line| line.as_str()?.split_once('='));
    lines.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
}

fn command(text: &str) -> Result<Command, ParseError> {
    Ok(exec_form(text)?.map_or_else(|| Command::Shell(text.to_owned()), Command::Exec))
}

/// A list of words, if it is one.
fn exec_form(text: &str) -> Result<Option<Vec<String>>, ParseError> {
    let Ok(Value::Array(list)) = serde_json::from_str(text) else { return Ok(None) };
    let words = list.into_iter().map(|word| word.as_str().map(str::to_owned)).collect();
    let wrong = || ParseError::new(format!("{text:?} is a list of other things than strings"));
    Option::<Vec<String>>::ok_or_else(words, wrong).map(Some)
}

fn volumes(text: &str) -> Result<Vec<Word>, ParseError> {
    let listed = exec_form(text)?.map(|paths| paths.iter().map(|path| Word::plain(path)).collect());
    let paths: Vec<Word> = listed.map_or_else(|| words(text), Ok)?;
    if paths.iter().any(Word::is_empty) {
        return Err(ParseError::new(format!("{text:?} names no directory")));
    }
    Ok(paths)
}

/// An instruction that may wait for a later build.
fn trigger(text: &str) -> Result<String, ParseError> {
    let name = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Err(ParseError::new(format!("{text:?} cannot wait for a later build")));
    }
    Ok(text.to_owned())
}

/// `KEY=VALUE` in any number, or the old form `KEY VALUE`.
fn pairs(text: &str) -> Result<Vec<(Word, Word)>, ParseError> {
    let wrong = || ParseError::new(format!("{text:?} is not KEY=VALUE"));
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace).ok_or_else(wrong)?;
        return Ok(vec![(one_word(key)?, one_word(value.trim())?)]);
    }
    let pair = |word: Word| match word.split_at_equals() {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(wrong()),
    };
    words(text)?.into_iter().map(pair).collect()
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
            r#"env A="2 3" B=4 C=$A-${D:-d}"#,
            "ENV PATH=/sbin:$PATH",
            "EXPOSE 80 90-91/udp",
            "LABEL one.two='x y'",
            "ONBUILD RUN true",
            "user 5:$B",
            "VOLUME /data '/more'",
            "WORKDIR www",
            "CMD echo $A",
            r#"ENTRYPOINT ["/init", "-q"]"#,
        ] {
            Instruction::parse(text).unwrap().apply(config);
        }
        let expected = json!({
            "Env": ["PATH=/sbin:/bin", "A=2 3", "B=4", "C=1-d"],
            "ExposedPorts": { "80/tcp": {}, "90/udp": {}, "91/udp": {} },
            "Labels": { "one.two": "x y" },
            "OnBuild": ["RUN true"],
            "User": "5:4",
            "Volumes": { "/data": {}, "/more": {} },
            "WorkingDir": "/srv/www",
            "Cmd": ["/bin/sh", "-c", "echo $A"],
            "Entrypoint": ["/init", "-q"],
        });
        assert_eq!(*config, *expected.as_object().unwrap());
        let wrong = ["RUN x", "ENV", "ENV A", "EXPOSE x", "EXPOSE 9-8", "ENV A='x", ""];
        let more = ["ONBUILD FROM x", "ONBUILD onbuild RUN x", "VOLUME ''", "CMD [1, 2]"];
        for wrong in wrong.into_iter().chain(more).chain(["ENV A=${", "USER ${A?}"]) {
            assert!(Instruction::parse(wrong).is_err(), "{wrong}");
        }
    }
}
