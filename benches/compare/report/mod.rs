//! What people and programs read.

use std::path::Path;

use crate::Res;
use crate::catalog;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::shell::{self, make_dir, text};

mod chart;
mod costs;
mod markdown;
mod page;

/// Writes the results in all forms, and prints the bars.
pub(crate) fn write(outcome: &Outcome, options: &Options) -> Res<()> {
    write_to(outcome, &options.output)
}

fn write_to(outcome: &Outcome, dir: &Path) -> Res<()> {
    make_dir(dir)?;
    let json = serde_json::to_string_pretty(outcome).map_err(|error| error.to_string())?;
    write_file(&dir.join("results.json"), &json)?;
    let table = markdown::tables(outcome);
    write_file(&dir.join("results.md"), &table)?;
    write_file(&dir.join("results.html"), &page::html(outcome))?;
    write_file(&dir.join("results.svg"), &bars_chart(outcome).svg())?;
    println!("{table}");
    eprintln!("results are in {}", dir.display());
    Ok(())
}

/// All workloads that have a bar, in one picture.
fn bars_chart(outcome: &Outcome) -> chart::Chart<'_> {
    let workloads = outcome.workloads().filter(|w| catalog::bar_of(w.id).is_some()).collect();
    chart::Chart { outcome, workloads, pinned: false, width: 920.0, alone: true }
}

fn write_file(path: &Path, content: &str) -> Res<()> {
    shell::write(path, content)
}

/// `report FILE.json [DIR]`: all forms again, beside the file or in DIR.
pub(crate) fn again(arguments: &[String]) -> Res<()> {
    let [file, rest @ ..] = arguments else { return Err("report: needs a file".to_owned()) };
    let outcome: Outcome =
        serde_json::from_str(&text(file.as_ref())?).map_err(|error| format!("{file}: {error}"))?;
    let beside = Path::new(file).parent().unwrap_or(Path::new("."));
    let dir = rest.first().map_or(beside, Path::new);
    write_to(&outcome, dir)
}
