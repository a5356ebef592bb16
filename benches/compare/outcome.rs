//! What was measured: samples, medians, ratios.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Res;
use crate::catalog::{self, Workload};
use crate::machine::Machine;
use crate::options::Options;

/// The contender that others are compared with.
pub(crate) const BASE: &str = "overlayfs";

/// One contender doing one workload once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// For one operation.
    pub(crate) nanos: f64,
    pub(crate) digest: String,
    /// Processor time of who works, and of the daemon, for one operation.
    pub(crate) client_nanos: Option<f64>,
    pub(crate) daemon_nanos: Option<f64>,
    /// Requests to the daemon for one operation.
    pub(crate) requests: Option<f64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Nanoseconds for one operation, in order of rounds.
    pub(crate) nanos: Vec<f64>,
    /// What it found, as a digest: the same for all that are right.
    pub(crate) digests: Vec<String>,
    #[serde(default)]
    pub(crate) client_nanos: Vec<f64>,
    pub(crate) daemon_nanos: Vec<f64>,
    #[serde(default)]
    pub(crate) requests: Vec<f64>,
    /// Why there is no more.
    pub(crate) failure: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) contenders: Vec<String>,
    /// Who could not take part, and why.
    pub(crate) absent: Vec<(String, String)>,
    /// By workload (with `@1cpu` where it was bound to one), then by contender.
    pub(crate) series: BTreeMap<String, BTreeMap<String, Series>>,
    /// Daemons' memory, by what was measured and then by contender.
    pub(crate) memory: BTreeMap<String, BTreeMap<String, Res<f64>>>,
    /// How long each workload took this program in all, in seconds.
    pub(crate) seconds: BTreeMap<String, f64>,
}

/// A ratio to the base: the median, and the least and most of single rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// The name under which a workload's series is kept.
pub(crate) fn key(id: &str, pinned: bool) -> String {
    if pinned { format!("{id}@1cpu") } else { id.to_owned() }
}

impl Outcome {
    pub(crate) fn new(machine: Machine, options: &Options) -> Outcome {
        Outcome {
            machine,
            quick: options.quick,
            rounds: options.rounds,
            contenders: Vec::new(),
            absent: Vec::new(),
            series: BTreeMap::new(),
            memory: BTreeMap::new(),
            seconds: BTreeMap::new(),
        }
    }

    fn series_mut(&mut self, id: &str, contender: &str, pinned: bool) -> &mut Series {
        let of_workload = self.series.entry(key(id, pinned)).or_default();
        of_workload.entry(contender.to_owned()).or_default()
    }

    pub(crate) fn note(
        &mut self,
        id: &str,
        contender: &str,
        pinned: bool,
        round: u32,
        sample: Res<Sample>,
    ) {
        let series = self.series_mut(id, contender, pinned);
        match sample {
            Ok(sample) => {
                series.nanos.push(sample.nanos);
                series.digests.push(sample.digest);
                series.client_nanos.extend(sample.client_nanos);
                series.daemon_nanos.extend(sample.daemon_nanos);
                series.requests.extend(sample.requests);
            }
            Err(error) => {
                // What a program says at length helps nobody in a table.
                let error: String = error.chars().take(200).collect();
                eprintln!("{id}: {contender} failed in round {}: {error}", round + 1);
                series.failure = Some(error);
            }
        }
    }

    pub(crate) fn has_failed(&self, id: &str, contender: &str, pinned: bool) -> bool {
        self.series(&key(id, pinned), contender).is_some_and(|series| series.failure.is_some())
    }

    pub(crate) fn series(&self, key: &str, contender: &str) -> Option<&Series> {
        self.series.get(key)?.get(contender)
    }

    /// Why a contender has no numbers, or none of the later rounds: it failed, or it found
    /// something else than the plain filesystem (or the base, where that took no part).
    pub(crate) fn fault(&self, key: &str, contender: &str) -> Option<String> {
        self.wrong(key, contender).or_else(|| self.series(key, contender)?.failure.clone())
    }

    fn wrong(&self, key: &str, contender: &str) -> Option<String> {
        let series = self.series(key, contender)?;
        let right =
            self.series(key, "native").filter(|s| s.failure.is_none() && !s.digests.is_empty());
        let right = right.or_else(|| self.series(key, BASE))?;
        let wrong = series.digests.iter().zip(&right.digests).any(|(own, right)| own != right);
        wrong.then(|| "wrong output".to_owned())
    }

    pub(crate) fn median(&self, key: &str, contender: &str) -> Option<f64> {
        self.wrong(key, contender).is_none().then(|| median(&self.series(key, contender)?.nanos))?
    }

    /// The cost relative to the base: of the medians, with the spread of single rounds.
    pub(crate) fn ratio(&self, key: &str, contender: &str) -> Option<Ratio> {
        let (own, base) = (self.median(key, contender)?, self.median(key, BASE)?);
        let pairs = self.series(key, contender)?.nanos.iter().zip(&self.series(key, BASE)?.nanos);
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for ratio in pairs.map(|(own, base)| own / base) {
            (least, most) = (least.min(ratio), most.max(ratio));
        }
        Some(Ratio { median: own / base, least, most })
    }

    /// The geometric mean of a contender's ratios of all workloads that have a bar.
    pub(crate) fn mean(&self, contender: &str, pinned: bool) -> Option<f64> {
        let ratios: Vec<f64> = self
            .workloads()
            .filter(|workload| catalog::bar_of(workload.id).is_some())
            .filter_map(|workload| Some(self.ratio(&key(workload.id, pinned), contender)?.median))
            .collect();
        let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
        (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
    }

    /// The workloads that were done, in the order of the catalog.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = &'static Workload> + '_ {
        let done = |workload: &&Workload| {
            self.series.contains_key(workload.id)
                || self.series.contains_key(&key(workload.id, true))
        };
        catalog::WORKLOADS.iter().filter(done)
    }
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}
