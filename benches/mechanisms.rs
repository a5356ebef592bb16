//! One mechanism at a time, on layers in a directory and without a mount: lookups, merged
//! listings, copy-up, whiteouts, the difference of layers, archives.
//!
//! `cargo bench --bench mechanisms`. Needs root, as device nodes and trusted xattrs do.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark stops at once where it is wrong"
)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plyfs::archive::{tar_read, tar_write};
use plyfs::overlay::{Caller, NodeId, Options, Overlay, SetAttr, With};
use plyfs::sys::OFlags;

const FILES: usize = 200;

/// A directory with `layers` layers, in each of which `dir` has some of the files.
struct Layers {
    base: tempfile::TempDir,
    layers: usize,
}

impl Layers {
    fn new(layers: usize) -> Layers {
        let base = tempfile::tempdir().unwrap();
        for layer in 0..layers {
            fs::create_dir_all(base.path().join(format!("{layer}/dir"))).unwrap();
        }
        for file in 0..FILES {
            let place = base.path().join(format!("{}/dir/file{file:04}", file % layers));
            fs::write(place, [b'x'; 4096]).unwrap();
        }
        Layers { base, layers }
    }

    fn path(&self) -> &Path {
        self.base.path()
    }

    /// Opened anew with an empty upper: nothing is known of any directory.
    fn open(&self) -> Overlay {
        for name in ["upper", "work"] {
            let dir = self.path().join(name);
            if dir.exists() {
                fs::remove_dir_all(&dir).unwrap();
            }
            fs::create_dir(&dir).unwrap();
        }
        let base = self.path().display();
        let lowers: Vec<String> = (0..self.layers).map(|n| format!("{base}/{n}")).collect();
        let options = OsString::from(format!(
            "lowerdir={},upperdir={base}/upper,workdir={base}/work,volatile",
            lowers.join(":")
        ));
        Overlay::new(&Options::parse([options]).unwrap()).unwrap()
    }
}

fn names() -> Vec<OsString> {
    (0..FILES).map(|file| format!("file{file:04}").into()).collect()
}

fn dir(overlay: &Overlay) -> NodeId {
    overlay.lookup(NodeId::ROOT, OsStr::new("dir")).unwrap().node
}

fn files(overlay: &Overlay) -> Vec<NodeId> {
    let dir = dir(overlay);
    names().iter().map(|name| overlay.lookup(dir, name).unwrap().node).collect()
}

const STACKS: [usize; 3] = [1, 8, 100];

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(FILES as u64));
    for count in STACKS {
        let layers = Layers::new(count);
        group.bench_function(BenchmarkId::new("first", count), |bencher| {
            bencher.iter_batched_ref(
                || layers.open(),
                |overlay| files(overlay),
                BatchSize::PerIteration,
            );
        });
        let overlay = layers.open();
        files(&overlay);
        group.bench_function(BenchmarkId::new("known", count), |bencher| {
            bencher.iter(|| files(&overlay));
        });
    }
}

fn readdir(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("readdir");
    group.throughput(Throughput::Elements(FILES as u64));
    let list = |overlay: &Overlay| {
        let mut seen = 0;
        overlay
            .readdir(dir(overlay), 0, With::Nothing, &mut |_| {
                seen += 1;
                true
            })
            .unwrap();
        assert_eq!(seen, FILES + 2);
    };
    for count in STACKS {
        let layers = Layers::new(count);
        group.bench_function(BenchmarkId::new("merge", count), |bencher| {
            bencher.iter_batched_ref(
                || layers.open(),
                |overlay| list(overlay),
                BatchSize::PerIteration,
            );
        });
        let overlay = layers.open();
        group.bench_function(BenchmarkId::new("known", count), |bencher| {
            bencher.iter(|| list(&overlay));
        });
    }
}

fn change(criterion: &mut Criterion) {
    let layers = Layers::new(8);
    let caller = Caller { uid: 0, gid: 0, pid: 1 };
    let mut group = criterion.benchmark_group("change of 200 lower files");
    group.throughput(Throughput::Elements(FILES as u64));
    let prepare = || {
        let overlay = layers.open();
        let files = files(&overlay);
        (overlay, files)
    };
    group.bench_function("copy-up of 4 KiB", |bencher| {
        bencher.iter_batched_ref(
            prepare,
            |(overlay, files)| {
                for node in files {
                    let opened = overlay.open(*node, OFlags::WRONLY, false).unwrap();
                    overlay.release(opened.handle);
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("chmod", |bencher| {
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        bencher.iter_batched_ref(
            prepare,
            |(overlay, files)| {
                for node in files {
                    overlay.setattr(&caller, *node, None, &set).unwrap();
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("whiteout", |bencher| {
        bencher.iter_batched_ref(
            prepare,
            |(overlay, _)| {
                let dir = dir(overlay);
                for name in names() {
                    overlay.unlink(dir, &name).unwrap();
                }
            },
            BatchSize::PerIteration,
        );
    });
}

/// The layer of 200 files as an archive, and the archive as a directory again.
fn tar(criterion: &mut Criterion) {
    let layers = Layers::new(1);
    let mut archive = Vec::new();
    tar_write::export(&[layers.path().join("0")], None, &mut archive).unwrap();
    let mut group = criterion.benchmark_group("tar of 200 files");
    group.throughput(Throughput::Bytes((FILES * 4096) as u64));
    group.bench_function("create", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::with_capacity(archive.len());
            tar_write::export(&[layers.path().join("0")], None, &mut out).unwrap();
            out.len()
        });
    });
    group.bench_function("apply", |bencher| {
        bencher.iter_batched_ref(
            || tempfile::tempdir().unwrap(),
            |dir| tar_read::apply_layer(&mut &archive[..], dir.path(), "archive").unwrap(),
            BatchSize::PerIteration,
        );
    });
}

fn diff(criterion: &mut Criterion) {
    let layers = Layers::new(8);
    let overlay = layers.open();
    let dir = dir(&overlay);
    for name in names().iter().step_by(2) {
        overlay.unlink(dir, name).unwrap();
    }
    overlay.shutdown();
    drop(overlay);
    let lowers: Vec<_> = (0..8).map(|n| layers.path().join(n.to_string())).collect();
    criterion.bench_function("diff of 100 whiteouts", |bencher| {
        bencher
            .iter(|| plyfs::changeset::diff(&lowers, &layers.path().join("upper")).unwrap().len());
    });
}

criterion_group!(mechanisms, lookup, readdir, change, diff, tar);
criterion_main!(mechanisms);
