//! `fuse-plyfs`: the bare mount program, as mount(8), podman, docker and containerd call it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use plyfs::error::{Error, Result};
use plyfs::fuse::{daemon, log};
use plyfs::overlay::options::Options;

const HELP: &str = "\
Mounts read-only layers and one writable layer as one merged tree.

Usage: fuse-plyfs -o lowerdir=A:B:C[,upperdir=U,workdir=W][,OPTION...] MOUNTPOINT
       fuse-plyfs SOURCE MOUNTPOINT -o OPTIONS        (as mount(8) calls it)

  -o OPTIONS      mount options, separated by commas; may be repeated
  -f              stay in the foreground
  -d, --debug     stay in the foreground and log every request
  -V, --version   print the version
  -h, --help      print this help

Options:
  lowerdir=A:B:C            the read-only layers, topmost first
  upperdir=U,workdir=W      the writable layer, and an empty directory beside it;
                            without them the mount is read-only
  ro, nosuid, nodev, noexec, noatime, ...   as for any mount
  volatile                  changes need not survive a crash; fsync does nothing
  redirect_dir=on|off|follow|nofollow, metacopy=on|off, index=on|off, xino=on|off|auto,
  userxattr                 as for the kernel's overlayfs
  uidmapping=DISK:SHOWN:COUNT[:...], gidmapping=..., squash_to_root, squash_to_uid=N,
  squash_to_gid=N, xattr_permissions=0|1|2       owners
  noacl, noxattrs, static_nlink                  what is left out
  timeout=SECONDS           how long the kernel may cache names and attributes (for ever)
  passthrough=auto|off|all  which files the kernel reads and writes without asking
  max_threads=N, threaded=0|1                    serving threads
  log_level=LEVEL           error, warn, info, debug or trace, else PLYFS_LOG says it
  stats_socket=PATH         unix socket with statistics as Prometheus text
  join                      where a mount of the same source has the upper already, bind that one
  fsname=NAME, subtype=NAME, allow_other, allow_root, context=LABEL

In paths, write \\, for a comma, \\: for a colon and \\\\ for a backslash.
SIGUSR1 logs what `plyfs stats MOUNTPOINT` shows; SIGUSR2 makes the log more detailed, step by step.";

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
        Request::Help => println!("{HELP}"),
        Request::Version => println!("fuse-plyfs: version {}", env!("CARGO_PKG_VERSION")),
        Request::Mount(request) => return mount(&request),
    }
    Ok(())
}

fn mount(request: &Mount) -> Result<()> {
    log::start(request.debug)?;
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
        daemon::serve(&options, mountpoint, || Ok(()))
    } else {
        daemon::start(&options, mountpoint)
    }
}
