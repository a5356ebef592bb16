//! Who of a mount's threads reads requests, and who stands by.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::wakeful::Wakeful;

/// How long all readers may be stuck before another thread helps.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a request after which nobody ticks any more.
const QUIET_TICKS: u32 = 20;
/// Threads that stand by; one that would be in excess ends.
const SPARE: usize = 2;

/// What a thread does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Read,
    StandBy,
    End,
}

/// The duties of all threads of one mount.
pub(super) struct Duty {
    /// The most readers that are wanted while none is stuck; found out when it first matters.
    busy_readers: OnceLock<usize>,
    /// Readers that wait for a request.
    waiting: AtomicUsize,
    /// Counts requests, when they come and when they are done.
    progress: AtomicU64,
    /// The one that ticks went to sleep.
    asleep: AtomicBool,
    state: Mutex<State>,
    change: Condvar,
}

/// Its lock is held for moments, and of other locks only that of [`Wakeful`] is taken under it.
#[derive(Debug, Default)]
struct State {
    readers: usize,
    /// Counted from when one is called for, so that there are never two for one.
    standing_by: usize,
    /// Of those that stand by, the ones that do not tick: they wait to be woken.
    sleeping: usize,
    /// Readers that are wanted; more than there are while one was called for.
    wanted: usize,
    /// The filesystem is unmounted.
    over: bool,
}

impl Duty {
    /// For a mount that starts with one reader.
    pub(super) fn of_one_reader() -> Duty {
        Duty {
            busy_readers: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            state: Mutex::new(State { readers: 1, wanted: 1, ..State::default() }),
            change: Condvar::new(),
        }
    }

    /// Whether another must be started to stand by; it counts from now on.
    pub(super) fn calls_standby(&self) -> bool {
        let mut state = self.state.lock();
        if state.standing_by > 0 {
            return false;
        }
        state.standing_by += 1;
        true
    }

    /// The one that was called for could not be started.
    pub(super) fn standby_did_not_come(&self, wakeful: &Wakeful) {
        let mut state = self.state.lock();
        state.standing_by -= 1;
        if state.standing_by == 0 {
            // Nobody looks any more.
            wakeful.rest();
        }
    }

    /// Waits until this thread is needed as a reader.
    pub(super) fn stand_by(&self, wakeful: &Wakeful) -> Role {
        let mut state = self.state.lock();
        let mut seen = self.progress.load(Ordering::Acquire);
        let mut quiet = 0;
        let role = loop {
            if state.over {
                break Role::End;
            }
            if state.readers < state.wanted {
                break Role::Read;
            }
            if quiet < QUIET_TICKS {
                self.change.wait_for(&mut state, TICK);
            } else {
                self.asleep.store(true, Ordering::SeqCst);
                // A request that came just before that will not wake us.
                if self.progress.load(Ordering::SeqCst) == seen {
                    state.sleeping += 1;
                    self.change.wait(&mut state);
                    state.sleeping -= 1;
                }
                self.asleep.store(false, Ordering::SeqCst);
                wakeful.expect(self.requests());
                quiet = 0;
            }
            let now = self.progress.load(Ordering::Acquire);
            wakeful.look(self.requests());
            let stuck = now == seen && self.waiting.load(Ordering::Acquire) == 0;
            if stuck {
                break Role::Read;
            }
            quiet = if now == seen { quiet + 1 } else { 0 };
            seen = now;
        };
        state.standing_by -= 1;
        if role == Role::Read {
            state.readers += 1;
            self.leave_one_ticking(&state);
        } else {
            wakeful.rest();
        }
        role
    }

    /// Wakes one of those that stand by where all of them sleep: the next request would not, because
    /// one woke this thread already. (Not where one ticks: woken early, it would take a reader that
    /// served nothing since for stuck.)
    fn leave_one_ticking(&self, state: &State) {
        if state.standing_by > 0 && state.sleeping == state.standing_by {
            self.change.notify_one();
        }
    }

    /// Requests until now; each is progress twice.
    fn requests(&self) -> u64 {
        self.progress.load(Ordering::Acquire) / 2
    }

    /// Calls for one more reader of at most `most` threads, where that may help.
    pub(super) fn call_reader(&self, most: usize) {
        let half = || {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            (processors / 2).clamp(1, most)
        };
        let most = *self.busy_readers.get_or_init(half);
        let mut state = self.state.lock();
        if state.readers < most {
            state.wanted = state.readers + 1;
            self.change.notify_one();
        }
    }

    /// Whether a reader goes on reading after a request; one in excess does not.
    pub(super) fn next_role(&self, dispensable: bool) -> Role {
        let mut state = self.state.lock();
        if dispensable {
            state.wanted = state.wanted.saturating_sub(1).max(1);
        }
        if state.readers <= state.wanted {
            return Role::Read;
        }
        state.readers -= 1;
        if state.standing_by >= SPARE {
            return Role::End;
        }
        state.standing_by += 1;
        Role::StandBy
    }

    /// The filesystem is unmounted: whoever stands by ends.
    pub(super) fn end(&self) {
        self.state.lock().over = true;
        self.change.notify_all();
    }

    /// A reader waits for a request from now on.
    pub(super) fn begin_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// It got one.
    pub(super) fn request_came(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.note_progress();
    }

    /// A request came, or one is done.
    pub(super) fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.change.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::JoinHandle;
    use std::time::Instant;

    use super::*;

    /// Far more than anything here takes.
    const LONG: Duration = Duration::from_secs(30);

    /// A thread that stands by; what it is to do then comes through the channel.
    fn standing_by(duty: &Arc<Duty>) -> (Receiver<Role>, JoinHandle<()>) {
        duty.state.lock().standing_by += 1;
        let (tell, told) = channel();
        let duty = Arc::clone(duty);
        let thread = std::thread::spawn(move || {
            tell.send(duty.stand_by(&Wakeful::default())).expect("somebody listens");
        });
        (told, thread)
    }

    fn all_sleep(duty: &Duty, threads: usize) {
        let start = Instant::now();
        while duty.state.lock().sleeping < threads {
            assert!(start.elapsed() < LONG, "they do not go to sleep");
            std::thread::sleep(TICK);
        }
    }

    #[test]
    fn the_last_who_sleeps_looks_too_when_the_first_is_stuck() {
        let duty = Arc::new(Duty::of_one_reader());
        duty.begin_waiting();
        let (first, second) = (standing_by(&duty), standing_by(&duty));
        all_sleep(&duty, 2);
        // A request that never ends; and then another, with whoever helps.
        duty.request_came();
        let start = Instant::now();
        let helps = || loop {
            if let Ok(role) = first.0.try_recv().or_else(|_| second.0.try_recv()) {
                return role;
            }
            assert!(start.elapsed() < LONG, "nobody helps");
            std::thread::sleep(TICK);
        };
        assert_eq!(helps(), Role::Read);
        duty.begin_waiting();
        duty.request_came();
        assert_eq!(helps(), Role::Read);
        first.1.join().expect("no panic");
        second.1.join().expect("no panic");
        assert_eq!(duty.state.lock().readers, 3);
    }

    #[test]
    fn whoever_sleeps_ends_with_the_mount() {
        let duty = Arc::new(Duty::of_one_reader());
        duty.begin_waiting();
        let (told, thread) = standing_by(&duty);
        all_sleep(&duty, 1);
        duty.end();
        assert_eq!(told.recv_timeout(LONG), Ok(Role::End));
        thread.join().expect("no panic");
    }
}
