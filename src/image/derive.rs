//! The config of a new image from that of the image below it.

use serde_json::{Map, Value, json};

use super::instruction::Instruction;
use super::{DiffId, ParseError, Platform, Timestamp};

/// What makes the new image.
#[derive(Debug, Clone)]
pub struct Derivation<'a> {
    /// When it is made.
    pub created: Timestamp,
    /// By what.
    pub created_by: &'a str,
    /// Who makes it; without, the author below stays.
    pub author: Option<&'a str>,
    /// What there is to say of it.
    pub comment: Option<&'a str>,
    /// The layer that it adds; `None` where it only changes the config.
    pub layer: Option<DiffId>,
    /// Whether that layer holds everything, instead of lying on those below.
    pub squash: bool,
    /// Changes of the config, in their order.
    pub changes: &'a [Instruction],
}

/// The config of an image without layers, for this machine.
pub fn scratch() -> Value {
    let Platform { architecture, os, .. } = Platform::host();
    json!({
        "architecture": architecture,
        "os": os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
        "history": [],
    })
}

/// What only the image below was: of which container it was made, and by which docker.
const STALE: [&str; 5] = ["container", "container_config", "docker_version", "id", "parent"];

impl Derivation<'_> {
    /// The bytes of the new config. Whatever `base` says that this program knows nothing of
    /// stays. Equal input gives equal bytes.
    ///
    /// # Errors
    /// Where `base` is no config.
    pub fn config(&self, base: Value) -> Result<Vec<u8>, ParseError> {
        let Value::Object(mut config) = base else {
            return Err(ParseError::new("not an image config"));
        };
        for key in STALE {
            config.remove(key);
        }
        config.insert("created".to_owned(), json!(self.created));
        if let Some(author) = self.author {
            config.insert("author".to_owned(), json!(author));
        }
        self.add_layer(&mut config);
        self.change(&mut config);
        Ok(Value::Object(config).to_string().into_bytes())
    }

    fn add_layer(&self, config: &mut Map<String, Value>) {
        // An image without layers need not say so.
        let diff_ids = config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids"));
        let mut layers = diff_ids.and_then(Value::as_array).cloned().unwrap_or_default();
        let mut history = match config_history(config, layers.len()) {
            _ if self.squash => Vec::new(),
            history => history,
        };
        if self.squash {
            layers.clear();
        }
        layers.extend(self.layer.map(|layer| json!(layer)));
        history.push(self.step());
        config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": layers }));
        config.insert("history".to_owned(), Value::from(history));
    }

    fn step(&self) -> Value {
        let mut step = Map::new();
        let mut set = |key: &str, value: Value| step.insert(key.to_owned(), value);
        set("created", json!(self.created));
        set("created_by", json!(self.created_by));
        if let Some(author) = self.author {
            set("author", json!(author));
        }
        if let Some(comment) = self.comment {
            set("comment", json!(comment));
        }
        if self.layer.is_none() {
            set("empty_layer", json!(true));
        }
        Value::Object(step)
    }

    fn change(&self, config: &mut Map<String, Value>) {
        let inner = config.entry("config").or_insert_with(|| json!({}));
        if !inner.is_object() {
            *inner = json!({});
        }
        let Some(inner) = inner.as_object_mut() else { return };
        let mut has_command = false;
        for change in self.changes {
            has_command |= matches!(change, Instruction::Cmd(_));
            // A command was meant for the entrypoint that it was given with.
            if matches!(change, Instruction::Entrypoint(_)) && !has_command {
                inner.remove("Cmd");
            }
            change.apply(inner);
        }
    }
}

/// The history so far. There must be a step for each layer, or other tools call the config
/// inconsistent; one that says nothing of some gets empty steps.
fn config_history(config: &Map<String, Value>, layers: usize) -> Vec<Value> {
    let mut history = config.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_layer = |step: &&Value| step.get("empty_layer").and_then(Value::as_bool) != Some(true);
    let told = history.iter().filter(is_layer).count();
    let created = config.get("created").cloned();
    for _ in told..layers {
        let mut step = Map::new();
        step.extend(created.clone().map(|created| ("created".to_owned(), created)));
        history.push(Value::Object(step));
    }
    history
}
