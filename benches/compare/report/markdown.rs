//! Tables in Markdown.

use std::fmt::Write;

use super::costs::{self, HEADER};
use crate::catalog::{self, MEAN_BAR};
use crate::outcome::{BASE, Outcome, Ratio, key};

/// All tables: what was measured, the bars, each workload by each contender, memory.
pub(crate) fn tables(outcome: &Outcome) -> String {
    let mut text = machine(outcome);
    text.push_str(&bars(outcome));
    for pinned in [false, true] {
        text.push_str(&ratios(outcome, pinned));
    }
    text.push_str(&costs(outcome));
    text.push_str(&memory(outcome));
    text.push_str(&faults(outcome));
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    if text.write_fmt(format_args!("{arguments}\n")).is_err() {
        eprintln!("no memory for a line");
    }
}

fn machine(outcome: &Outcome) -> String {
    let m = &outcome.machine;
    format!(
        "{}, commit {}, {}, {} × {}, {} MB, layers on {}, load before the run {}.\n\
         `{}`, {} rounds. Kernel overlayfs with its defaults: {}.\n\n",
        m.date,
        m.commit,
        m.kernel,
        m.processors,
        m.processor,
        m.memory_mb,
        m.filesystem,
        m.load,
        m.command,
        outcome.rounds,
        m.overlay_parameters
    )
}

/// Three digits.
pub(crate) fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v if v < 0.0005 => "<0.001".to_owned(),
        v => format!("{v:.3}"),
    }
}

pub(crate) fn spread(ratio: Ratio) -> String {
    format!("{} ({}–{})", short(ratio.median), short(ratio.least), short(ratio.most))
}

/// The best of the fuse-overlayfs versions.
fn rival(outcome: &Outcome, key: &str) -> Option<f64> {
    let names = outcome.contenders.iter().filter(|name| name.starts_with("fuse-overlayfs"));
    names.filter_map(|name| Some(outcome.ratio(key, name)?.median)).min_by(f64::total_cmp)
}

fn bars(outcome: &Outcome) -> String {
    let mut text = String::from(
        "| workload | PlyFS at most | PlyFS (least–most) | bar | best fuse-overlayfs | as fast as that |\n\
         |---|---|---|---|---|---|\n",
    );
    let yes = |holds: bool| if holds { "pass" } else { "**fail**" };
    let (mut held, mut all) = (0, 0);
    for workload in outcome.workloads() {
        let Some(bar) = catalog::bar_of(workload.id) else { continue };
        let key = key(workload.id, false);
        let Some(ratio) = outcome.ratio(&key, "plyfs") else {
            let why = outcome.fault(&key, "plyfs").unwrap_or_else(|| "not measured".to_owned());
            line(&mut text, format_args!("| {} | {bar} | {why} | **fail** | | |", workload.id));
            all += 1;
            continue;
        };
        all += 1;
        held += u32::from(ratio.median <= bar);
        let rival = rival(outcome, &key);
        let (best, beside) = match rival {
            Some(best) => (short(best), yes(ratio.median <= best)),
            None => (String::new(), ""),
        };
        let verdict = yes(ratio.median <= bar);
        let id = workload.id;
        line(
            &mut text,
            format_args!("| {id} | {bar} | {} | {verdict} | {best} | {beside} |", spread(ratio)),
        );
    }
    if let Some(mean) = outcome.mean("plyfs", false) {
        let verdict = yes(mean <= MEAN_BAR);
        line(
            &mut text,
            format_args!("| **geometric mean** | {MEAN_BAR} | {} | {verdict} | | |", short(mean)),
        );
        line(&mut text, format_args!("\n{held} of {all} bars are held.\n"));
    }
    text
}

fn ratios(outcome: &Outcome, pinned: bool) -> String {
    let workloads: Vec<_> =
        outcome.workloads().filter(|w| outcome.series.contains_key(&key(w.id, pinned))).collect();
    if workloads.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    if pinned {
        text.push_str("All processes bound to one CPU:\n\n");
    }
    let others: Vec<_> = outcome.contenders.iter().filter(|name| *name != BASE).collect();
    let names: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
    line(&mut text, format_args!("| workload | overlayfs | {} |", names.join(" | ")));
    line(&mut text, format_args!("|---|---|{}", "---|".repeat(names.len())));
    for workload in workloads {
        let key = key(workload.id, pinned);
        let base = outcome.median(&key, BASE).map_or("failed".to_owned(), time);
        let cells: Vec<String> = others
            .iter()
            .map(|name| match outcome.ratio(&key, name) {
                Some(ratio) if outcome.fault(&key, name).is_some() => {
                    format!("{} †", short(ratio.median))
                }
                Some(ratio) => short(ratio.median),
                None if outcome.series(&key, name).is_some() => "failed".to_owned(),
                None => String::new(),
            })
            .collect();
        line(&mut text, format_args!("| {} | {base} | {} |", workload.id, cells.join(" | ")));
    }
    let means: Vec<String> =
        others.iter().map(|name| outcome.mean(name, pinned).map_or(String::new(), short)).collect();
    line(&mut text, format_args!("| **geometric mean** | | {} |\n", means.join(" | ")));
    text
}

fn costs(outcome: &Outcome) -> String {
    let rows = costs::rows(outcome);
    if rows.is_empty() {
        return String::new();
    }
    let mut text =
        format!("Where the time goes, of one operation:\n\n| {} |\n", HEADER.join(" | "));
    line(&mut text, format_args!("|{}", "---|".repeat(HEADER.len())));
    for row in rows {
        line(&mut text, format_args!("| {} |", row.join(" | ")));
    }
    text.push('\n');
    text
}

fn memory(outcome: &Outcome) -> String {
    if outcome.memory.is_empty() {
        return String::new();
    }
    let mut text = String::from("| memory | contender | |\n|---|---|---|\n");
    for (what, contenders) in &outcome.memory {
        for (name, value) in contenders {
            let shown = value.clone().map_or_else(|error| error, short);
            line(&mut text, format_args!("| {what} | {name} | {shown} |"));
        }
    }
    text.push('\n');
    text
}

fn faults(outcome: &Outcome) -> String {
    let mut text = String::from("† failed in a later round. Failures:\n\n");
    for (name, why) in &outcome.absent {
        line(&mut text, format_args!("- {name} took no part: {why}"));
    }
    for (key, contenders) in &outcome.series {
        for name in contenders.keys() {
            if let Some(fault) = outcome.fault(key, name) {
                line(&mut text, format_args!("- {key}: {name}: {fault}"));
            }
        }
    }
    text
}

/// A time with its unit.
pub(crate) fn time(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{} ns", short(n)),
        n if n < 1e6 => format!("{} µs", short(n / 1e3)),
        n if n < 1e9 => format!("{} ms", short(n / 1e6)),
        n => format!("{} s", short(n / 1e9)),
    }
}
