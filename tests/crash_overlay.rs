//! Every mutating verb of the merged filesystem, stopped at and failing in each of its steps: the
//! state is the one before or the one after, in the live mount and after the next, and nothing is
//! left behind. `docs/CRASH-SAFETY.md` says what each step leaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod crash;
mod model;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crash::verbs::{CASES, Case};
use model::Subject;
use model::core::Core;
use plyfs::error::{Errno, FsResult};
use plyfs::overlay::Overlay;
use plyfs::overlay::options::UpperOption;
use plyfs::sys::fault::{self, Action};
use support::{Policy, Scene, Snapshot, differences, require};

/// A state in which nobody changed anything. A copy-up sets its directory's times back as its last
/// step.
const UNCHANGED: Policy = Policy { dir_mtime: false, ..Policy::SAME_TREE };
/// The same where nobody was left to undo what had begun: data that comes into a file whose
/// attributes are in the upper already changes its time at once.
const TOUCHED: Policy = Policy { mtime: false, ..UNCHANGED };
/// The same in a mount that cannot remove from its workdir any more: what is linked there counts.
const UNABLE: Policy = Policy { nlink: false, ..TOUCHED };
/// Two runs of one verb.
const SAME_CHANGE: Policy = Policy::SAME_CONTENT;

/// The states that a case may show.
struct States {
    before: Snapshot,
    after: Snapshot,
    /// The lowers, in whichever state.
    lowers: Vec<Snapshot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Before,
    After,
}

impl States {
    fn of(case: &Case) -> States {
        let scene = crash::scene();
        let lowers = scene.lowers.iter().map(|lower| Snapshot::of(lower)).collect();
        let mut core = core(&scene);
        (case.before)(core.fs()).unwrap();
        core.reopen();
        let before = core.snapshot();
        (case.act)(core.fs()).unwrap_or_else(|errno| panic!("{}: {errno}", case.name));
        core.reopen();
        let after = core.snapshot();
        States { before, after, lowers }
    }

    /// Which of the two states `seen` is; "after" where they do not differ and `done`.
    fn classify(&self, seen: &Snapshot, done: bool, what: &str) -> Seen {
        self.classify_by(seen, done, what, UNCHANGED)
    }

    fn classify_by(&self, seen: &Snapshot, done: bool, what: &str, unchanged: Policy) -> Seen {
        let from_before = differences("before", &self.before, "seen", seen, unchanged);
        let from_after = differences("after", &self.after, "seen", seen, SAME_CHANGE);
        match (from_before.is_empty(), from_after.is_empty()) {
            (true, true) if done => Seen::After,
            (true, _) => Seen::Before,
            (_, true) => Seen::After,
            _ => panic!(
                "{what}: a third state\n  {}\n  {}",
                from_before.join("\n  "),
                from_after.join("\n  ")
            ),
        }
    }
}

fn core(scene: &Scene) -> Core<'_> {
    Core::with_metacopy(scene, crash::METACOPY)
}

/// One scene, prepared for a case.
struct Stage {
    scene: Scene,
}

impl Stage {
    fn new(case: &Case) -> Stage {
        let scene = crash::scene();
        let mut core = core(&scene);
        (case.before)(core.fs()).unwrap();
        core.reopen();
        drop(core);
        Stage { scene }
    }

    /// Holds that the next mount shows one of the two states, and that neither the workdir nor
    /// the lowers have anything that they should not.
    fn next_mount(&self, states: &States, done: bool, what: &str) -> Seen {
        self.next_mount_by(states, done, what, UNCHANGED)
    }

    /// As [`Stage::next_mount`], after the end of a process that could not undo what it had begun.
    fn after_crash(&self, case: &Case, states: &States, done: bool, what: &str) {
        let unchanged = if case.comes_later() { TOUCHED } else { UNCHANGED };
        self.next_mount_by(states, done, what, unchanged);
    }

    fn next_mount_by(&self, states: &States, done: bool, what: &str, unchanged: Policy) -> Seen {
        let mut core = core(&self.scene);
        assert_eq!(staged(&self.scene), [""; 0], "{what}: the next mount leaves staging as it was");
        let snapshot = core.snapshot();
        let seen = states.classify_by(&snapshot, done, what, unchanged);
        remove_files(core.fs(), &snapshot);
        core.reopen();
        assert_eq!(index(&self.scene), [""; 0], "{what}: entries of removed files stay");
        for (lower, before) in self.scene.lowers.iter().zip(&states.lowers) {
            let policy = Policy::SAME_TREE;
            support::assert_same("before", before, "after", &Snapshot::of(lower), policy);
        }
        seen
    }
}

fn list(dir: &Path) -> Vec<String> {
    if dir.exists() { support::names(dir) } else { Vec::new() }
}

fn staged(scene: &Scene) -> Vec<String> {
    list(&scene.work.join("work"))
}

fn index(scene: &Scene) -> Vec<String> {
    list(&scene.work.join("index"))
}

/// Removes all files: then the index has no entry any more, unless a count is wrong.
fn remove_files(fs: &Overlay, seen: &Snapshot) {
    for (path, entry) in &seen.entries {
        if entry.kind != support::Kind::Dir {
            let mut dir = plyfs::overlay::NodeId::ROOT;
            for part in path.parent().unwrap() {
                dir = fs.lookup(dir, part).unwrap().node;
            }
            fs.unlink(dir, path.file_name().unwrap()).unwrap();
        }
    }
}

/// Runs the case with the seam armed; whether the step was reached, and the answer.
fn armed(case: &Case, fs: &Overlay, step: u32, action: Action) -> (bool, FsResult<()>) {
    fault::arm(step, action);
    let answer = (case.act)(fs);
    (fault::disarm() > u64::from(step), answer)
}

/// One call fails, the caller gets its errno, and the live mount goes on in one of the two states.
fn fails_once(case: &Case, states: &States, step: u32) -> bool {
    let what = format!("{}, step {step} fails", case.name);
    let stage = Stage::new(case);
    let mut core = core(&stage.scene);
    let (reached, answer) = armed(case, core.fs(), step, Action::Fail(Errno::IO));
    if let Err(errno) = answer {
        assert_eq!(errno, Errno::IO, "{what}");
    }
    let live = core.snapshot();
    let seen = states.classify(&live, answer.is_ok(), &what);
    if answer.is_ok() {
        assert_eq!(seen, Seen::After, "{what}: answered as done");
    }
    let left = staged(&stage.scene);
    // The whiteout that others are linked to, and what could not be discarded after all was done.
    assert!(left.len() <= 1 + usize::from(answer.is_ok()), "{what}: left in staging: {left:?}");
    core.close();
    assert_eq!(staged(&stage.scene), [""; 0], "{what}: left in the workdir");
    let after = stage.next_mount(states, answer.is_ok(), &what);
    assert!(seen == after || states.before == states.after, "{what}: {seen:?}, then {after:?}");
    reached
}

/// After a failure the caller tries again, as a user would.
fn tried_again(case: &Case, states: &States, step: u32) -> bool {
    let what = format!("{}, tried again after a failure of step {step}", case.name);
    let stage = Stage::new(case);
    let mut core = core(&stage.scene);
    let (reached, answer) = armed(case, core.fs(), step, Action::Fail(Errno::NOSPC));
    let seen = states.classify(&core.snapshot(), answer.is_ok(), &what);
    if answer.is_err() && seen == Seen::Before {
        (case.act)(core.fs()).unwrap_or_else(|errno| panic!("{what}: {errno}"));
        assert_eq!(states.classify(&core.snapshot(), true, &what), Seen::After, "{what}");
    }
    core.close();
    stage.next_mount(states, true, &what);
    reached
}

/// From one call on all fail, as on a filesystem that went read-only; the live mount still shows
/// one of the two states, and so does the next.
fn fails_from(case: &Case, states: &States, step: u32) -> bool {
    let what = format!("{}, all fails from step {step}", case.name);
    let stage = Stage::new(case);
    let mut core = core(&stage.scene);
    fault::arm(step, Action::FailFrom(Errno::ROFS));
    let answer = (case.act)(core.fs());
    let unchanged = if case.comes_later() { UNABLE } else { Policy { mtime: true, ..UNABLE } };
    states.classify_by(&core.snapshot(), answer.is_ok(), &what, unchanged);
    core.abandon();
    let reached = fault::disarm() > u64::from(step);
    stage.after_crash(case, states, answer.is_ok(), &what);
    reached
}

/// The process ends at the step.
fn stops(case: &Case, states: &States, step: u32) -> bool {
    let what = format!("{}, stopped at step {step}", case.name);
    let stage = Stage::new(case);
    let code = stop(&stage.scene, case, step);
    assert!(matches!(code, None | Some(0)), "{what}: {code:?}");
    stage.after_crash(case, states, code == Some(0), &what);
    code.is_none()
}

fn stop(scene: &Scene, case: &Case, step: u32) -> Option<i32> {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stopped_at_a_step", "--ignored", "--quiet"])
        .env("PLYFS_CRASH_LOWERS", scene.lowerdir())
        .env("PLYFS_CRASH_UPPER", &scene.upper)
        .env("PLYFS_CRASH_WORK", &scene.work)
        .env("PLYFS_CRASH_CASE", case.name)
        .env("PLYFS_CRASH_STEP", step.to_string())
        .output()
        .unwrap()
        .status
        .code()
}

/// Runs in a process of its own, because the step that stops it stops the process.
#[test]
#[ignore = "a part of the tests below, which start it"]
fn stopped_at_a_step() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let lowers = variable("PLYFS_CRASH_LOWERS").split(':').map(PathBuf::from).collect();
    let upper = UpperOption {
        upperdir: variable("PLYFS_CRASH_UPPER").into(),
        workdir: variable("PLYFS_CRASH_WORK").into(),
    };
    let name = variable("PLYFS_CRASH_CASE");
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    let fs = Overlay::new(&crash::options(lowers, upper)).unwrap();
    fault::arm(variable("PLYFS_CRASH_STEP").parse().unwrap(), Action::Stop);
    let answer = (case.act)(&fs);
    fault::disarm();
    assert_eq!(answer, Ok(()));
    std::process::exit(0);
}

/// Calls `each` with every step of every case of this process's part, until it says that the case
/// has no more; all that is not as it should be is told at the end. `PLYFS_CRASH_ONLY` names a part
/// of the cases' names.
fn walk(each: impl Fn(&Case, &States, u32) -> bool, part: usize) {
    rustix::process::umask(rustix::fs::Mode::empty());
    let only = std::env::var("PLYFS_CRASH_ONLY").unwrap_or_default();
    let (mut faults, mut steps, mut cases) = (Vec::new(), 0, 0);
    let mine = CASES.iter().skip(part).step_by(PARTS);
    for case in mine.filter(|case| case.name.contains(&only)) {
        let states = States::of(case);
        cases += 1;
        for step in 0.. {
            let walked = catch_unwind(AssertUnwindSafe(|| each(case, &states, step)));
            fault::disarm();
            match walked {
                Ok(true) => steps += 1,
                Ok(false) => {
                    assert!(step > 0, "{}: nothing passed the seam", case.name);
                    break;
                }
                Err(panic) => faults.push(message(&*panic)),
            }
        }
    }
    println!("{steps} steps of {cases} cases");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Processes among which the cases are shared out: the seam is a process's, and most of the time
/// goes by waiting for the kernel to take the layers' clones off.
const PARTS: usize = 5;

/// Walks all cases in the way that is named.
fn walk_all(way: &str) {
    if !require("root") {
        return;
    }
    let start = |part: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_part_of_the_walk", "--ignored", "--nocapture"])
            .env("PLYFS_CRASH_WAY", way)
            .env("PLYFS_CRASH_PART", part.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let parts: Vec<_> = (0..PARTS).map(start).collect();
    let ended: Vec<_> = parts.into_iter().map(|part| part.wait_with_output().unwrap()).collect();
    for output in &ended {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        println!("{}", said.lines().filter(|line| line.contains(" steps of ")).collect::<String>());
    }
}

#[test]
#[ignore = "a part of the tests below, which start it"]
fn a_part_of_the_walk() {
    let part = std::env::var("PLYFS_CRASH_PART").unwrap().parse().unwrap();
    match std::env::var("PLYFS_CRASH_WAY").unwrap().as_str() {
        "fails once" => walk(fails_once, part),
        "tried again" => walk(tried_again, part),
        "fails from" => walk(fails_from, part),
        "stops" => walk(stops, part),
        way => panic!("no such way: {way}"),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[test]
fn a_failing_step_leaves_the_old_state_or_the_new() {
    walk_all("fails once");
}

#[test]
fn what_failed_can_be_tried_again() {
    walk_all("tried again");
}

#[test]
fn a_filesystem_that_fails_for_good_shows_the_old_state_or_the_new() {
    walk_all("fails from");
}

#[test]
fn a_stopped_process_leaves_the_old_state_or_the_new() {
    walk_all("stops");
}
