//! The threads that serve one mount.
//!
//! A thread that copies up a large file, or waits for a disk, must not keep others waiting. So
//! whenever the last idle thread takes a request, another is started. Threads that are no longer
//! needed end again, but only when several are idle: the kernel wakes them in turn, and fewer
//! threads keep their caches warmer, but starting one costs more than keeping it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use super::adapter::{Adapter, Context};
use super::buffer::{ReplyBuffer, RequestBuffer};
use super::channel::{Channel, Received};
use super::request::Request;
use super::session::Event;
use crate::error::{Errno, Error, FsResult, Result};

/// Threads at the start.
const FIRST: usize = 2;
/// A thread that finds as many others idle ends.
const SPARE: usize = 4;
/// The most threads, unless an option says otherwise.
const MOST: usize = 16;

/// All threads of one mount.
pub(super) struct Workers {
    adapter: Arc<Adapter>,
    /// Tells the session of each thread that ended.
    events: Sender<Event>,
    most: usize,
    /// Threads that were started and did not end.
    live: AtomicUsize,
    /// Those of them that wait for a request.
    idle: AtomicUsize,
    /// Requests that ended in a panic.
    panics: AtomicU64,
}

impl Workers {
    /// Starts the first threads on clones of `channel`.
    ///
    /// # Errors
    /// Not even one could be started.
    pub(super) fn start(
        channel: &Channel,
        adapter: Arc<Adapter>,
        most: Option<usize>,
        events: Sender<Event>,
    ) -> Result<Arc<Workers>> {
        let workers = Arc::new(Workers {
            adapter,
            events,
            most: most.unwrap_or(MOST),
            live: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            panics: AtomicU64::new(0),
        });
        for number in 0..FIRST.min(workers.most) {
            match workers.add(channel) {
                Err(error) if number == 0 => return Err(error),
                Err(error) => tracing::warn!("{error}"),
                Ok(()) => {}
            }
        }
        Ok(workers)
    }

    /// Threads that did not end yet. Zero is final: only a live thread starts another.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Requests that ended in a panic so far.
    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Starts a thread, unless there are as many as there may be.
    fn add(self: &Arc<Self>, channel: &Channel) -> Result<()> {
        let room = |live: usize| (live < self.most).then_some(live + 1);
        let Ok(number) = self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) else {
            return Ok(());
        };
        self.idle.fetch_add(1, Ordering::AcqRel);
        let started = channel.another().and_then(|channel| {
            let mut worker = Worker::new(channel, Arc::clone(self));
            std::thread::Builder::new()
                .name(format!("fuse-{number}"))
                .spawn(move || worker.run())
                .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))
        });
        if started.is_err() {
            self.idle.fetch_sub(1, Ordering::AcqRel);
            self.live.fetch_sub(1, Ordering::AcqRel);
        }
        started.map(drop)
    }

    /// Serves one request. A panic is a bug of ours, but the containers that live on this mount
    /// must outlive it: that one request fails.
    fn serve(&self, context: &mut Context<'_>) -> FsResult<()> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.adapter.serve(context)));
        caught.unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(opcode = context.request.opcode(), "a request ended in a panic");
            Err(Errno::IO)
        })
    }
}

/// One thread's own: its descriptor and its buffers.
struct Worker {
    channel: Channel,
    workers: Arc<Workers>,
    request: RequestBuffer,
    reply: ReplyBuffer,
}

impl Worker {
    fn new(channel: Channel, workers: Arc<Workers>) -> Worker {
        let (request, reply) = (RequestBuffer::new(), ReplyBuffer::new());
        Worker { channel, workers, request, reply }
    }

    fn run(&mut self) {
        self.serve_requests();
        self.workers.live.fetch_sub(1, Ordering::AcqRel);
        // A session that is over does not listen any more.
        drop(self.workers.events.send(Event::ThreadEnded));
    }

    fn serve_requests(&mut self) {
        loop {
            let received = self.channel.receive(self.request.room());
            let others_idle = self.workers.idle.fetch_sub(1, Ordering::AcqRel) - 1;
            match received {
                Ok(Received::Request(length)) => {
                    if others_idle == 0
                        && let Err(error) = self.workers.add(&self.channel)
                    {
                        tracing::warn!("{error}");
                    }
                    self.answer(length);
                }
                Ok(Received::Unmounted) => return,
                Err(errno) => {
                    tracing::error!("cannot read a request: {errno}");
                    return;
                }
            }
            if self.workers.idle.fetch_add(1, Ordering::AcqRel) >= SPARE {
                self.workers.idle.fetch_sub(1, Ordering::AcqRel);
                return;
            }
        }
    }

    fn answer(&mut self, length: usize) {
        let Some(request) = Request::parse(self.request.message(length)) else {
            tracing::error!("{length} bytes that are no request");
            return;
        };
        self.reply.clear();
        let mut context =
            Context { channel: &self.channel, request: &request, reply: &mut self.reply };
        let result = self.workers.serve(&mut context);
        tracing::trace!(opcode = request.opcode(), node = request.node.0, ?result);
        if !request.wants_reply() {
            return;
        }
        match self.channel.send(self.reply.message(request.unique, result)) {
            // Nobody waits for it any more, or the mount is gone: the next read will tell.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => {}
            Err(errno) => {
                tracing::error!(opcode = request.opcode(), "cannot send a reply: {errno}");
            }
        }
    }
}
