//! Keeps processors from falling asleep between two requests.
//!
//! A client that waits for an answer leaves its processor idle, and so does a reader that waits
//! for a request. Waking an idle processor takes far longer than serving most requests: on a
//! virtual machine, where it takes the hypervisor's help, a round trip of 8 µs becomes one of 40.
//! So while requests come one after the other we ask the kernel for processors that wake up fast,
//! and withdraw it as soon as they do not: idle processors then sleep as before. What it costs
//! meanwhile is power, and on a virtual machine the host's time.
//!
//! Many bursts are over within a few milliseconds (a program that starts, a list of a directory), so
//! the first request after a pause is taken for the start of one, as long as that is true of most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::overlay::options::CpuLatencyPolicy;
use crate::sys::cpu_latency::{self, CpuLatency};

/// Requests within a millisecond that make it worthwhile: one after the other they are at least
/// ten, of directories in a hundred layers three, and of those that wait for a disk about one.
const BUSY: f64 = 2.0;
/// How long after the last busy moment processors are kept awake.
const HOLD: Duration = Duration::from_millis(4);
/// Shorter spans say nothing of how many requests come.
const SHORTEST: Duration = Duration::from_micros(500);
/// After bursts that were expected in vain, the first request of up to so many pauses is let be.
const MOST_IGNORED: u32 = 64;
/// Up to so many processors none sleeps at all; with more of them that would be too much power for
/// one client's sake, and the lightest sleep must do.
const FEW_PROCESSORS: usize = 4;
/// Microseconds that processors take to wake up from their lightest sleep (C1).
const LIGHTEST: u32 = 2;

/// One mount's request to the kernel; of no effect where it may make none.
#[derive(Debug, Default)]
pub(super) struct Wakeful {
    state: Mutex<State>,
    /// How often processors were kept awake.
    times: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    device: Option<CpuLatency>,
    /// Microseconds that processors may take to wake up meanwhile.
    most: u32,
    awake: bool,
    seen: Option<Seen>,
    luck: Luck,
}

/// The last look at how many requests there were.
#[derive(Debug, Clone, Copy)]
struct Seen {
    requests: u64,
    at: Instant,
    /// The last busy moment.
    busy: Option<Instant>,
    /// At the end of a pause: whether a burst is expected. The next look tells.
    expected: Option<bool>,
}

/// Whether bursts came where they were expected.
#[derive(Debug, Default)]
struct Luck {
    /// How many were expected in vain, one after the other.
    vain: u32,
    /// Pauses whose end will be let be.
    ignore: u32,
}

impl Wakeful {
    /// As `policy` says. Who may decide this for a machine the mode of the device says: where it
    /// cannot be opened, nothing is ever asked.
    pub(super) fn new(policy: CpuLatencyPolicy) -> Wakeful {
        let most = match policy {
            CpuLatencyPolicy::Off => return Wakeful::default(),
            CpuLatencyPolicy::Most(microseconds) => microseconds,
            CpuLatencyPolicy::Auto if cpu_latency::processors() <= FEW_PROCESSORS => 0,
            CpuLatencyPolicy::Auto => LIGHTEST,
        };
        let device = CpuLatency::open().inspect_err(|errno| {
            tracing::debug!("processors sleep as they like: {}: {errno}", cpu_latency::PATH);
        });
        let state = State { device: device.ok(), most, ..State::default() };
        Wakeful { state: Mutex::new(state), times: AtomicU64::new(0) }
    }

    /// How often processors were kept awake so far.
    pub(super) fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    /// Looks at how many `requests` there were in all; called about once in a millisecond while
    /// any come.
    pub(super) fn look(&self, requests: u64) {
        let mut state = self.state.lock();
        if state.device.is_none() {
            return;
        }
        let last = state.seen;
        let next = Seen::next(last, requests, Instant::now());
        state.seen = Some(next);
        if let (Some(expected), None) = (last.and_then(|last| last.expected), next.expected) {
            state.luck.note(expected, next.busy.is_some());
        }
        self.ask(&mut state, next.wants_awake());
    }

    /// The first request after a pause came, of `requests` in all.
    pub(super) fn expect(&self, requests: u64) {
        let mut state = self.state.lock();
        if state.device.is_none() {
            return;
        }
        let expected = state.luck.expects();
        let at = Instant::now();
        state.seen = Some(Seen { requests, at, busy: None, expected: Some(expected) });
        self.ask(&mut state, expected);
    }

    /// Withdraws what was asked: nobody looks any more.
    pub(super) fn rest(&self) {
        let mut state = self.state.lock();
        state.seen = None;
        self.ask(&mut state, false);
    }

    fn ask(&self, state: &mut State, awake: bool) {
        let Some(device) = state.device.as_ref().filter(|_| state.awake != awake) else { return };
        if let Err(errno) = device.ask(awake.then_some(state.most)) {
            // Closing it withdraws all that was asked.
            tracing::warn!("processors sleep from now on as they like: {errno}");
            (state.device, state.awake) = (None, false);
            return;
        }
        state.awake = awake;
        self.times.fetch_add(u64::from(awake), Ordering::Relaxed);
    }
}

impl Seen {
    fn next(last: Option<Seen>, requests: u64, now: Instant) -> Seen {
        let Some(last) = last else { return Seen::first(requests, now) };
        let span = now.saturating_duration_since(last.at);
        if span < SHORTEST {
            return last;
        }
        let came = requests.saturating_sub(last.requests) as f64;
        let busy = came / (span.as_secs_f64() * 1e3) >= BUSY;
        let busy = if busy { Some(now) } else { last.busy };
        Seen { requests, at: now, busy, expected: None }
    }

    fn first(requests: u64, at: Instant) -> Seen {
        Seen { requests, at, busy: None, expected: None }
    }

    fn wants_awake(&self) -> bool {
        self.expected == Some(true)
            || self.busy.is_some_and(|busy| self.at.saturating_duration_since(busy) < HOLD)
    }
}

impl Luck {
    /// Whether a burst is expected at the end of this pause.
    fn expects(&mut self) -> bool {
        let expects = self.ignore == 0;
        self.ignore = self.ignore.saturating_sub(1);
        expects
    }

    /// A burst `came` at the end of a pause, or did not.
    fn note(&mut self, expected: bool, came: bool) {
        if came {
            *self = Luck::default();
        } else if expected {
            self.vain = (self.vain + 1).min(MOST_IGNORED.ilog2() + 1);
            self.ignore = 1 << (self.vain - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In how many of so many pauses a burst was expected, where one `came` after all of them.
    fn expected_of(pauses: u32, luck: &mut Luck, came: bool) -> usize {
        let expects = |_: &u32| {
            let expected = luck.expects();
            luck.note(expected, came);
            expected
        };
        (0..pauses).filter(expects).count()
    }

    #[test]
    fn bursts_are_expected_as_long_as_they_come() {
        let mut luck = Luck::default();
        assert_eq!(expected_of(100, &mut luck, true), 100);
        // 1, 2, 4 and so on are let be, then 64 each time.
        assert_eq!(expected_of(1 + 2 + 3 + 5 + 9 + 17 + 33 + 65, &mut luck, false), 8);
        assert_eq!(expected_of(650, &mut luck, false), 10);
        // One that comes, though it was not expected, makes up for it.
        assert_eq!(expected_of(100, &mut luck, true), 99);
    }

    #[test]
    fn an_expected_burst_keeps_processors_awake_until_the_next_look() {
        let at = Instant::now();
        let seen = Seen { requests: 5, at, busy: None, expected: Some(true) };
        assert!(Seen::next(Some(seen), 6, at + SHORTEST / 2).wants_awake());
        assert!(!Seen::next(Some(seen), 6, at + Duration::from_millis(1)).wants_awake());
        assert!(Seen::next(Some(seen), 9, at + Duration::from_millis(1)).wants_awake());
    }

    /// What is wanted after each millisecond in which so many requests came.
    fn after(requests: &[u64]) -> Vec<bool> {
        let start = Instant::now();
        let (mut seen, mut sum) = (Seen::next(None, 0, start), 0);
        let look = |(n, came): (usize, &u64)| {
            sum += came;
            seen = Seen::next(Some(seen), sum, start + Duration::from_millis(n as u64 + 1));
            seen.wants_awake()
        };
        requests.iter().enumerate().map(look).collect()
    }

    #[test]
    fn one_request_after_the_other_keeps_processors_awake() {
        assert_eq!(after(&[20, 25, 4, 30]), [true; 4]);
    }

    #[test]
    fn a_request_now_and_then_does_not() {
        assert_eq!(after(&[1, 0, 1, 1, 0, 1, 1, 1, 1, 1]), [false; 10]);
    }

    #[test]
    fn they_sleep_again_soon_after_the_last_request() {
        assert_eq!(after(&[20, 0, 1, 1, 1, 0]), [true, true, true, true, false, false]);
    }

    #[test]
    fn a_look_too_soon_changes_nothing() {
        let start = Instant::now();
        let seen = Seen::next(None, 0, start);
        let again = Seen::next(Some(seen), 3, start + Duration::from_micros(10));
        assert_eq!((again.requests, again.wants_awake()), (0, false));
    }
}
