//! The workloads, and the bars.

use crate::options::Options;

/// What a workload finds mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The ordinary stack as the workload before left it.
    Mounted,
    /// The ordinary stack just mounted, with no name or inode in the kernel's memory.
    Cold,
    /// A stack of so many layers, mounted for the first time, and as cold.
    ColdLayers(u32),
    /// One large lower file that nobody changed yet.
    Big,
    /// Nothing: the mount of so many layers is what is measured.
    Mount(u32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) id: &'static str,
    pub(crate) group: &'static str,
    /// What it does, in words.
    pub(crate) title: &'static str,
    pub(crate) setting: Setting,
    /// Not in the quick mode.
    pub(crate) full_only: bool,
    /// Also bound to one CPU, where that was asked for.
    pub(crate) pinned: bool,
}

const fn hot(id: &'static str, group: &'static str, title: &'static str) -> Workload {
    let setting = Setting::Mounted;
    Workload { id, group, title, setting, full_only: false, pinned: true }
}

const fn cold(id: &'static str, group: &'static str, title: &'static str) -> Workload {
    Workload { setting: Setting::Cold, ..hot(id, group, title) }
}

/// Bound by a disk or by several processors: pinning says nothing.
const fn unpinned(workload: Workload) -> Workload {
    Workload { pinned: false, ..workload }
}

/// Only in the full mode, beside the bars.
const fn extra(workload: Workload) -> Workload {
    Workload { full_only: true, pinned: false, ..workload }
}

const fn layers(id: &'static str, title: &'static str, layers: u32) -> Workload {
    let setting = Setting::ColdLayers(layers);
    Workload { setting, pinned: false, ..hot(id, "layers", title) }
}

const fn mount(id: &'static str, title: &'static str, layers: u32) -> Workload {
    let setting = Setting::Mount(layers);
    Workload { setting, pinned: false, ..hot(id, "layers", title) }
}

const fn big(id: &'static str, title: &'static str) -> Workload {
    Workload { setting: Setting::Big, pinned: false, ..hot(id, "copy-up", title) }
}

pub(crate) const WORKLOADS: &[Workload] = &[
    hot("stat-hot", "names", "stat of known files"),
    hot("negative-hot", "names", "stat of names that are not there"),
    hot("getxattr-hot", "names", "getxattr of an xattr that is not set"),
    hot("readdir-hot", "names", "listing directories"),
    hot("walk-hot", "names", "walk of a tree with stat of each entry"),
    hot("du-hot", "names", "du -s"),
    hot("open-read-hot", "names", "open, read 4 KiB, close"),
    cold("stat-cold", "names", "stat, first time"),
    cold("negative-cold", "names", "stat of missing names, first time"),
    cold("readdir-cold", "names", "listing directories, first time"),
    cold("walk-cold", "names", "walk with stat, first time"),
    extra(cold("walk-btime-cold", "names", "walk that asks for creation times, first time")),
    cold("open-read-cold", "names", "open, read, close, first time"),
    layers("stat-cold-1", "1 layer: stat, first time", 1),
    layers("stat-cold-100", "100 layers: stat, first time", 100),
    layers("walk-cold-100", "100 layers: walk, first time", 100),
    extra(layers("stat-cold-500", "500 layers: stat, first time", 500)),
    extra(layers("walk-cold-500", "500 layers: walk, first time", 500)),
    extra(mount("mount-1", "mount of 1 layer", 1)),
    mount("mount-8", "mount of 8 layers", 8),
    mount("mount-100", "mount of 100 layers", 100),
    extra(mount("mount-500", "mount of 500 layers", 500)),
    hot("create-4k", "changes", "create a file, write 4 KiB, close"),
    hot("symlink", "changes", "symlink"),
    hot("mkdir", "changes", "mkdir"),
    hot("rename", "changes", "rename of a file"),
    hot("link", "changes", "hard link"),
    hot("unlink", "changes", "unlink"),
    extra(hot("chmod-upper", "changes", "chmod of an upper file")),
    hot("unlink-lower", "copy-up", "unlink of lower files"),
    hot("rm-rf-lower", "copy-up", "rm -rf of a lower tree"),
    hot("mv-lower-dirs", "copy-up", "mv of lower directories"),
    hot("append-small", "copy-up", "append to lower files of 4 KiB"),
    hot("chmod-small", "copy-up", "chmod of lower files of 4 KiB"),
    big("append-large", "append to a large lower file (128 MiB or 1 GiB)"),
    big("chmod-large", "chmod of a large lower file (128 MiB or 1 GiB)"),
    hot("seq-read-hot", "data", "sequential read"),
    hot("rand-read-hot", "data", "random 4 KiB reads"),
    hot("mmap-hot", "data", "mapping and touching each page"),
    unpinned(hot("seq-write-fsync", "data", "sequential write, fsync")),
    hot("rand-write", "data", "random 4 KiB writes"),
    unpinned(hot("append-fsync", "data", "append and fdatasync")),
    extra(hot("mmap-write", "data", "writing to a mapping, fsync")),
    unpinned(hot("sqlite-rollback", "programs", "sqlite, rollback journal")),
    unpinned(hot("sqlite-wal", "programs", "sqlite, WAL")),
    hot("untar", "programs", "tar -x of small files"),
    hot("cp-a", "programs", "cp -a of a lower tree"),
    hot("tar-hot", "programs", "tar -c of the tree"),
    hot("grep-hot", "programs", "grep -r"),
    hot("git-status-hot", "programs", "git status"),
    hot("git-checkout", "programs", "git checkout of another branch"),
    hot("process-start-hot", "programs", "start of a program in a chroot"),
    unpinned(hot("dpkg-i", "programs", "dpkg -i")),
    extra(hot("compile", "programs", "compiling a small program")),
    extra(hot("two-open-read-hot", "two clients", "two clients: open, read, close")),
    extra(cold("two-stat-cold", "two clients", "two clients: stat, first time")),
    extra(hot("two-create-4k", "two clients", "two clients: create, write, close")),
];

/// The most that a workload may cost, relative to the kernel's overlayfs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) workload: &'static str,
    pub(crate) at_most: f64,
}

const fn bar(workload: &'static str, at_most: f64) -> Bar {
    Bar { workload, at_most }
}

pub(crate) const BARS: &[Bar] = &[
    bar("stat-hot", 0.6),
    bar("negative-hot", 1.0),
    bar("walk-hot", 0.7),
    bar("du-hot", 1.0),
    bar("stat-cold", 1.2),
    bar("walk-cold", 1.0),
    bar("open-read-cold", 1.2),
    bar("stat-cold-100", 0.5),
    bar("walk-cold-100", 0.5),
    bar("mount-8", 3.0),
    bar("mount-100", 0.5),
    bar("open-read-hot", 4.0),
    bar("getxattr-hot", 4.0),
    bar("create-4k", 2.5),
    bar("symlink", 4.0),
    bar("mkdir", 3.0),
    bar("rename", 4.0),
    bar("link", 5.0),
    bar("unlink", 6.0),
    bar("unlink-lower", 5.0),
    bar("rm-rf-lower", 3.0),
    bar("mv-lower-dirs", 0.3),
    bar("append-small", 0.9),
    bar("chmod-small", 0.4),
    bar("append-large", 1.0),
    bar("chmod-large", 0.02),
    bar("seq-read-hot", 1.05),
    bar("rand-read-hot", 1.0),
    bar("mmap-hot", 0.4),
    bar("seq-write-fsync", 1.05),
    bar("rand-write", 1.1),
    bar("append-fsync", 1.3),
    bar("sqlite-rollback", 1.3),
    bar("sqlite-wal", 1.3),
    bar("untar", 4.0),
    bar("cp-a", 4.0),
    bar("tar-hot", 2.0),
    bar("grep-hot", 2.5),
    bar("git-status-hot", 1.5),
    bar("git-checkout", 2.5),
    bar("process-start-hot", 1.2),
    bar("dpkg-i", 1.3),
];

/// The bar of the geometric mean of all workloads that have one.
pub(crate) const MEAN_BAR: f64 = 1.1;

/// What is to be done.
pub(crate) fn chosen(options: &Options) -> Vec<Workload> {
    let wanted = |workload: &&Workload| options.wants(workload.id);
    let here =
        |workload: &&Workload| !options.quick || !workload.full_only || !options.only.is_empty();
    WORKLOADS.iter().filter(wanted).filter(here).copied().collect()
}

pub(crate) fn bar_of(id: &str) -> Option<f64> {
    BARS.iter().find(|bar| bar.workload == id).map(|bar| bar.at_most)
}

pub(crate) fn print() {
    for workload in WORKLOADS {
        let when = if workload.full_only { "full" } else { "" };
        let bar = bar_of(workload.id).map_or(String::new(), |bar| format!("at most {bar}"));
        println!(
            "{:<18} {:<12} {when:<5} {bar:<13} {}",
            workload.id, workload.group, workload.title
        );
    }
}
