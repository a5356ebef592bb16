//! Progress on standard error, where that is a terminal; nothing elsewhere.

mod bars;

pub(super) use bars::Bars;

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
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
