//! Figures in the text format of Prometheus (exposition format 0.0.4).

use std::fmt::Write;

use super::Snapshot;

/// All `snapshots` as one text; each metric is labelled with the mount that it is of.
pub fn text(snapshots: &[Snapshot]) -> String {
    let mut page = Page { snapshots, text: String::new() };
    page.requests();
    page.of_passthrough();
    page.of_overlay();
    page.of_process();
    page.text
}

struct Page<'a> {
    snapshots: &'a [Snapshot],
    text: String,
}

/// What a metric says of one snapshot: further labels (as ` KEY="VALUE",`) and a value.
type Samples = Vec<(String, f64)>;

impl Page<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A string takes whatever is written to it.
        if self.text.write_fmt(format_args!("{line}\n")).is_err() {
            tracing::debug!("no memory for a line");
        }
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str, of: impl Fn(&Snapshot) -> Samples) {
        self.line(format_args!("# HELP plyfs_{name} {help}"));
        self.line(format_args!("# TYPE plyfs_{name} {kind}"));
        for snapshot in self.snapshots {
            let mount = escaped(&snapshot.mountpoint.to_string_lossy());
            for (labels, value) in of(snapshot) {
                self.line(format_args!("plyfs_{name}{{{labels}mount=\"{mount}\"}} {value}"));
            }
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, of: impl Fn(&Snapshot) -> f64) {
        self.metric(name, kind, help, |snapshot| vec![(String::new(), of(snapshot))]);
    }

    fn requests(&mut self) {
        self.metric("request_errors_total", "counter", "Requests answered with an error.", |s| {
            s.requests.iter().map(|r| (label("kind", &r.kind), r.errors as f64)).collect()
        });
        let name = "request_duration_seconds";
        self.line(format_args!(
            "# HELP plyfs_{name} Time from reading a request until its reply was ready."
        ));
        self.line(format_args!("# TYPE plyfs_{name} histogram"));
        for snapshot in self.snapshots {
            let mount = escaped(&snapshot.mountpoint.to_string_lossy());
            for request in &snapshot.requests {
                let labels = format!("{}mount=\"{mount}\"", label("kind", &request.kind));
                for (end, count) in &request.latency.cumulative {
                    let end = *end as f64 / 1e9;
                    self.line(format_args!("plyfs_{name}_bucket{{{labels},le=\"{end}\"}} {count}"));
                }
                let (count, sum) = (request.count, request.latency.total_ns as f64 / 1e9);
                self.line(format_args!("plyfs_{name}_bucket{{{labels},le=\"+Inf\"}} {count}"));
                self.line(format_args!("plyfs_{name}_sum{{{labels}}} {sum}"));
                self.line(format_args!("plyfs_{name}_count{{{labels}}} {count}"));
            }
        }
        let help = "How often processors were kept awake for a time.";
        self.one("kept_awake_total", "counter", help, |s| s.kept_awake as f64);
        self.one("panics_total", "counter", "Requests that ended in a panic.", |s| s.panics as f64);
    }

    fn of_passthrough(&mut self) {
        self.metric("opens_total", "counter", "Opens by how the file is served.", |s| {
            let p = &s.passthrough;
            let kinds = [("passed", p.passed), ("cached", p.cached), ("stale", p.stale)];
            labelled("served", &kinds)
        });
        self.one("backing_files", "gauge", "Backing files in use.", |s| {
            s.passthrough.backing_files as f64
        });
    }

    fn of_overlay(&mut self) {
        self.metric("copy_ups_total", "counter", "What was brought to the upper.", |s| {
            let c = &s.overlay.copy_ups;
            let kinds = [
                ("file", c.files),
                ("attributes", c.attributes),
                ("directory", c.directories),
                ("other", c.others),
            ];
            labelled("what", &kinds)
        });
        self.one("copy_up_bytes_total", "counter", "Data brought to the upper.", |s| {
            s.overlay.copy_ups.bytes as f64
        });
        let help = "Questions to a cache, by whether it could answer.";
        self.metric("cache_total", "counter", help, |s| {
            let caches = [
                ("lookups", s.overlay.lookups),
                ("listings", s.overlay.listings),
                ("directories", s.overlay.directories),
                ("xattrs", s.overlay.xattrs),
                ("found_ahead", s.overlay.found_ahead),
            ];
            let of = |(name, figures): &(&str, crate::overlay::counters::CacheFigures)| {
                let cache = label("cache", name);
                let results = [("hit", figures.hits), ("miss", figures.misses)];
                results.map(|(result, n)| (format!("{cache}result=\"{result}\","), n as f64))
            };
            caches.iter().flat_map(of).collect()
        });
        self.one("live_nodes", "gauge", "Nodes that the kernel holds.", |s| {
            s.overlay.live_nodes as f64
        });
        self.one("open_files", "gauge", "Files that are open.", |s| s.overlay.open_files as f64);
        self.one("directory_descriptors", "gauge", "Directories kept open.", |s| {
            s.overlay.directory_descriptors as f64
        });
    }

    fn of_process(&mut self) {
        let of = |get: fn(&crate::sys::footprint::Footprint) -> f64| {
            move |s: &Snapshot| s.process.iter().map(|p| (String::new(), get(p))).collect()
        };
        self.one("uptime_seconds", "gauge", "Time since the mount.", |s| s.uptime_seconds);
        self.one("threads", "gauge", "Threads that serve requests.", |s| s.threads as f64);
        self.metric("resident_bytes", "gauge", "Resident memory.", of(|p| p.resident_bytes as f64));
        self.metric("descriptors", "gauge", "Open descriptors.", of(|p| p.descriptors as f64));
        let help = "Processor time.";
        self.metric("cpu_seconds_total", "counter", help, |s| {
            let modes = s
                .process
                .iter()
                .flat_map(|p| [("user", p.user_seconds), ("system", p.system_seconds)]);
            modes.map(|(mode, seconds)| (label("mode", mode), seconds)).collect()
        });
    }
}

fn labelled(key: &str, values: &[(&str, u64)]) -> Samples {
    values.iter().map(|(name, count)| (label(key, name), *count as f64)).collect()
}

fn label(key: &str, value: &str) -> String {
    format!("{key}=\"{}\",", escaped(value))
}

/// A label's value: a backslash before what would end it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
