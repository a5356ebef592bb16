//! Progress on standard error, where that is a terminal; nothing elsewhere.

mod bars;

pub(super) use bars::Bars;

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often what is shown moves.
const TICK: Duration = Duration::from_millis(100);

/// Says that something is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Shows `what` with the time that it takes; `quiet` shows nothing.
    pub(super) fn time(what: &str, quiet: bool) -> Progress {
        Progress::new("{spinner} {msg} {elapsed}", what, quiet)
    }

    /// As [`Progress::time`], with the bytes that were counted.
    pub(super) fn bytes(what: &str) -> Progress {
        Progress::new("{spinner} {msg} {decimal_bytes} {decimal_bytes_per_sec}", what, false)
    }

    /// As [`Progress::time`], with the things that were counted.
    pub(super) fn count(what: &str, quiet: bool) -> Progress {
        Progress::new("{spinner} {msg} {pos} {elapsed}", what, quiet)
    }

    fn new(template: &str, what: &str, quiet: bool) -> Progress {
        // indicatif itself keeps silent where standard error is no terminal.
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    /// Counts one more.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    /// Counts the bytes that go to `out`.
    pub(super) fn counting<'a>(&'a self, out: &'a mut dyn Write) -> impl Write + 'a {
        Counting { out, progress: self }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

struct Counting<'a> {
    out: &'a mut dyn Write,
    progress: &'a Progress,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.progress.0.inc(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
