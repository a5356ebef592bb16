//! One mount from its INIT to its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::adapter::Adapter;
use super::buffer::{ReplyBuffer, RequestBuffer};
use super::channel::{Channel, Received};
use super::mount::{self, MountPoint};
use super::negotiate::{self, Agreed};
use super::notify::Notifier;
use super::request::{Operation, Request};
use super::stats::Snapshot;
use super::wakeful::Wakeful;
use super::workers::Workers;
use crate::error::{Errno, Error, FsResult, Result};
use crate::overlay::Overlay;
use crate::overlay::options::Options;
use crate::sys::{privileges, process};

/// How long users of a mount that was told to stop may go on with what they have open.
const GRACE: Duration = Duration::from_secs(2);

/// A mounted filesystem that answered INIT and is ready to serve.
pub struct Session {
    adapter: Arc<Adapter>,
    channel: Channel,
    point: MountPoint,
    threads: Option<usize>,
    looks_ahead: bool,
    events: (Sender<Event>, Receiver<Event>),
}

pub(super) enum Event {
    /// Somebody asked for the end.
    Stop,
    /// A serving thread ended.
    ThreadEnded,
}

/// Ends a session from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    /// Unmounts, and makes [`Session::serve`] return soon.
    pub fn stop(&self) {
        // A session that is over has nobody who listens.
        drop(self.0.send(Event::Stop));
    }
}

/// Looks at a session from another thread.
#[derive(Clone)]
pub struct Observer(Arc<Adapter>);

impl Observer {
    /// The figures as of now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Session {
    /// Mounts `overlay` on the absolute path `mountpoint` and agrees with the kernel on how to
    /// talk. Users of the mount wait until [`Session::serve`] runs.
    ///
    /// # Errors
    /// A mount that is refused; nothing is mounted then.
    pub fn mount(overlay: Arc<Overlay>, options: &Options, mountpoint: &Path) -> Result<Session> {
        let (device, point) = mount::mount(options, mountpoint)?;
        let channel = Channel::new(device);
        let agreed = match shake_hands(&channel, options, &overlay) {
            Ok(agreed) => agreed,
            Err(error) => {
                if let Err(second) = point.unmount() {
                    tracing::error!("{second}");
                }
                return Err(error);
            }
        };
        super::read_ahead::widen(mountpoint);
        // Opened while we may still.
        let wakeful = Wakeful::new(options.cpu_latency);
        if let Err(errno) = give_up_rights(&point) {
            tracing::warn!(%errno, "the daemon keeps all its rights");
        }
        Ok(Session {
            adapter: Arc::new(Adapter::new(overlay, options, agreed, wakeful, mountpoint)),
            channel,
            point,
            threads: options.threads,
            looks_ahead: !options.no_look_ahead && options.threads != Some(1),
            events: std::sync::mpsc::channel(),
        })
    }

    /// Makes room for the descriptors of directories and open files that most mounts come to have.
    /// Before there are threads: later it would wait for what it spares.
    pub(super) fn reserve_descriptors(&self) {
        /// 64 KiB of the kernel's memory.
        const ROOM: u64 = 8192;
        if let Err(errno) = process::reserve_descriptors(&self.channel, ROOM) {
            tracing::debug!("descriptors get their room when they come: {errno}");
        }
    }

    /// What ends this session.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.events.0.clone())
    }

    /// What tells what was done so far.
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.adapter))
    }

    /// What tells the kernel of changes that did not come through it.
    pub fn notifier(&self) -> Result<Notifier> {
        Ok(Notifier::new(self.channel.another()?))
    }

    /// Serves until the filesystem is unmounted or [`Stopper::stop`] is called. The overlay is
    /// not shut down: that is its owner's next step.
    ///
    /// # Errors
    /// Threads that cannot be started; the filesystem is unmounted then.
    pub fn serve(self) -> Result<()> {
        self.serve_and(|| Ok(()))
    }

    /// As [`Session::serve`]; `ready` is called when requests are answered.
    pub(super) fn serve_and(self, ready: impl FnOnce() -> Result<()>) -> Result<()> {
        let adapter = Arc::clone(&self.adapter);
        let (events, _) = &self.events;
        let workers = match Workers::start(&self.channel, adapter, self.threads, events.clone()) {
            Ok(workers) => workers,
            Err(error) => {
                self.point.unmount()?;
                return Err(error);
            }
        };
        if self.looks_ahead {
            super::look_ahead::begin(&self.adapter.overlay);
        }
        let told = ready();
        if told.is_err() {
            // Served all the same, to its end: that is how it is unmounted.
            self.stopper().stop();
        }
        let mut deadline: Option<Instant> = None;
        while workers.live() > 0 {
            match self.next_event(deadline) {
                Some(Event::ThreadEnded) => {}
                Some(Event::Stop) => {
                    self.point.unmount()?;
                    deadline = Some(Instant::now() + GRACE);
                }
                // Files are still in use: their users get errors from now on.
                None => {
                    self.adapter.close();
                    break;
                }
            }
        }
        self.adapter.overlay.stop_looking_ahead();
        match self.adapter.board.panics() {
            0 => told,
            panics => Err(Error::Refused(format!("{panics} requests ended in a panic"))),
        }
    }

    /// The next event, or `None` when `deadline` is over.
    fn next_event(&self, deadline: Option<Instant>) -> Option<Event> {
        let Some(deadline) = deadline else { return self.events.1.recv().ok() };
        let left = deadline.saturating_duration_since(Instant::now());
        self.events.1.recv_timeout(left).ok()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("point", &self.point).finish_non_exhaustive()
    }
}

/// Gives up what serving does not need; a mount that `fusermount3` takes off must still be able to
/// run it.
fn give_up_rights(point: &MountPoint) -> FsResult<()> {
    privileges::drop_capabilities()?;
    if point.needs_helper() { Ok(()) } else { privileges::forbid_new_privileges() }
}

/// Reads the kernel's INIT and answers it.
fn shake_hands(channel: &Channel, options: &Options, overlay: &Overlay) -> Result<Agreed> {
    let failed = |errno: Errno| Error::io("talk to", crate::sys::fuse_dev::PATH, errno);
    let mut request = RequestBuffer::for_init();
    let mut reply = ReplyBuffer::small();
    let length = match channel.receive(request.room()).map_err(failed)? {
        Received::Request(length) => length,
        Received::Unmounted => return Err(failed(Errno::NODEV)),
    };
    let request = Request::parse(request.message(length)).ok_or_else(|| failed(Errno::IO))?;
    let Operation::Init(offer) = request.operation(false).map_err(failed)? else {
        return Err(failed(Errno::IO));
    };
    let privileged = process::is_initial_root();
    let answer = negotiate::answer(offer, options, overlay.has_acls(), privileged);
    let result = match &answer {
        Ok((out, _)) => reply.put(out),
        Err(_) => Err(Errno::PROTO),
    };
    channel.send(reply.message(request.unique, result)).map_err(failed)?;
    answer.map(|(_, agreed)| agreed)
}
