//! The daemon is killed at random moments of a load: what had returned is there, the dead mount can
//! be taken off, and the next mount is clean.
//!
//! `PLYFS_KILLS` says how often (20); `scripts/kill` goes on for longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod model;
mod support;
mod workload;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::Subject;
use model::core::Core;
use support::{Driver, Options, Scene, names, require};
use workload::{Chance, Load, Promise, States};

const STORIES: usize = 84;
const THREADS: usize = 4;

#[test]
fn nothing_that_returned_is_lost_when_the_daemon_is_killed() {
    if !(require("root") && require("fuse") && require("tool:fusermount3")) {
        return;
    }
    let kills = std::env::var("PLYFS_KILLS").map_or(20, |text| text.parse().unwrap());
    let mut chance = Chance::new("kills");
    let (mut steps, mut early, mut states) = (0, 0, None);
    for kill in 0..kills {
        let (returned, cut_off) = one_kill(kill, &mut chance, &mut states);
        steps += returned;
        early += u32::from(cut_off);
    }
    println!("{kills} kills, {early} of them within the load; {steps} steps had begun, none lost");
    assert!(early > 0, "no load was cut off");
}

/// How many steps were begun, and whether the load was cut off.
fn one_kill(kill: u32, chance: &mut Chance, states: &mut Option<States>) -> (usize, bool) {
    let scene = Scene::in_memory("[lower]\n");
    let load = Load::new(&scene.lowers[0], STORIES);
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let stop = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    let clock = AtomicU64::new(0);
    let root = mount.root().to_path_buf();
    let wait = Duration::from_micros(chance.below(100_000));
    let mut cut_off = false;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tick = || clock.fetch_add(1, Ordering::SeqCst) + 1;
            load.run(&root, THREADS, &tick, &stop);
            over.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(wait);
        stop.store(true, Ordering::SeqCst);
        cut_off = !over.load(Ordering::SeqCst);
        mount.kill_daemon();
    });
    mount.take_off_dead();
    // The same for every load.
    let states = states.get_or_insert_with(|| load.states(&scene.lowers[0], &scene.place("plain")));
    let mut core = Core::new(&scene);
    assert_eq!(names(scene.work.join("work")), [""; 0], "the next mount leaves staging as it was");
    let seen = core.snapshot();
    let read = |path: &std::path::Path| core.read(path);
    let findings = load.check(states, &seen, &read, u64::MAX, Promise::Returned);
    let mut faults = findings.lost;
    faults.extend(findings.half_renamed);
    assert!(faults.is_empty(), "kill {kill} after {wait:?}:\n  {}", faults.join("\n  "));
    core.close();
    // And the daemon itself can go on with it.
    mount.remount();
    std::fs::write(mount.path("after"), "x").unwrap();
    mount.unmount();
    assert!(!scene.work.join("work").exists());
    (load.counts(u64::MAX).0, cut_off)
}
