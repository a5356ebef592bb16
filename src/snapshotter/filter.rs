//! What List is to show: containerd's filter language.
//!
//! A filter is a list of selectors, separated by commas, all of which must match; of several
//! filters one must. A selector is a field (`name`, `parent`, `kind`, `labels.KEY`) and, unless
//! only its presence is asked for, `==`, `!=` or `~=` (a regular expression) and a value. Parts
//! of a field and values may stand in double quotes, values also between `/` or `|`.

use regex::Regex;

use crate::store::{SnapshotKind, SnapshotRecord};

use super::failure::{Failure, Outcome};

/// Filters, one of which must match.
#[derive(Debug)]
pub(super) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    field: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// # Errors
    /// `InvalidArgument` that shows what could not be read.
    pub(super) fn parse(filters: &[String]) -> Outcome<Filters> {
        let parse = |filter: &String| {
            let mut reader = Reader { rest: filter };
            reader.selectors().map_err(|why| Failure::invalid(format!("filter {filter}: {why}")))
        };
        Ok(Filters(filters.iter().map(parse).collect::<Outcome<_>>()?))
    }

    pub(super) fn match_record(&self, record: &SnapshotRecord) -> bool {
        let all = |selectors: &Vec<Selector>| selectors.iter().all(|one| one.matches(record));
        self.0.is_empty() || self.0.iter().any(all)
    }
}

impl Selector {
    fn matches(&self, record: &SnapshotRecord) -> bool {
        let value = field(record, &self.field);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Test::Matches(pattern) => pattern.is_match(value.unwrap_or_default()),
        }
    }
}

fn field<'a>(record: &'a SnapshotRecord, path: &[String]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "name" => Some(&record.name),
        "parent" => Some(record.parent.as_deref().unwrap_or_default()),
        "kind" => Some(match record.kind {
            SnapshotKind::View => "view",
            SnapshotKind::Active => "active",
            SnapshotKind::Committed => "committed",
        }),
        "labels" => record.labels.get(&rest.join(".")).map(String::as_str),
        _ => None,
    }
}

/// The fuzz target's way in: reads a filter and asks it about a snapshot.
#[cfg(fuzzing)]
pub fn fuzz_filter(text: &str, record: &SnapshotRecord) {
    match Filters::parse(&[text.to_owned()]) {
        Ok(filters) => drop(filters.match_record(record)),
        Err(error) => assert!(error.to_string().contains(text)),
    }
}

/// Reads a filter from its start.
struct Reader<'a> {
    rest: &'a str,
}

type Read<T> = Result<T, String>;

impl<'a> Reader<'a> {
    fn selectors(&mut self) -> Read<Vec<Selector>> {
        let mut selectors = Vec::new();
        if self.rest.is_empty() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            if self.rest.is_empty() {
                return Ok(selectors);
            }
            if !self.skip(",") {
                return Err(format!("a comma is expected before {}", self.rest));
            }
        }
    }

    fn selector(&mut self) -> Read<Selector> {
        let mut field = vec![self.field_part()?];
        while self.skip(".") {
            field.push(self.field_part()?);
        }
        let test = if self.skip("==") {
            Test::Equal(self.value()?)
        } else if self.skip("!=") {
            Test::NotEqual(self.value()?)
        } else if self.skip("~=") {
            Test::Matches(Regex::new(&self.value()?).map_err(|error| error.to_string())?)
        } else {
            Test::Present
        };
        Ok(Selector { field, test })
    }

    fn field_part(&mut self) -> Read<String> {
        if self.rest.starts_with('"') {
            return self.quoted('"');
        }
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match word.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            true => Ok(word.to_owned()),
            false => Err(format!("a field is expected at {word}{}", self.rest)),
        }
    }

    fn value(&mut self) -> Read<String> {
        match self.rest.chars().next() {
            Some(quote @ ('"' | '/' | '|')) => self.quoted(quote),
            _ => match self.take_while(|c| c != ',' && !c.is_whitespace()) {
                "" => Err("a value is expected".to_owned()),
                value => Ok(value.to_owned()),
            },
        }
    }

    /// What stands between two `quote`s; a backslash before one keeps it.
    fn quoted(&mut self, quote: char) -> Read<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = self.rest.get(at + c.len_utf8()..).unwrap_or_default();
                return Ok(text);
            }
            match (c, quote) {
                ('\\', '"') => text.push(escaped(chars.next().map(|(_, c)| c))?),
                // In a pattern only the quote itself is escaped; the rest is the pattern's.
                ('\\', _) => match chars.next() {
                    Some((_, c)) if c == quote => text.push(c),
                    Some((_, c)) => text.extend(['\\', c]),
                    None => break,
                },
                _ => text.push(c),
            }
        }
        Err(format!("the quote {quote} is not closed"))
    }

    fn skip(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

fn escaped(c: Option<char>) -> Read<char> {
    match c {
        Some(c @ ('"' | '\\' | '\'')) => Ok(c),
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('r') => Ok('\r'),
        other => Err(format!("\\{} means nothing", other.unwrap_or(' '))),
    }
}
