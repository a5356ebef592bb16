//! What was measured, on what.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::shell::call;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) commit: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_mb: u64,
    pub(crate) filesystem: String,
    /// Load of the last minute before the run: other work on the machine makes numbers worse.
    pub(crate) load: String,
    /// Of the kernel's overlayfs, whose defaults differ between distributions.
    pub(crate) overlay_parameters: String,
}

impl Machine {
    pub(crate) fn look(options: &Options) -> Machine {
        let said = |program: &str, arguments: &[&str]| {
            call(program, arguments).map_or_else(|_| "unknown".to_owned(), |s| s.trim().to_owned())
        };
        let root = env!("CARGO_MANIFEST_DIR");
        let mut commit = said("git", &["-C", root, "rev-parse", "--short=12", "HEAD"]);
        if !said("git", &["-C", root, "status", "--porcelain", "--untracked-files=no"]).is_empty() {
            commit.push_str(" with changes");
        }
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split(':').nth(1).unwrap_or_default().trim().to_owned()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let parent = options.dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        let on = parent.display().to_string();
        let filesystem = match options.tmpfs {
            true => "tmpfs".to_owned(),
            false => said("findmnt", &["--noheadings", "--output", "FSTYPE", "--target", &on]),
        };
        let parameters = ["redirect_dir", "index", "metacopy", "xino_auto"].map(|name| {
            format!("{name}={}", read(&format!("/sys/module/overlay/parameters/{name}")).trim())
        });
        Machine {
            date: said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
            command: options.command.trim().to_owned(),
            commit,
            kernel: said("uname", &["-sr"]),
            processor: value(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mb: memory.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
                / 1024,
            filesystem,
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            overlay_parameters: parameters.join(" "),
        }
    }
}

/// Whether anything is mounted below `dir`.
pub(crate) fn has_mounts_below(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|path| {
        let path = Path::new(path);
        path.starts_with(dir) && path != dir
    })
}
