//! The `plyfs` command: the clap tree, one file per group of verbs.
//!
//! Verbs, flags and output follow docker's, so that hands need not relearn. A failure is one
//! line on standard error and exit code 1; wrong usage is exit code 125, as with podman.

mod commit;
mod completions;
mod containers;
mod cp;
mod df;
mod diff;
mod export;
mod filters;
mod fuse_plyfs;
mod health;
mod history;
mod images;
mod import;
mod inspect;
mod json_flag;
mod layer_list;
mod layers;
mod log_level;
mod man;
mod mounts;
mod output;
mod progress;
mod prune;
mod registry;
mod save;
mod snapshotter;
mod stats;
mod target;
mod template;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(fuzzing)]
pub use filters::fuzz_glob;
pub use fuse_plyfs::FUSE_PLYFS_HELP;
#[cfg(fuzzing)]
pub use template::fuzz_template;

use crate::error::{Errno, Error, Result};
use crate::store::Store;
use crate::sys::{creds, process};

/// Copy-on-write layered filesystems for containers.
///
/// Loads container images, makes containers of them, mounts those through FUSE, and tells and
/// exports what changed.
#[derive(Debug, Parser)]
#[command(name = "plyfs", version, max_term_width = 100)]
struct Cli {
    /// Directory of the store [default: /var/lib/plyfs for root, else
    /// $XDG_DATA_HOME/plyfs]
    #[arg(long, global = true, env = "PLYFS_ROOT", hide_env_values = true, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Load(images::Load),
    Save(save::Save),
    Import(import::Import),
    Pull(registry::Pull),
    Push(registry::Push),
    Login(registry::Login),
    Logout(registry::Logout),
    Images(images::List),
    History(history::History),
    Tag(import::Tag),
    Rmi(images::Remove),
    Prune(prune::Prune),
    Create(containers::Create),
    Ps(containers::List),
    Rename(containers::Rename),
    Rm(containers::Remove),
    Mount(mounts::Mount),
    #[command(alias = "unmount")]
    Umount(mounts::Umount),
    Diff(diff::Diff),
    Export(export::Export),
    LayerTar(layers::LayerTar),
    Apply(layers::Apply),
    Commit(commit::Commit),
    Cp(cp::Copy),
    Inspect(inspect::Inspect),
    Df(df::Df),
    Verify(health::Verify),
    Check(health::Check),
    Gc(health::Gc),
    Stats(stats::Stats),
    LogLevel(log_level::LogLevel),
    Snapshotter(snapshotter::Serve),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

/// What every verb is given.
#[derive(Debug)]
struct Context {
    root: Option<PathBuf>,
}

impl Context {
    /// The store; made where there is none.
    fn store(&self) -> Result<Store> {
        match &self.root {
            Some(root) => Store::open(root),
            None => Store::open(&default_root()?),
        }
    }
}

fn default_root() -> Result<PathBuf> {
    if creds::own_ids().0 == 0 {
        return Ok(PathBuf::from("/var/lib/plyfs"));
    }
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    match data {
        Some(data) => Ok(data.join("plyfs")),
        None => {
            Err(Error::option("--root", "must be given: neither XDG_DATA_HOME nor HOME is set"))
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return answer(&usage),
    };
    start_log(&cli.verb);
    // A tree is read with a descriptor for each layer of each directory above the present one.
    if let Err(errno) = process::raise_open_files() {
        tracing::warn!(%errno, "the limit of open files stays as it is");
    }
    let context = Context { root: cli.root };
    let outcome = match cli.verb {
        Verb::Load(verb) => verb.run(&context),
        Verb::Save(verb) => verb.run(&context),
        Verb::Import(verb) => verb.run(&context),
        Verb::Pull(verb) => verb.run(&context),
        Verb::Push(verb) => verb.run(&context),
        Verb::Login(verb) => verb.run(),
        Verb::Logout(verb) => verb.run(),
        Verb::Images(verb) => verb.run(&context),
        Verb::History(verb) => verb.run(&context),
        Verb::Tag(verb) => verb.run(&context),
        Verb::Rmi(verb) => verb.run(&context),
        Verb::Prune(verb) => verb.run(&context),
        Verb::Create(verb) => verb.run(&context),
        Verb::Ps(verb) => verb.run(&context),
        Verb::Rename(verb) => verb.run(&context),
        Verb::Rm(verb) => verb.run(&context),
        Verb::Mount(verb) => verb.run(&context),
        Verb::Umount(verb) => verb.run(&context),
        Verb::Diff(verb) => verb.run(&context),
        Verb::Export(verb) => verb.run(&context),
        Verb::LayerTar(verb) => verb.run(&context),
        Verb::Apply(verb) => verb.run(),
        Verb::Commit(verb) => verb.run(&context),
        Verb::Cp(verb) => verb.run(&context),
        Verb::Inspect(verb) => verb.run(&context),
        Verb::Df(verb) => verb.run(&context),
        Verb::Verify(verb) => verb.run(&context),
        Verb::Check(verb) => verb.run(&context),
        Verb::Gc(verb) => verb.run(&context),
        Verb::Stats(verb) => verb.run(&context),
        Verb::LogLevel(verb) => verb.run(&context),
        Verb::Snapshotter(verb) => verb.run(&context),
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough: end as quietly as SIGPIPE ends others.
        Err(Error::Io { source: Errno::PIPE, .. }) => ExitCode::from(141),
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// What docker and podman exit with where they were not understood.
const USAGE: u8 = 125;

/// Prints help that was asked for, or what is wrong with the command line.
fn answer(usage: &clap::Error) -> ExitCode {
    // Where nobody reads it the exit code still says it.
    if usage.print().is_err() {
        tracing::debug!("nobody reads the usage");
    }
    if usage.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Warnings go to standard error, and what the snapshotter does as a daemon's log does; PLYFS_LOG
/// chooses what else is told.
fn start_log(verb: &Verb) {
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    if matches!(verb, Verb::Snapshotter(_)) {
        if let Err(error) = crate::fuse::log::start(false, "info") {
            output::complain(&error);
        }
        return;
    }
    let chosen = std::env::var("PLYFS_LOG").ok().and_then(|chosen| chosen.parse::<Targets>().ok());
    let filter = match chosen {
        Some(chosen) if chosen.default_level().is_some() => chosen,
        Some(chosen) => chosen.with_default(LevelFilter::WARN),
        None => Targets::new().with_default(LevelFilter::WARN),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();
}
