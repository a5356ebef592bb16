//! The end-to-end comparison: PlyFS beside the native filesystem, the kernel's overlayfs and
//! other union filesystems, each doing the same work in one interleaved run.
//!
//! | file | what it holds |
//! |---|---|
//! | `catalog` | the workloads, and the bars that PlyFS is measured against |
//! | `stacks` | the generated layers |
//! | `contender` | mounting and unmounting each filesystem |
//! | `arena` | everything set up: who takes part, where the layers lie |
//! | `rounds` | who works when |
//! | `work` | the workloads, run in processes of their own |
//! | `memory` | daemons' memory: a million nodes, fifty containers |
//! | `machine` | what all this was measured on |
//! | `outcome` | samples, medians, ratios |
//! | `report` | JSON, HTML, SVG and Markdown |
//!
//! `scripts/bench --help` tells how to run it; docs/BENCHMARKS.md tells why it is as it is.

#![allow(clippy::indexing_slicing, reason = "a benchmark stops at once where it is wrong")]

mod arena;
mod catalog;
mod contender;
mod machine;
mod map;
mod memory;
mod options;
mod outcome;
mod report;
mod rounds;
mod shell;
mod stacks;
mod work;

use std::process::ExitCode;

/// What went wrong, in one line.
type Res<T> = Result<T, String>;

fn main() -> ExitCode {
    // cargo adds --bench to what it was given.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.first().map(String::as_str) {
        Some("worker") => work::main(&arguments[1..]),
        Some("report") => report::again(&arguments[1..]),
        _ => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Res<()> {
    let Some(options) = options::Options::parse(arguments)? else { return Ok(()) };
    let mut outcome = outcome::Outcome::new(machine::Machine::look(&options), &options);
    let workloads = catalog::chosen(&options);
    let arena = arena::Arena::set_up(&options, &workloads)?;
    let measured = rounds::run(&arena, &options, &workloads, &mut outcome)
        .and_then(|()| memory::run(&arena, &options, &mut outcome));
    // What was measured so far is kept, and what is mounted goes away in any case.
    let written = report::write(&outcome, &options);
    arena.tear_down().and(measured).and(written)
}
