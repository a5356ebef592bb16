//! A mount as a process of its own: in the foreground or the background, ended by signals.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::session::{Session, Stopper};
use super::stats::Socket;
use super::{join, log, mount};
use crate::error::{Error, Result};
use crate::overlay::Overlay;
use crate::overlay::options::Options;
use crate::sys::process::{self, Side};

/// How long layers may be in use before a mount of them is refused.
const LAST_OWNER: Duration = Duration::from_secs(2);

/// Mounts and serves in this process; returns when the filesystem is unmounted or a signal
/// (`SIGTERM`, `SIGINT`, `SIGHUP`) asked for the end. `SIGUSR1` logs the figures, `SIGUSR2`
/// changes how much is logged.
///
/// # Errors
/// Whatever makes the mount impossible; nothing is left mounted then.
pub fn serve(options: &Options, mountpoint: &Path) -> Result<()> {
    match mount(options, mountpoint)? {
        Some(mounted) => mounted.serve(|| Ok(())),
        None => Ok(()),
    }
}

/// A mount of which INIT is answered, and nothing else yet: whoever uses it waits.
struct Mounted {
    overlay: Arc<Overlay>,
    session: Session,
    /// Goes with the end of this.
    socket: Option<Socket>,
    signals: Signals,
    until_stdin_ends: bool,
}

/// Does all that can fail before there is anything to serve. `None` where a live mount was joined,
/// which its own daemon serves.
fn mount(options: &Options, mountpoint: &Path) -> Result<Option<Mounted>> {
    process::clear_umask();
    process::use_one_heap();
    if let Err(errno) = process::raise_open_files() {
        tracing::debug!("the limit of open files stays as it is: {errno}");
    }
    let mountpoint = mount::resolve(mountpoint)?;
    // Before the mount, so that a signal during it is kept until somebody can act on it.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])
        .map_err(|error| Error::Refused(format!("cannot handle signals: {error}")))?;
    let overlay = match open_layers(options, &mountpoint)? {
        Layers::Ours(overlay) => Arc::new(*overlay),
        Layers::Joined => return Ok(None),
    };
    let mounted = mount_overlay(&overlay, options, &mountpoint, signals);
    if mounted.is_err() {
        overlay.shutdown();
    }
    mounted.map(Some)
}

/// What became of the layers of a mount.
enum Layers {
    /// They are opened, to be served.
    Ours(Box<Overlay>),
    /// The mount that has them is bound to the mountpoint.
    Joined,
}

/// Opens the layers. Those of a mount that was just taken off are free a moment later only:
/// umount(2) does not wait for the daemon, and whoever mounts again at once must not be refused.
fn open_layers(options: &Options, mountpoint: &Path) -> Result<Layers> {
    let deadline = Instant::now() + LAST_OWNER;
    loop {
        match Overlay::new(options) {
            Err(error @ Error::InUse { .. }) => {
                if options.mount.join && join::join(options, mountpoint)? {
                    return Ok(Layers::Joined);
                }
                if Instant::now() >= deadline {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.map(|overlay| Layers::Ours(Box::new(overlay))),
        }
    }
}

fn mount_overlay(
    overlay: &Arc<Overlay>,
    options: &Options,
    mountpoint: &Path,
    signals: Signals,
) -> Result<Mounted> {
    overlay.refuse_mountpoint(mountpoint)?;
    let socket = options.stats_socket.as_deref().map(Socket::bind).transpose()?;
    let session = Session::mount(Arc::clone(overlay), options, mountpoint)?;
    let until_stdin_ends = options.mount.until_stdin_ends;
    Ok(Mounted { overlay: Arc::clone(overlay), session, socket, signals, until_stdin_ends })
}

impl Mounted {
    /// Serves until the end of the mount. `ready` is called when requests are answered.
    fn serve(self, ready: impl FnOnce() -> Result<()>) -> Result<()> {
        let overlay = Arc::clone(&self.overlay);
        let served = self.serve_session(ready);
        overlay.shutdown();
        served
    }

    fn serve_session(mut self, ready: impl FnOnce() -> Result<()>) -> Result<()> {
        self.session.reserve_descriptors();
        let (stopper, observer) = (self.session.stopper(), self.session.observer());
        let answered = self.socket.as_mut().map_or(Ok(()), |socket| {
            let observer = observer.clone();
            socket.serve(move || observer.snapshot())
        });
        let attended = || match self.until_stdin_ends {
            true => stop_with_stdin(self.session.stopper()),
            false => Ok(()),
        };
        // Before going to the background takes standard input away.
        if let Err(error) = answered.and_then(|()| attended()) {
            // Served all the same, to its end: that is how it is unmounted.
            stopper.stop();
            return self.session.serve().and(Err(error));
        }
        let handle = self.signals.handle();
        let mut signals = self.signals;
        let watcher = std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGUSR1 => log::announce(observer.snapshot().lines()),
                    SIGUSR2 => log::next_level(),
                    _ => {
                        tracing::info!("signal {signal}: unmounting");
                        stopper.stop();
                    }
                }
            }
        });
        let served = self.session.serve_and(ready);
        handle.close();
        match watcher {
            Ok(watcher) => drop(watcher.join()),
            Err(error) => tracing::warn!("signals are not handled: {error}"),
        }
        served
    }
}

/// Stops the session when standard input ends: a pipe, whose other end the kernel closes when the
/// process that has it ends in whatever way.
fn stop_with_stdin(stopper: Stopper) -> Result<()> {
    let failed = |error: io::Error| Error::Refused(format!("cannot watch standard input: {error}"));
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let watch = move || {
        match io::copy(&mut input, &mut io::sink()) {
            Ok(_) => tracing::info!("standard input ended: unmounting"),
            Err(error) => tracing::warn!("standard input failed, unmounting: {error}"),
        }
        stopper.stop();
    };
    std::thread::Builder::new().name("stdin".into()).spawn(watch).map(drop).map_err(failed)
}

/// Mounts and leaves a process in the background that serves. Returns when the mount answers.
/// Must be called before there are other threads, and leaves this process good for nothing but its
/// end.
///
/// # Errors
/// As [`serve`].
pub fn start(options: &Options, mountpoint: &Path) -> Result<()> {
    // Doubled as late as possible: what a process touches before, its child need not touch again.
    let Some(mounted) = mount(options, mountpoint)? else { return Ok(()) };
    let failed = |errno| Error::io("mount on", mountpoint, errno);
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let doubled = pipe.and_then(|pipe| Ok((pipe, process::fork()?)));
    match doubled {
        Ok(((reader, writer), Side::Parent(child))) => {
            drop(writer);
            // The child's now, with all that ends when it is dropped.
            std::mem::forget(mounted);
            wait_until_ready(reader, child, mountpoint)
        }
        Ok(((reader, writer), Side::Child)) => {
            drop(reader);
            std::process::exit(run_in_background(mounted, mountpoint, writer))
        }
        Err(errno) => mounted.serve(|| Err(failed(errno))),
    }
}

/// What the serving process writes once the mount answers; anything else is an error's text.
const READY: &[u8] = b"\0ready";

fn wait_until_ready(reader: OwnedFd, child: process::Child, mountpoint: &Path) -> Result<()> {
    let mut said = Vec::new();
    File::from(reader)
        .read_to_end(&mut said)
        .map_err(|error| Error::std_io("mount on", mountpoint, &error))?;
    if said == READY {
        return Ok(());
    }
    let status = child.wait().map_err(|errno| Error::io("mount on", mountpoint, errno))?;
    if said.is_empty() {
        let how = match status {
            Some(code) => format!("ended with code {code}"),
            None => "was killed".to_owned(),
        };
        let mountpoint = mountpoint.display();
        return Err(Error::Refused(format!("cannot mount on {mountpoint}: the process {how}")));
    }
    Err(Error::Refused(String::from_utf8_lossy(&said).into_owned()))
}

/// Serves as the child of [`start`]; returns the exit code.
fn run_in_background(mounted: Mounted, mountpoint: &Path, writer: OwnedFd) -> i32 {
    let mut waiting = Some(File::from(writer));
    let served = mounted.serve(|| {
        process::detach().map_err(|errno| Error::io("detach from", mountpoint, errno))?;
        log::leave_terminal();
        tell(&mut waiting, READY);
        Ok(())
    });
    match served {
        Ok(()) => 0,
        Err(error) => {
            tell(&mut waiting, error.to_string().as_bytes());
            1
        }
    }
}

/// Writes to the parent, once: the end of the pipe is the end of the message.
fn tell(waiting: &mut Option<File>, message: &[u8]) {
    if let Some(mut pipe) = waiting.take()
        && let Err(error) = pipe.write_all(message)
    {
        tracing::debug!("nobody waits for this mount: {error}");
    }
}
