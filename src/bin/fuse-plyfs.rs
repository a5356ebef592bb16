//! `fuse-plyfs`: the bare mount program, as mount(8), podman, docker and containerd call it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use plyfs::cli::FUSE_PLYFS_HELP;
use plyfs::error::{Error, Result};
use plyfs::fuse::{daemon, log, remount};
use plyfs::overlay::options::Options;

/// What the command line asks for.
enum Request {
    Help,
    Version,
    Mount(Mount),
}

#[derive(Default)]
struct Mount {
    /// The values of all `-o`.
    options: Vec<OsString>,
    /// The mountpoint, and before it the source where one is named.
    places: Vec<OsString>,
    foreground: bool,
    debug: bool,
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuse-plyfs: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line. Options and places may come in any order: mount(8) puts the places
/// first, podman the options.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Request> {
    let mut arguments = arguments;
    let mut mount = Mount::default();
    while let Some(argument) = arguments.next() {
        let mut value =
            |option: &str| arguments.next().ok_or_else(|| Error::option(option, "needs a value"));
        match argument.as_bytes() {
            b"-h" | b"--help" => return Ok(Request::Help),
            b"-V" | b"--version" => return Ok(Request::Version),
            b"-f" | b"--foreground" => mount.foreground = true,
            b"-d" | b"--debug" => (mount.foreground, mount.debug) = (true, true),
            b"-o" => mount.options.push(value("-o")?),
            b"-r" => mount.options.push("ro".into()),
            b"-w" => mount.options.push("rw".into()),
            // What mount(8) and libfuse's programs take: the type, no mtab, sloppy or
            // single-threaded, verbose.
            b"-t" => drop(value("-t")?),
            b"-n" | b"-s" | b"-v" => {}
            [b'-', b'o', glued @ ..] => mount.options.push(OsStr::from_bytes(glued).into()),
            [b'-', _, ..] => {
                let option = argument.to_string_lossy();
                return Err(Error::option(option, "not known (--help shows what is)"));
            }
            _ => mount.places.push(argument),
        }
    }
    Ok(Request::Mount(mount))
}

fn run(request: Request) -> Result<()> {
    match request {
        Request::Help => println!("{FUSE_PLYFS_HELP}"),
        Request::Version => println!("fuse-plyfs: version {}", env!("CARGO_PKG_VERSION")),
        Request::Mount(request) => return mount(&request),
    }
    Ok(())
}

fn mount(request: &Mount) -> Result<()> {
    log::start(request.debug, "warn")?;
    if remount::is_asked_for(&request.options) {
        let [.., mountpoint] = request.places.as_slice() else {
            return Err(Error::Refused("no mountpoint given (--help shows how)".into()));
        };
        return remount::remount(&request.options, Path::new(mountpoint));
    }
    let mut options = Options::parse(&request.options)?;
    if let Some(filter) = &options.log_level {
        log::set_filter(filter)?;
    }
    let (source, mountpoint) = match request.places.as_slice() {
        [mountpoint] => (None, mountpoint),
        [source, mountpoint] => (Some(source), mountpoint),
        [] => return Err(Error::Refused("no mountpoint given (--help shows how)".into())),
        [_, _, more, ..] => {
            let more = more.to_string_lossy();
            return Err(Error::Refused(format!("{more}: one mountpoint at a time")));
        }
    };
    if options.mount.fsname.is_none() {
        options.mount.fsname = source.map(|source| source.to_string_lossy().into_owned());
    }
    let mountpoint = Path::new(mountpoint);
    if request.foreground {
        daemon::serve(&options, mountpoint)
    } else {
        daemon::start(&options, mountpoint)
    }
}
