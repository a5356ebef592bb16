//! Words of Dockerfile instructions: quotes, backslashes, and variables of the image.

use super::ParseError;

/// One word, in which the variables are still to be put in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `$NAME`, `${NAME}`; with `:-` what stands for one that is not set or empty, with `:+` for
    /// one that is.
    Variable {
        name: String,
        or_else: Option<Word>,
        and_then: Option<Word>,
    },
}

impl Word {
    /// A word that is what it says.
    pub fn plain(text: &str) -> Word {
        let mut word = Word::default();
        text.chars().for_each(|c| word.push(c));
        word
    }

    /// The text with the variables put in; one that is not set is empty.
    pub fn expand(&self, variable: &dyn Fn(&str) -> Option<String>) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable { name, or_else, and_then } => {
                let value = variable(name).filter(|value| !value.is_empty());
                match (value, or_else, and_then) {
                    (Some(_), _, Some(word)) | (None, Some(word), _) => word.expand(variable),
                    (Some(_), Some(_), None) | (_, None, None) => {
                        variable(name).unwrap_or_default()
                    }
                    (None, None, Some(_)) => String::new(),
                }
            }
        };
        self.0.iter().map(part).collect()
    }

    /// The parts around the first `=` that is no variable's; `None` where there is none.
    pub(super) fn split_at_equals(self) -> Option<(Word, Word)> {
        let is_here = |part: &Part| matches!(part, Part::Text(text) if text.contains('='));
        let at = self.0.iter().position(is_here)?;
        let mut parts = self.0;
        let mut value = parts.split_off(at);
        let Some(Part::Text(text)) = value.first_mut() else { return None };
        let (key, rest) = text.split_once('=')?;
        let key = key.to_owned();
        *text = rest.to_owned();
        parts.push(Part::Text(key));
        Some((Word(parts), Word(value)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(text) if text.is_empty()))
    }

    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => self.0.push(Part::Text(c.to_string())),
        }
    }
}

/// Splits at white space, which quotes and backslashes protect.
pub(super) fn words(text: &str) -> Result<Vec<Word>, ParseError> {
    read(text, true)
}

/// All of the text as one word.
pub(super) fn one_word(text: &str) -> Result<Word, ParseError> {
    Ok(read(text, false)?.pop().unwrap_or_default())
}

fn read(text: &str, split: bool) -> Result<Vec<Word>, ParseError> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let escaped = rest.next().unwrap_or('\\');
                word.get_or_insert_default().push(escaped);
            }
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('$', None | Some('"')) => {
                let part = variable(&mut rest)?;
                word.get_or_insert_default().0.push(part);
            }
            (c, None) if split && c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(ParseError::new(format!("{text:?} has a quote that is not closed")));
    }
    words.extend(word);
    Ok(words)
}

/// What follows a `$`.
fn variable(rest: &mut std::str::Chars<'_>) -> Result<Part, ParseError> {
    let text = rest.as_str();
    let Some(inside) = text.strip_prefix('{') else {
        let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
        let (name, after) = text.split_at(end);
        *rest = after.chars();
        return Ok(match name {
            "" => Part::Text("$".to_owned()),
            name => Part::Variable { name: name.to_owned(), or_else: None, and_then: None },
        });
    };
    let wrong = || {
        ParseError::new(format!(
            "\"${text}\" is not $NAME, ${{NAME}}, ${{NAME:-WORD}} or ${{NAME:+WORD}}"
        ))
    };
    let (body, after) = inside.split_once('}').ok_or_else(wrong)?;
    let (name, word) = match body.find(|c: char| !is_name(c)) {
        Some(end) => body.split_at(end),
        None => (body, ""),
    };
    // A word in braces has no variables of its own: it would need braces to be counted.
    let plain = |word: &str| Some(Word::plain(word));
    let (or_else, and_then) = match word.split_at_checked(2) {
        Some((":-", word)) => (plain(word), None),
        Some((":+", word)) => (None, plain(word)),
        _ if word.is_empty() => (None, None),
        _ => return Err(wrong()),
    };
    if name.is_empty() {
        return Err(wrong());
    }
    *rest = after.chars();
    Ok(Part::Variable { name: name.to_owned(), or_else, and_then })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_where_a_shell_would() {
        let variable = |name: &str| match name {
            "A" => Some("one two".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("x$A", vec!["xone two"]),
            ("${A}b $A_b|", vec!["one twob", "|"]),
            (r#""$A" '$A' \$A"#, vec!["one two", "$A", "$A"]),
            ("${A:-x} ${B:-x} ${EMPTY:-x}", vec!["one two", "x", "x"]),
            ("${A:+x} ${B:+x}. ${EMPTY:+x}.", vec!["x", ".", "."]),
            ("$ $$A a$", vec!["$", "$one two", "a$"]),
        ] {
            let found = words(text).unwrap();
            let found: Vec<_> = found.iter().map(|word| word.expand(&variable)).collect();
            assert_eq!(found, expected, "{text}");
        }
        for wrong in ["${", "${}", "${A", "${A:?x}", "${A%x}", "${:-x}"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
        assert_eq!(one_word("a  'b'  $A").unwrap().expand(&variable), "a  b  one two");
    }
}
