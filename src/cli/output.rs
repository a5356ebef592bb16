//! What people and programs are shown: tables, JSON, sizes, ages, names.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::error::{Errno, Error, Result};

/// Writes `bytes` to standard output. A closed pipe is an error like any other, not a panic.
pub(super) fn print(bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.as_ref()).and_then(|()| out.flush()).map_err(|error| output_error(&error))
}

/// A failure to write to standard output.
fn output_error(error: &io::Error) -> Error {
    Error::std_io("write to", "standard output", error)
}

/// Prints one line.
pub(super) fn print_line(line: &str) -> Result<()> {
    print(format!("{line}\n"))
}

/// Prints a JSON document.
pub(super) fn print_json(document: &Value) -> Result<()> {
    print_line(&format!("{document:#}"))
}

/// Says what went wrong, as one line on standard error.
pub(super) fn complain(error: &Error) {
    let line = format!("plyfs: {}\n", escaped(error.to_string().as_bytes()));
    // Where standard error is closed there is nobody left to tell; the exit code still does.
    if io::stderr().write_all(line.as_bytes()).is_err() {
        tracing::debug!("standard error is closed");
    }
}

/// Does `each` for every name, also after one failed; what went wrong is said at once for all
/// but the last failure, which is returned.
pub(super) fn for_each(names: &[String], mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    for name in names {
        let Err(error) = each(name) else { continue };
        if matches!(error, Error::Io { source: Errno::PIPE, .. }) {
            return Err(error);
        }
        if let Err(earlier) = std::mem::replace(&mut outcome, Err(error)) {
            complain(&earlier);
        }
    }
    outcome
}

/// What a removal gave. What was not there is said, but with `force` no failure, as with docker
/// and podman: it is gone.
pub(super) fn unless_gone<T>(force: bool, removed: Result<T>) -> Result<Option<T>> {
    match removed {
        Err(error @ Error::NotFound { .. }) if force => {
            complain(&error);
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Prints a table as docker does: columns apart by three spaces, the last one ragged.
pub(super) fn print_table(header: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            shown.push_str(&format!("{cell:width$}   "));
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    print(text)
}

/// A size as docker shows it: decimal units, three digits.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while value >= 999.5
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = next;
    }
    let decimals = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let mut digits = format!("{value:.decimals$}");
    if digits.contains('.') {
        digits.truncate(digits.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{digits}{unit}")
}

/// How long ago something was, in docker's words.
pub(super) fn age(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds.max(0) {
        0 => "Less than a second ago".to_owned(),
        1 => "1 second ago".to_owned(),
        s if s < MINUTE => format!("{s} seconds ago"),
        s if s < 2 * MINUTE => "About a minute ago".to_owned(),
        s if s < HOUR => format!("{} minutes ago", s / MINUTE),
        s if s < HOUR + HOUR / 2 => "About an hour ago".to_owned(),
        s if s < 2 * DAY => format!("{} hours ago", (s + HOUR / 2) / HOUR),
        s if s < 14 * DAY => format!("{} days ago", s / DAY),
        s if s < 60 * DAY => format!("{} weeks ago", s / (7 * DAY)),
        s if s < 730 * DAY => format!("{} months ago", s / (30 * DAY)),
        s => format!("{} years ago", s / (365 * DAY)),
    }
}

/// Refuses to write binary data to a person's screen.
pub(super) fn check_not_terminal() -> Result<()> {
    if io::stdout().is_terminal() {
        return Err(Error::Refused(
            "will not write an archive to a terminal: give -o FILE or redirect".to_owned(),
        ));
    }
    Ok(())
}

/// The bytes of a path for standard output: as they are for programs, and harmless to a terminal.
pub(super) fn path_bytes(path: &[u8]) -> Vec<u8> {
    if io::stdout().is_terminal() { escaped(path).into_bytes() } else { path.to_vec() }
}

/// Text in which control characters and what is not UTF-8 stand as escapes.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, shown) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_261_550, "4.26MB"),
            (72_790_000, "72.8MB"),
            (999_600, "1MB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn nothing_a_terminal_obeys_is_left() {
        assert_eq!(escaped(b"/a\x1b[2J\n\xff\xc3\xa4"), "/a\\u{1b}[2J\\n\\xff\u{e4}");
    }
}
