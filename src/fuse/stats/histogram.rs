//! Latencies in logarithmic buckets: four to each doubling, so that a percentile is known to
//! within a quarter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The first bucket ends at this power of two, in nanoseconds; what is faster is in it.
const SHORTEST: u32 = 8;
/// Buckets of one doubling, as a power of two.
const FINE: u32 = 2;
/// The last bucket begins at 2^35 ns (34 s); what is slower is in it.
const BUCKETS: usize = ((35 - SHORTEST) << FINE) as usize + 2;

/// Written by one thread, read by any: each number is right, and all of them together nearly.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    errors: AtomicU64,
    total: AtomicU64,
    longest: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            errors: AtomicU64::new(0),
            total: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }
}

/// Adds without locking the bus: nobody else writes.
fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Histogram {
    pub(super) fn note(&self, time: Duration, failed: bool) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            add(bucket, 1);
        }
        add(&self.total, nanos);
        if failed {
            add(&self.errors, 1);
        }
        if nanos > self.longest.load(Ordering::Relaxed) {
            self.longest.store(nanos, Ordering::Relaxed);
        }
    }
}

/// The bucket of a time in nanoseconds.
fn bucket_of(nanos: u64) -> usize {
    let Some(doubling) = nanos.checked_ilog2().and_then(|log| log.checked_sub(SHORTEST)) else {
        return 0;
    };
    let quarter = (nanos >> (doubling + SHORTEST - FINE)) & ((1 << FINE) - 1);
    let bucket = ((doubling << FINE) as usize + quarter as usize) + 1;
    bucket.min(BUCKETS - 1)
}

/// The first time, in nanoseconds, that is too long for a bucket.
fn end_of(bucket: usize) -> u64 {
    let (doubling, quarter) = (bucket as u32 >> FINE, (bucket as u64) & ((1 << FINE) - 1));
    ((1 << FINE) + quarter) << (doubling + SHORTEST - FINE)
}

/// Histograms added up.
#[derive(Debug)]
pub(super) struct Sum {
    buckets: [u64; BUCKETS],
    pub errors: u64,
    pub total: u64,
    pub longest: u64,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum { buckets: [0; BUCKETS], errors: 0, total: 0, longest: 0 }
    }
}

impl Sum {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.errors += histogram.errors.load(Ordering::Relaxed);
        self.total += histogram.total.load(Ordering::Relaxed);
        self.longest = self.longest.max(histogram.longest.load(Ordering::Relaxed));
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time in nanoseconds that `share` of the requests did not exceed, as the end of its
    /// bucket.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return end_of(bucket).min(self.longest);
            }
        }
        self.longest
    }

    /// For each power of two up to the slowest request: the time in nanoseconds, and how many
    /// were faster.
    pub(super) fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut seen = 0;
        let mut steps = Vec::new();
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if end_of(bucket).is_power_of_two() && bucket + 1 < BUCKETS {
                steps.push((end_of(bucket), seen));
                if seen == self.count() {
                    break;
                }
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut last = 0;
        // Miri is slow, and meets every branch in few.
        let all = if cfg!(miri) { 8 } else { 14 };
        for nanos in (0..1 << all).chain((all..63).flat_map(|log| [(1 << log) - 1, 1 << log])) {
            let bucket = bucket_of(nanos);
            assert!(bucket == last || bucket == last + 1 || nanos > 1 << all, "{nanos}");
            assert!(bucket < BUCKETS);
            if bucket + 1 < BUCKETS {
                assert!(nanos < end_of(bucket), "{nanos} in {bucket}");
                assert!(bucket == 0 || nanos >= end_of(bucket - 1), "{nanos} in {bucket}");
            }
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_right_to_within_a_quarter() {
        let histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.note(Duration::from_micros(micros), micros % 10 == 0);
        }
        let mut sum = Sum::default();
        sum.add(&histogram);
        assert_eq!((sum.count(), sum.errors, sum.longest), (1000, 100, 1_000_000));
        assert_eq!(sum.total, 500_500_000);
        for (share, exact) in [(0.5, 500_000), (0.9, 900_000), (0.99, 990_000)] {
            let found = sum.quantile(share);
            assert!(found >= exact && found <= exact * 5 / 4, "{share}: {found}");
        }
        assert_eq!(sum.quantile(1.0), 1_000_000);
        let steps = sum.cumulative();
        assert_eq!(steps.last().map(|(_, count)| *count), Some(1000));
        assert!(steps.iter().all(|(end, count)| *count == (end - 1).div_euclid(1000).min(1000)));
    }
}
