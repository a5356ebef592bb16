//! One bar for each layer that is worked on, and one that counts layers.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::archive::watch::{Stage, Watch};
use crate::image::Digest;

/// How often what is shown moves.
const TICK: Duration = Duration::from_millis(100);
const SIZED: &str = "{prefix}: {msg} [{bar:24}] {decimal_bytes}/{decimal_total_bytes}";
const UNSIZED: &str = "{prefix}: {msg} {spinner} {elapsed}";

/// The bars of one command; gone when dropped.
#[derive(Debug)]
pub(in crate::cli) struct Bars {
    all: MultiProgress,
    layers: Mutex<HashMap<Digest, ProgressBar>>,
    total: ProgressBar,
}

impl Bars {
    /// No bars where it is to be `quiet`; indicatif itself keeps silent where standard error is
    /// no terminal.
    pub(in crate::cli) fn new(quiet: bool) -> Bars {
        let all = MultiProgress::new();
        if quiet {
            all.set_draw_target(ProgressDrawTarget::hidden());
        }
        let total = all.add(ProgressBar::new_spinner());
        set_style(&total, "{spinner} {pos} layers done, {elapsed}");
        total.enable_steady_tick(TICK);
        Bars { all, layers: Mutex::default(), total }
    }

    /// The bar of a layer, made where there is none.
    fn with(&self, layer: &Digest, each: impl FnOnce(&ProgressBar)) {
        // A thread that failed while it drew is no reason to fail, too.
        let mut layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bar = layers.entry(*layer).or_insert_with(|| {
            let bar = self.all.insert_before(&self.total, ProgressBar::new_spinner());
            bar.set_prefix(layer.short());
            bar
        });
        each(bar);
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Download => "Downloading",
        Stage::Unpack => "Unpacking",
        Stage::Save => "Saving",
        Stage::Write => "Writing",
        Stage::Verify => "Verifying",
        Stage::Upload => "Pushing",
    }
}

impl Watch for Bars {
    fn begin(&self, stage: Stage, layer: &Digest, bytes: Option<u64>) {
        self.with(layer, |bar| {
            bar.set_message(words(stage));
            bar.set_position(0);
            bar.set_length(bytes.unwrap_or(0));
            // Last: what is drawn now has a size.
            set_style(bar, if bytes.is_some() { SIZED } else { UNSIZED });
            bar.enable_steady_tick(TICK);
        });
    }

    fn advance(&self, _: Stage, layer: &Digest, bytes: u64) {
        self.with(layer, |bar| bar.inc(bytes));
    }

    fn end(&self, stage: Stage, layer: &Digest) {
        self.with(layer, |bar| bar.finish_and_clear());
        // What was downloaded is yet to be unpacked.
        if stage != Stage::Download {
            self.total.inc(1);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.total.finish_and_clear();
    }
}
