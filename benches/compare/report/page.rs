//! One HTML page with everything in it.

use crate::catalog::{self, MEAN_BAR, WORKLOADS};
use crate::outcome::{BASE, Outcome, key};

use super::chart::{self, Chart};
use super::costs::{self, HEADER};
use super::markdown::{short, spread, time};

const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;background:#fff;color:#222}
h1{font-size:1.6rem;line-height:1.2}h2{margin-top:2.5rem;font-size:1.25rem}
p.machine{color:#666;font-size:.85rem;overflow-wrap:anywhere}
ul.legend{list-style:none;padding:.5rem 0;margin:0;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;position:sticky;top:0;background:inherit;font-size:.9rem}
ul.legend{background:#fff}ul.legend b{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em;background:currentColor}
ul.legend b.bar{border-radius:0;width:0;border-left:2px dashed #d1242f;height:1em;background:none;vertical-align:-.1em}
figure{margin:0}svg.chart{width:100%;height:auto;display:block}
.narrow{display:none}@media(max-width:640px){.wide{display:none}.narrow{display:block}}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff;white-space:normal;min-width:7rem}
td.pass{color:#1a7f37}td.fail{color:#d1242f;font-weight:600}td.best{font-weight:600}
.numbers{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}.numbers div{border:1px solid #ddd;border-radius:.5rem;padding:.5rem 1rem;min-width:7rem}
.numbers b{display:block;font-size:1.6rem}.numbers span{font-size:.85rem;color:#666}
@media(prefers-color-scheme:dark){body,ul.legend,th:first-child,td:first-child{background:#111;color:#ddd}th,td,.numbers div{border-color:#333}p.machine,.numbers span{color:#999}td.pass{color:#4ac26b}td.fail{color:#ff7b72}}";

/// The page.
pub(super) fn html(outcome: &Outcome) -> String {
    let mut body = String::new();
    body.push_str("<h1>PlyFS beside other layered filesystems</h1>");
    body.push_str(
        "<p>Cost of each workload relative to the kernel's overlayfs in the same run: 1× is as fast, \
         left is faster, right is slower. A dot is the ratio of medians, its line the spread of single \
         rounds, a hollow dot a contender that failed in a later round.</p>",
    );
    body.push_str(&machine(outcome));
    body.push_str(&numbers(outcome));
    for pinned in [false, true] {
        body.push_str(&charts(outcome, pinned));
    }
    body.push_str(&bars(outcome));
    body.push_str(&all(outcome));
    body.push_str(&costs(outcome));
    body.push_str(&memory(outcome));
    body.push_str(&faults(outcome));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>PlyFS: benchmark</title><style>{STYLE}</style>{}</head><body>{body}</body></html>\n",
        chart::style()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn machine(outcome: &Outcome) -> String {
    let m = &outcome.machine;
    let text = format!(
        "{}; commit {}; {}; {} × {}, {} MB; layers on {}; load before the run {}; {} rounds; {}; overlayfs: {}",
        m.date,
        m.commit,
        m.kernel,
        m.processors,
        m.processor,
        m.memory_mb,
        m.filesystem,
        m.load,
        outcome.rounds,
        m.command,
        m.overlay_parameters
    );
    format!("<p class=\"machine\">{}</p>", escaped(&text))
}

/// The geometric means, as large numbers.
fn numbers(outcome: &Outcome) -> String {
    let of = |name: &String| {
        let mean = outcome.mean(name, false)?;
        Some(format!("<div><b>{}×</b><span>{}</span></div>", short(mean), escaped(name)))
    };
    let boxes: String =
        outcome.contenders.iter().filter(|name| *name != BASE).filter_map(of).collect();
    format!(
        "<p>Geometric mean of all workloads that have a bar (PlyFS: at most {MEAN_BAR}×):</p><div class=\"numbers\">{boxes}</div>"
    )
}

fn legend(outcome: &Outcome) -> String {
    let names = outcome.contenders.iter().filter(|name| *name != BASE);
    let items: String = names
        .map(|name| {
            let class = chart::class(outcome, name);
            format!("<li><b class=\"k{class}\"></b>{}</li>", escaped(name))
        })
        .collect();
    format!("<ul class=\"legend\">{items}<li><b class=\"bar\"></b>bar for PlyFS</li></ul>")
}

fn charts(outcome: &Outcome, pinned: bool) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for workload in WORKLOADS {
        if !groups.contains(&workload.group) {
            groups.push(workload.group);
        }
    }
    let mut text = String::new();
    for group in groups {
        let here = |workload: &&catalog::Workload| {
            workload.group == group && outcome.series.contains_key(&key(workload.id, pinned))
        };
        let workloads: Vec<_> = WORKLOADS.iter().filter(here).collect();
        if workloads.is_empty() {
            continue;
        }
        if text.is_empty() {
            text.push_str(if pinned { "<h2>Bound to one CPU</h2>" } else { "<h2>Workloads</h2>" });
            text.push_str(&legend(outcome));
        }
        text.push_str(&format!("<h3>{group}</h3><figure>"));
        for (class, width) in [("wide", 920.0), ("narrow", 380.0)] {
            let chart =
                Chart { outcome, workloads: workloads.clone(), pinned, width, alone: false };
            text.push_str(&format!("<div class=\"{class}\">{}</div>", chart.svg()));
        }
        text.push_str("</figure>");
    }
    text
}

fn table(header: &[String], rows: &[Vec<(String, &str)>]) -> String {
    let head: String = header.iter().map(|cell| format!("<th>{}</th>", escaped(cell))).collect();
    let row = |cells: &Vec<(String, &str)>| {
        let cells = cells
            .iter()
            .map(|(cell, class)| format!("<td class=\"{class}\">{}</td>", escaped(cell)));
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    let body: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
}

fn bars(outcome: &Outcome) -> String {
    let rows: Vec<_> = outcome
        .workloads()
        .filter_map(|workload| {
            let bar = catalog::bar_of(workload.id)?;
            let key = key(workload.id, false);
            let ratio = outcome.ratio(&key, "plyfs");
            let holds = ratio.is_some_and(|ratio| ratio.median <= bar);
            let shown = ratio.map_or("failed".to_owned(), spread);
            let verdict =
                if holds { ("pass".to_owned(), "pass") } else { ("fail".to_owned(), "fail") };
            Some(vec![(workload.title.to_owned(), ""), (bar.to_string(), ""), (shown, ""), verdict])
        })
        .collect();
    let header = ["workload", "at most", "PlyFS", ""].map(str::to_owned);
    format!("<h2>The bars</h2>{}", table(&header, &rows))
}

fn all(outcome: &Outcome) -> String {
    let others: Vec<_> = outcome.contenders.iter().filter(|name| *name != BASE).collect();
    let mut header = vec!["workload".to_owned(), format!("{BASE}, median")];
    header.extend(others.iter().map(|name| (*name).clone()));
    let mut rows = Vec::new();
    for pinned in [false, true] {
        for workload in outcome.workloads() {
            let key = key(workload.id, pinned);
            if !outcome.series.contains_key(&key) {
                continue;
            }
            let base = outcome.median(&key, BASE).map_or("failed".to_owned(), time);
            let mut row = vec![(key.clone(), ""), (base, "")];
            row.extend(others.iter().map(|name| match outcome.ratio(&key, name) {
                Some(ratio) => (spread(ratio), ""),
                None if outcome.series(&key, name).is_some() => ("failed".to_owned(), "fail"),
                None => (String::new(), ""),
            }));
            rows.push(row);
        }
    }
    format!("<h2>All numbers</h2>{}", table(&header, &rows))
}

fn costs(outcome: &Outcome) -> String {
    let rows: Vec<_> = costs::rows(outcome)
        .into_iter()
        .map(|row| row.into_iter().map(|cell| (cell, "")).collect())
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Where the time of one operation goes</h2>{}",
        table(&HEADER.map(str::to_owned), &rows)
    )
}

fn memory(outcome: &Outcome) -> String {
    if outcome.memory.is_empty() {
        return String::new();
    }
    let mut rows = Vec::new();
    for (what, contenders) in &outcome.memory {
        for (name, value) in contenders {
            let shown = match value {
                Ok(value) => short(*value),
                Err(error) => error.clone(),
            };
            rows.push(vec![(what.clone(), ""), (name.clone(), ""), (shown, "")]);
        }
    }
    let header = ["what", "contender", "value"].map(str::to_owned);
    format!("<h2>Memory</h2>{}", table(&header, &rows))
}

fn faults(outcome: &Outcome) -> String {
    let mut items: Vec<String> =
        outcome.absent.iter().map(|(name, why)| format!("{name} took no part: {why}")).collect();
    for (key, contenders) in &outcome.series {
        let faults = contenders.keys().filter_map(|name| Some((name, outcome.fault(key, name)?)));
        items.extend(faults.map(|(name, fault)| format!("{key}: {name}: {fault}")));
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>", escaped(item))).collect();
    format!("<h2>Failures</h2><ul class=\"machine\">{items}</ul>")
}
