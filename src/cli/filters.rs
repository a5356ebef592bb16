//! `--filter KEY=VALUE`, as docker has it: values of one key are alternatives, keys all must fit.

use crate::error::{Error, Result};

/// Whether `text` fits `pattern`, in which `*` and `?` stand for anything but a slash, `[a-c]` for one
/// of these characters, and a backslash takes the meaning of the next one away.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Where each prefix of the pattern may have come to in the text: linear in both, whatever it is.
    let mut places = vec![true];
    places.resize(text.len() + 1, false);
    let mut rest = pattern.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let mut next = vec![false; text.len() + 1];
        if *first == '*' {
            let mut open = false;
            for (place, reached) in places.iter().enumerate() {
                let slash = place.checked_sub(1).and_then(|i| text.get(i)) == Some(&'/');
                open = *reached || (open && !slash);
                if let Some(next) = next.get_mut(place) {
                    *next = open;
                }
            }
            rest = after;
        } else {
            let (fits, after) = one(*first, after);
            for (place, c) in text.iter().enumerate() {
                if let (Some(true), Some(next)) = (places.get(place), next.get_mut(place + 1)) {
                    *next = fits(*c);
                }
            }
            rest = after;
        }
        places = next;
    }
    places.last() == Some(&true)
}

/// What the next part of a pattern fits, and what follows it.
fn one(first: char, after: &[char]) -> (Box<dyn Fn(char) -> bool + '_>, &[char]) {
    let class = after.iter().position(|c| *c == ']').filter(|end| first == '[' && *end > 0);
    match (first, class, after.split_first()) {
        ('?', ..) => (Box::new(|c| c != '/'), after),
        ('\\', _, Some((literal, after))) => (Box::new(move |c| c == *literal), after),
        (_, Some(end), _) => {
            let (class, after) = after.split_at(end);
            let (not, class) = match class.split_first() {
                Some(('^', class)) => (true, class),
                _ => (false, class),
            };
            let in_class = move |c: char| {
                let range = |w: &[char]| matches!(w, [from, '-', to] if (*from..=*to).contains(&c));
                class.contains(&c) || class.windows(3).any(range)
            };
            (Box::new(move |c| in_class(c) != not), after.get(1..).unwrap_or_default())
        }
        _ => (Box::new(move |c| c == first), after),
    }
}

/// What docker takes for yes and no.
pub(super) fn is_on(value: &str) -> Option<bool> {
    match value {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

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

    /// Refuses a value of `key` that is neither yes nor no.
    pub(super) fn check_switch(&self, key: &str) -> Result<()> {
        let mut values = self.0.iter().filter(|(known, _)| known == key);
        match values.find(|(_, value)| is_on(value).is_none()) {
            Some((_, value)) => {
                Err(Error::option("--filter", format!("{key} is true or false, not {value:?}")))
            }
            None => Ok(()),
        }
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

/// The fuzz target's way in.
#[cfg(fuzzing)]
pub fn fuzz_glob(pattern: &str, text: &str) -> bool {
    glob(pattern, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, text) in [
            ("b*", "busybox"),
            ("*box", "busybox"),
            ("b?s*x", "busybox"),
            ("*", ""),
            ("a/*", "a/b"),
            ("[a-c]x", "bx"),
            ("[^a-c]x", "dx"),
            ("\\*", "*"),
            ("**", "ab"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("b*", "a/b"),
            ("*", "a/b"),
            ("b", "bb"),
            ("?", "/"),
            ("[a-c]", "d"),
            ("", "a"),
            ("[", "a"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
