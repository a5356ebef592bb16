//! Figures for people, line by line.

use super::Snapshot;
use crate::overlay::counters::CacheFigures;

impl Snapshot {
    /// The figures as lines of a terminal or a log.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: pid {}, mounted for {:.0} s, {} threads, log {}",
            self.mountpoint.display(),
            self.pid,
            self.uptime_seconds,
            self.threads,
            self.log
        )];
        self.requests_into(&mut lines);
        self.overlay_into(&mut lines);
        if let Some(process) = &self.process {
            lines.push(format!(
                "process      {:.1} MB resident ({:.1} MB heap and stacks), cpu {:.2} s user {:.2} s \
                 system, {} of {} descriptors",
                process.resident_bytes as f64 / 1e6,
                process.anonymous_bytes as f64 / 1e6,
                process.user_seconds,
                process.system_seconds,
                process.descriptors,
                process.descriptor_limit,
            ));
        }
        if self.kept_awake > 0 {
            lines.push(format!("processors   kept awake {} times", self.kept_awake));
        }
        if self.panics > 0 {
            lines.push(format!("panics       {} (each is a bug: please report it)", self.panics));
        }
        lines
    }

    fn requests_into(&self, lines: &mut Vec<String>) {
        if self.requests.is_empty() {
            return;
        }
        lines.push(format!(
            "{:<15} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "REQUEST", "COUNT", "ERRORS", "P50", "P90", "P99", "MAX"
        ));
        let mut requests: Vec<_> = self.requests.iter().collect();
        requests.sort_by_key(|request| std::cmp::Reverse(request.count));
        for request in requests {
            let latency = &request.latency;
            let [p50, p90, p99, max] =
                [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.max_ns].map(duration);
            lines.push(format!(
                "{:<15} {:>10} {:>8} {p50:>9} {p90:>9} {p99:>9} {max:>9}",
                request.kind, request.count, request.errors
            ));
        }
    }

    fn overlay_into(&self, lines: &mut Vec<String>) {
        let (overlay, opens) = (&self.overlay, &self.passthrough);
        let copied = &overlay.copy_ups;
        lines.push(format!(
            "copy-ups     {} files ({:.1} MB), {} of attributes only, {} directories, {} others",
            copied.files,
            copied.bytes as f64 / 1e6,
            copied.attributes,
            copied.directories,
            copied.others
        ));
        lines.push(format!(
            "opens        {} passed through, {} cached, {} repeated; {} backing files in use",
            opens.passed, opens.cached, opens.stale, opens.backing_files
        ));
        lines.push(format!(
            "cache hits   lookups {}, listings {}, directories {}, xattrs {}",
            rate(overlay.lookups),
            rate(overlay.listings),
            rate(overlay.directories),
            rate(overlay.xattrs)
        ));
        lines.push(format!("found ahead  {} of them asked for", rate(overlay.found_ahead)));
        lines.push(format!(
            "held         {} nodes, {} open files, {} directories",
            overlay.live_nodes, overlay.open_files, overlay.directory_descriptors
        ));
    }
}

/// The share of hits, and of how many.
fn rate(figures: CacheFigures) -> String {
    let all = figures.hits + figures.misses;
    if all == 0 {
        return "-".to_owned();
    }
    format!("{:.1}% of {all}", figures.hits as f64 * 100.0 / all as f64)
}

/// Three digits and a unit.
fn duration(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => (nanos as f64, "ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let decimals = match value {
        v if v >= 100.0 || nanos < 1_000 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{unit}")
}
