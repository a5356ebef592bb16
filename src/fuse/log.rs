//! Where the daemon's log goes, and how much of it.
//!
//! The log of `plyfs snapshotter` is the same.
//!
//! In the foreground it goes to standard error; under systemd each line begins with its priority
//! as `sd-daemon(3)` has it (`<6>`). In the background, where standard error leads nowhere, it
//! goes to the system's log (`/dev/log`, which journald and syslog daemons listen on), where
//! there is one.
//!
//! What is logged is a level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as
//! `warn,plyfs::fuse=debug`: of the mount option `log_level`, else `PLYFS_LOG`, else `RUST_LOG`,
//! else `warn` (`info` for the snapshotter). It can be changed while the daemon runs.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Error, Result};

/// What is asked for in so many words is logged at every level.
const ALWAYS: &str = "plyfs_figures";

/// Changes the filter of the log that was started; there is one in a process.
static CONTROL: OnceLock<Box<dyn Change>> = OnceLock::new();
static LOG: Log = Log { system: OnceLock::new(), priorities: AtomicBool::new(false) };

trait Change: Send + Sync {
    fn set(&self, filter: Targets) -> bool;
    fn get(&self) -> Option<String>;
}

impl<S: Subscriber> Change for Handle<Targets, S> {
    fn set(&self, filter: Targets) -> bool {
        self.reload(filter).is_ok()
    }

    fn get(&self) -> Option<String> {
        self.with_current(ToString::to_string).ok()
    }
}

/// Starts the log of this process, on standard error, as the environment says, else with `usual`;
/// with `debugging` every request is seen.
///
/// # Errors
/// Where this process has a log already. What the environment says and means nothing is only
/// told.
pub fn start(debugging: bool, usual: &str) -> Result<()> {
    let from_environment =
        || ["PLYFS_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let mut ignored = None;
    let filter = match from_environment().as_deref().map(parse) {
        _ if debugging => parse("trace")?,
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            ignored = Some(error);
            parse(usual)?
        }
        None => parse(usual)?,
    };
    LOG.priorities.store(standard_error_is_journal(), Ordering::Relaxed);
    // Not the crate's EnvFilter: it compiles regular expressions at each start.
    let (filter, control) = reload::Layer::new(filter);
    let lines =
        fmt::layer().with_writer(&LOG).with_ansi(false).with_target(debugging).without_time();
    tracing_subscriber::registry().with(filter).with(lines).init();
    let control: Box<dyn Change> = Box::new(control);
    if CONTROL.set(control).is_err() {
        return Err(Error::Refused("the log was started twice".to_owned()));
    }
    if let Some(error) = ignored {
        tracing::warn!("{error}");
    }
    Ok(())
}

/// From now on standard error leads nowhere: the log goes to the system's.
pub(super) fn leave_terminal() {
    let system = UnixDatagram::unbound().and_then(|socket| {
        socket.connect("/dev/log")?;
        // A log that is not read must not stop a filesystem.
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    match system {
        Ok(socket) => {
            if LOG.system.set(socket).is_err() {
                tracing::debug!("the log has left the terminal before");
            }
        }
        Err(error) => tracing::debug!("no system log: {error}"),
    }
}

/// Whether `filter` means something.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(filter: &str) -> Result<()> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<Targets> {
    let wrong = |why: String| Error::option("log level", why);
    if filter.trim().is_empty() {
        return Err(wrong("needs a value: error, warn, info, debug, trace or off".to_owned()));
    }
    // A word that is no level would be taken for the name of a module.
    let plain = filter.chars().all(|c| c.is_ascii_alphanumeric());
    if plain && filter.parse::<LevelFilter>().is_err() {
        return Err(wrong(format!("must be error, warn, info, debug, trace or off, not {filter}")));
    }
    let parsed: Targets = filter.parse().map_err(|error| wrong(format!("{error}")))?;
    Ok(parsed.with_target(ALWAYS, LevelFilter::INFO))
}

/// What is logged at present.
pub(super) fn filter() -> String {
    let shown = CONTROL.get().and_then(|control| control.get());
    let shown = shown.unwrap_or_else(|| "off".to_owned());
    let own = format!("{ALWAYS}=info");
    let parts: Vec<&str> = shown.split(',').filter(|part| *part != own).collect();
    parts.join(",")
}

/// From now on what `filter` says is logged.
///
/// # Errors
/// One that means nothing, or where no log was started.
pub fn set_filter(filter: &str) -> Result<()> {
    let parsed = parse(filter)?;
    match CONTROL.get() {
        Some(control) if control.set(parsed) => Ok(()),
        _ => Err(Error::Refused("this process has no log".to_owned())),
    }
}

/// Logs one step more than before, and after the most detailed one only warnings again.
pub(super) fn next_level() {
    let next = match filter().as_str() {
        "warn" => "info",
        "info" => "debug",
        "debug" => "trace",
        _ => "warn",
    };
    match set_filter(next) {
        Ok(()) => announce([format!("the log is now at {next}")]),
        Err(error) => tracing::warn!("the log stays as it is: {error}"),
    }
}

/// Logs lines that somebody asked for.
pub(super) fn announce(lines: impl IntoIterator<Item = String>) {
    for line in lines {
        tracing::info!(target: ALWAYS, "{line}");
    }
}

/// Whether standard error is a connection to the journal (`JOURNAL_STREAM`, systemd.exec(5)).
fn standard_error_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let stat = rustix::fs::fstat(std::io::stderr());
    stat.is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The one place that all lines go to.
struct Log {
    system: OnceLock<UnixDatagram>,
    /// Lines on standard error begin with their priority.
    priorities: AtomicBool,
}

/// Takes what is logged at one level.
struct Lines {
    log: &'static Log,
    priority: u8,
}

/// The facility `daemon` of syslog(3), times eight.
const DAEMON: u8 = 3 << 3;

impl<'a> MakeWriter<'a> for &'static Log {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines { log: self, priority: 6 }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Lines {
        let priority = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        Lines { log: self, priority }
    }
}

impl Write for Lines {
    /// Takes one whole event.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let lines = event.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if let Some(system) = self.log.system.get() {
            for line in lines {
                let head =
                    format!("<{}>fuse-plyfs[{}]: ", DAEMON | self.priority, std::process::id());
                system.send(&[head.as_bytes(), line].concat())?;
            }
        } else if self.log.priorities.load(Ordering::Relaxed) {
            let head = format!("<{}>", self.priority);
            let text: Vec<u8> = lines.flat_map(|l| [head.as_bytes(), l, b"\n"].concat()).collect();
            std::io::stderr().write_all(&text)?;
        } else {
            std::io::stderr().write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
