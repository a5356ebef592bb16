//! Several threads at once: each with a part of the tree of its own, which must be as its own model
//! says, and all in one directory together ([`super::shared`]). Between the rounds the tree is
//! mounted again, and shown by the kernel's overlayfs.

use std::path::Path;
use std::time::Instant;

use super::generate::{self, Breadth};
use super::mountpoint::Tree;
use super::rng::Rng;
use super::run::{Effort, Replay, Run};
use super::shared::{self, Worker};
use crate::support::{
    Attributes, Driver, EntrySpec, LayerSpec, Options, Policy, Scene, SceneSpec, What, assert_same,
};

const THREADS: usize = 4;
/// Operations of each thread between two mounts.
const ROUND: usize = 60;
const ROUNDS: usize = 4;

/// How the tree is mounted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mounting<'a> {
    pub(crate) options: &'a [&'a str],
    /// With these the kernel shows the same tree; `None` where it cannot.
    pub(crate) kernel: Option<&'a [&'a str]>,
}

/// Runs cases until the time is over.
pub(crate) fn cases(effort: Effort, breadth: Breadth, mounting: Mounting<'_>) {
    let start = Instant::now();
    let mut seeds = Rng::new(effort.first_seed);
    let (mut seed, mut count) = (effort.first_seed, 0);
    loop {
        let _replay = Replay { seed, operations: ROUND };
        one_case(seed, effort, breadth, mounting);
        count += 1;
        if effort.replay || start.elapsed() >= effort.time {
            break;
        }
        seed = seeds.next();
    }
    println!("{count} cases of {ROUNDS} rounds of {THREADS} threads of {ROUND} operations");
}

fn one_case(seed: u64, effort: Effort, breadth: Breadth, mounting: Mounting<'_>) {
    let mut rng = Rng::new(seed);
    let parts: Vec<SceneSpec> = (0..THREADS).map(|_| generate::scene(&mut rng, breadth)).collect();
    let scene = Scene::from_spec(&joined(&parts));
    let root = scene.mountpoint.clone();
    let mut threads: Vec<Thread<'_>> = parts
        .iter()
        .enumerate()
        .map(|(number, spec)| Thread {
            tree: Tree::new(&root.join(place(number))),
            run: Run::new(spec, effort),
            worker: Worker::new(number, &root),
            rng: Rng::new(seed ^ number as u64),
        })
        .collect();
    let options = Options::with(mounting.options);
    for _ in 0..ROUNDS {
        {
            let mount = scene.mount_by(Driver::Plyfs, &options);
            look(&root, &mut threads);
            std::thread::scope(|scope| {
                for thread in &mut threads {
                    scope.spawn(|| thread.round(breadth));
                }
            });
            look(&root, &mut threads);
            // Files that are held keep the mount busy.
            threads.iter_mut().for_each(Thread::let_go);
            drop(mount);
        }
        if let Some(kernel) = mounting.kernel {
            shown_by_the_kernel(&scene, &options, &Options::with(kernel));
        }
    }
    let mount = scene.mount_by(Driver::Plyfs, &options);
    look(&root, &mut threads);
    drop(mount);
}

/// The kernel mounts the upper to write to it, and shows what we show; how many names a file of a
/// lower has is each one's own knowledge.
fn shown_by_the_kernel(scene: &Scene, ours: &Options, theirs: &Options) {
    let policy = Policy { nlink: false, hard_links: false, ..Policy::SAME_TREE };
    let shown = scene.mount_by(Driver::Plyfs, ours).snapshot();
    let kernel = scene.mount_by(Driver::Kernel, theirs).snapshot();
    assert_same("PlyFS", &shown, "overlayfs", &kernel, policy);
}

/// One thread's part of the tree.
struct Thread<'a> {
    tree: Tree,
    run: Run<'a>,
    worker: Worker,
    rng: Rng,
}

impl Thread<'_> {
    fn round(&mut self, breadth: Breadth) {
        for _ in 0..ROUND {
            self.run.random_step(&mut self.rng, breadth, &mut self.tree);
            if self.rng.chance(30) {
                self.worker.step(&mut self.rng);
            }
        }
    }

    fn let_go(&mut self) {
        self.run.forget_held(&mut self.tree);
    }
}

fn look(root: &Path, threads: &mut [Thread<'_>]) {
    for thread in threads.iter_mut() {
        thread.run.look(&mut thread.tree);
    }
    let workers: Vec<&Worker> = threads.iter().map(|thread| &thread.worker).collect();
    shared::check(root, &workers);
}

fn place(thread: usize) -> String {
    format!("thread-{thread}")
}

/// One stack of all parts: each layer holds that layer of each part in a directory of its own.
fn joined(parts: &[SceneSpec]) -> SceneSpec {
    let depth = parts.iter().map(|part| part.lowers.len()).max().unwrap_or(0);
    let mut whole = SceneSpec { lowers: vec![LayerSpec::default(); depth], ..SceneSpec::default() };
    for (number, part) in parts.iter().enumerate() {
        move_into(&mut whole.upper, &part.upper, number);
        // A part with fewer layers has the upper ones of them.
        for (layer, lower) in whole.lowers.iter_mut().zip(&part.lowers) {
            move_into(layer, lower, number);
        }
    }
    if let Some(lowest) = whole.lowers.last_mut() {
        lowest.entries.extend(shared::layer(parts.len()).entries);
    }
    whole
}

fn move_into(whole: &mut LayerSpec, part: &LayerSpec, number: usize) {
    let place = place(number);
    let dir = |path: &str| EntrySpec {
        path: path.into(),
        what: What::Dir,
        attributes: Attributes::default(),
    };
    whole.entries.push(dir(&place));
    whole.entries.extend(part.entries.iter().map(|entry| {
        let what = match &entry.what {
            What::HardLink(other) => What::HardLink(Path::new(&place).join(other)),
            other => other.clone(),
        };
        let path = Path::new(&place).join(&entry.path);
        EntrySpec { path, what, attributes: entry.attributes.clone() }
    }));
}
