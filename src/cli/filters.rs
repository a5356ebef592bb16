//! `--filter KEY=VALUE`, as docker has it: values of one key are alternatives, keys all must fit.

use crate::error::{Error, Result};

/// The filters of one command.
#[derive(Debug, Default)]
pub(super) struct Filters(Vec<(String, String)>);

impl Filters {
    /// Reads them; `known` are the keys that the verb has.
    ///
    /// # Errors
    /// For a filter without a value or with another key.
    pub(super) fn parse(texts: &[String], known: &[&str]) -> Result<Filters> {
        let filter = |text: &String| match text.split_once('=') {
            Some((key, value)) if known.contains(&key) => Ok((key.to_owned(), value.to_owned())),
            _ => {
                let why = format!("{text:?} is not KEY=VALUE with one of {}", known.join(", "));
                Err(Error::option("--filter", why))
            }
        };
        texts.iter().map(filter).collect::<Result<_>>().map(Filters)
    }

    /// Whether there is a filter with this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    /// Whether a value of `key` fits; true where there is none.
    pub(super) fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        let mut values = self.0.iter().filter(|(known, _)| known == key).peekable();
        values.peek().is_none() || values.any(|(_, value)| fits(value))
    }
}
