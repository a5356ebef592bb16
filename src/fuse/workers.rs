//! The threads that serve one mount.
//!
//! As few threads as possible read the device. The kernel wakes waiting readers in turn, so that
//! with several of them the requests of one client go round all processors, and each finds its
//! caches cold (measured with four readers: five times the latency of one). One *reader* serves
//! while the others *stand by*.
//!
//! A reader that copies up a large file, or waits for a disk, must not keep others waiting. So
//! one thread that stands by looks once in a [`TICK`] whether anything was served since, and
//! becomes a reader where all others are stuck. When their requests are done, those in excess
//! stand by again. While nothing happens at all, nobody ticks.
//!
//! On a machine with many processors, readers that never have to wait for a request call for
//! another, up to half the processors: the other half is for the clients.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::adapter::{Adapter, Context};
use super::buffer::{ReplyBuffer, RequestBuffer};
use super::channel::{Channel, Received};
use super::duty::{Duty, Role, TICK};
use super::request::Request;
use super::session::Event;
use super::stats::Recorder;
use crate::error::{Errno, Error, FsResult, Result};

/// The most threads, unless an option says otherwise.
const MOST: usize = 16;
/// A request that came within this time was waiting already.
const AT_ONCE: Duration = Duration::from_micros(1);
/// So many requests in a row that were waiting call for another reader; so many that were not
/// let one go.
const IN_A_ROW: u32 = 64;

/// All threads of one mount.
pub(super) struct Workers {
    adapter: Arc<Adapter>,
    /// Tells the session of each thread that ended.
    events: Sender<Event>,
    most: usize,
    /// Threads that were started and did not end.
    live: AtomicUsize,
    duty: Duty,
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
        let most = most.unwrap_or(MOST).max(1);
        let workers = Arc::new(Workers {
            adapter,
            events,
            most,
            live: AtomicUsize::new(0),
            duty: Duty::of_one_reader(),
        });
        workers.add(channel, Role::Read)?;
        workers.ensure_standby(channel);
        Ok(workers)
    }

    /// Threads that did not end yet. Zero is final: only a live thread starts another.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Starts a thread; `false` where there are as many as there may be.
    fn add(self: &Arc<Self>, channel: &Channel, role: Role) -> Result<bool> {
        let room = |live: usize| (live < self.most).then_some(live + 1);
        let Ok(number) = self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) else {
            return Ok(false);
        };
        let started = channel.another().and_then(|channel| {
            let mut worker = Worker::new(channel, Arc::clone(self));
            std::thread::Builder::new()
                .name(format!("fuse-{number}"))
                .spawn(move || worker.run(role))
                .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))
        });
        if started.is_err() {
            self.live.fetch_sub(1, Ordering::AcqRel);
        }
        started.map(|_| true)
    }

    /// Makes sure that a thread stands by, if there may be another. Without one the mount goes
    /// on, only slow requests then keep others waiting.
    fn ensure_standby(self: &Arc<Self>, channel: &Channel) {
        if !self.duty.calls_standby() {
            return;
        }
        let added = self.add(channel, Role::StandBy);
        if !matches!(added, Ok(true)) {
            self.duty.standby_did_not_come(&self.adapter.wakeful);
        }
        if let Err(error) = added {
            tracing::warn!("{error}");
        }
    }

    /// Serves one request. A panic is a bug of ours, but the containers that live on this mount
    /// must outlive it: that one request fails.
    fn serve(&self, context: &mut Context<'_>) -> FsResult<()> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.adapter.serve(context)));
        caught.unwrap_or_else(|_| {
            self.adapter.board.note_panic();
            let operation = super::stats::name(context.request.opcode());
            let node = context.request.node.0;
            tracing::error!(
                operation,
                node,
                "a request ended in a panic; it was answered with EIO"
            );
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
    recorder: Arc<Recorder>,
}

impl Worker {
    fn new(channel: Channel, workers: Arc<Workers>) -> Worker {
        let (request, reply) = (RequestBuffer::new(), ReplyBuffer::new());
        let recorder = workers.adapter.board.lend();
        Worker { channel, workers, request, reply, recorder }
    }

    fn run(&mut self, mut role: Role) {
        while role != Role::End {
            role = match role {
                Role::Read => {
                    self.workers.ensure_standby(&self.channel);
                    self.read()
                }
                _ => self.workers.duty.stand_by(&self.workers.adapter.wakeful),
            };
        }
        self.workers.adapter.board.give_back(Arc::clone(&self.recorder));
        self.workers.live.fetch_sub(1, Ordering::AcqRel);
        // A session that is over does not listen any more.
        drop(self.workers.events.send(Event::ThreadEnded));
    }

    /// Serves requests until this reader is not needed any more.
    fn read(&mut self) -> Role {
        let workers = Arc::clone(&self.workers);
        let mut pace = Pace::default();
        loop {
            workers.duty.begin_waiting();
            let asked = Instant::now();
            let received = self.channel.receive(self.request.room());
            let waited = asked.elapsed();
            workers.duty.request_came();
            let took = match received {
                Ok(Received::Request(length)) => self.answer(length, asked + waited),
                Ok(Received::Unmounted) => {
                    workers.duty.end();
                    return Role::End;
                }
                Err(errno) => {
                    tracing::error!("cannot read a request: {errno}");
                    workers.duty.end();
                    return Role::End;
                }
            };
            workers.duty.note_progress();
            let helped = took > TICK;
            match pace.after(waited) {
                Load::Backlog => workers.duty.call_reader(workers.most),
                load if helped || load == Load::Slack => {
                    let role = workers.duty.next_role(load == Load::Slack);
                    if role != Role::Read {
                        return role;
                    }
                }
                _ => {}
            }
        }
    }

    /// Serves the request that was `received`, answers it, and says how long serving took. It
    /// is counted before its caller goes on, so that who asks afterwards finds it counted.
    fn answer(&mut self, length: usize, received: Instant) -> Duration {
        let Some(request) = Request::parse(self.request.message(length)) else {
            tracing::error!("{length} bytes that are no request");
            return Duration::ZERO;
        };
        self.reply.clear();
        let mut context =
            Context { channel: &self.channel, request: &request, reply: &mut self.reply };
        let result = self.workers.serve(&mut context);
        tracing::trace!(opcode = request.opcode(), node = request.node.0, ?result);
        let took = received.elapsed();
        self.recorder.note(request.opcode(), took, result.is_err());
        if !request.wants_reply() {
            return took;
        }
        match self.channel.send(self.reply.message(request.unique, result)) {
            // Nobody waits for it any more, or the mount is gone: the next read will tell.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => {}
            Err(errno) => {
                tracing::error!(opcode = request.opcode(), "cannot send a reply: {errno}");
            }
        }
        took
    }
}

/// Whether requests wait for this reader or it for them, over the last few.
#[derive(Debug, Default)]
struct Pace {
    at_once: u32,
    after_a_while: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Backlog,
    Steady,
    Slack,
}

impl Pace {
    fn after(&mut self, waited: Duration) -> Load {
        if waited <= AT_ONCE {
            (self.at_once, self.after_a_while) = (self.at_once + 1, 0);
        } else {
            (self.at_once, self.after_a_while) = (0, self.after_a_while + 1);
        }
        if self.at_once >= IN_A_ROW {
            self.at_once = 0;
            Load::Backlog
        } else if self.after_a_while >= IN_A_ROW {
            self.after_a_while = 0;
            Load::Slack
        } else {
            Load::Steady
        }
    }
}
