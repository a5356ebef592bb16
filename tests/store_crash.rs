//! Every verb that changes the store, stopped at or failing in each of its steps: the next
//! command sees the state before or the state after, `check` finds nothing but what the next
//! change sweeps, and the next change sweeps it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops")]

mod images;
mod registries;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use images::{Scratch, docker_files, image};
use plyfs::archive::compress::Compression;
use plyfs::archive::tar_read;
use plyfs::archive::watch::Unwatched;
use plyfs::error::Errno;
use plyfs::image::{Digest, Platform, Reference, Remote};
use plyfs::registry::{Access, pull, push};
use plyfs::store::{CommitOptions, CopyEnd, CopyOptions, Repair, Source, Store};
use plyfs::sys::fault::{self, Action};
use registries::Registry;

const BASE: images::Files<'_> = &[("base", "shared"), ("dir/file", "x")];

/// What people see of a store: images with names and digests, containers by name with what was
/// written in them.
type View = (BTreeSet<String>, BTreeSet<String>);

fn view(store: &Store) -> View {
    let images = store.images().unwrap().into_iter();
    let images =
        images.map(|image| format!("{} {:?} {:?}", image.id, image.references, image.digests));
    let containers = store.containers().unwrap().into_iter().map(|container| {
        let written = support::Snapshot::of(&store.upper(&container));
        let paths: Vec<_> = written.entries.keys().map(|path| path.display().to_string()).collect();
        format!("{} {paths:?}", container.name)
    });
    (images.collect(), containers.collect())
}

/// A store with two images that share a layer, and a container of one of them.
fn prepared() -> Scratch {
    let scratch = Scratch::new();
    scratch.load_image(&image("old", &[BASE, &[("old", "1")]]));
    scratch.load_image(&image("spare", &[BASE, &[("spare", "2")]]));
    let container = scratch.store.create("old", Some("box")).unwrap();
    std::fs::write(scratch.store.upper(&container).join("written"), "x").unwrap();
    std::fs::write(archive(&scratch), images::archive(&docker_files(&[newer()]))).unwrap();
    scratch
}

/// What comes under the name of an image that is there.
fn newer() -> images::Image {
    image("spare", &[BASE, &[("new", "3")]])
}

/// As [`prepared`], and things lie there that nothing leads to.
fn littered() -> Scratch {
    let scratch = prepared();
    let root = scratch.store.root();
    for dir in ["layers", "images", "staging"] {
        let dir = root.join(dir).join("0".repeat(64));
        std::fs::create_dir_all(dir.join("diff/deep")).unwrap();
        std::fs::write(dir.join("diff/deep/file"), "x").unwrap();
    }
    for dir in ["blobs/sha256", "downloads"] {
        std::fs::write(root.join(dir).join("0".repeat(64)), "x").unwrap();
    }
    scratch
}

/// As [`littered`], and the archive of a layer of an image is lost.
fn broken() -> Scratch {
    let scratch = littered();
    let spare = scratch.store.inspect_image("spare").unwrap().image;
    let record = scratch.store.root().join("layers").join(spare.layers[1].0.hex());
    let record = std::fs::read(record.join("layer.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let digest = record["blob"]["digest"].as_str().unwrap().replace("sha256:", "");
    std::fs::remove_file(scratch.store.root().join("blobs/sha256").join(digest)).unwrap();
    scratch
}

fn archive(scratch: &Scratch) -> PathBuf {
    scratch.dir.path().join("new.tar")
}

fn committed() -> CommitOptions {
    let reference = Some(Reference::parse("spare").unwrap());
    // Said, because the default names the file that is imported, which differs from run to run.
    let message = Some("made".to_owned());
    CommitOptions { reference, message, timestamp: Some(0), ..CommitOptions::default() }
}

/// The name in a registry that pull and push are told of.
fn remote(archive: &Path) -> Remote {
    Remote::parse(&std::fs::read_to_string(archive.with_file_name("remote")).unwrap()).unwrap()
}

fn run(verb: &str, store: &Store, archive: &Path) -> plyfs::error::Result<()> {
    let access = Access::default();
    match verb {
        "load" => store.load(Source::Path(archive)).map(drop),
        "load a stream" => {
            let file = std::fs::File::open(archive).unwrap();
            let (reader, mut writer) = std::io::pipe().unwrap();
            std::thread::spawn(move || std::io::copy(&mut &file, &mut writer));
            let stream = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
            store.load(Source::Stream(stream)).map(drop)
        }
        "create" => store.create("spare", Some("made")).map(drop),
        "commit" => store.commit("box", &committed()).map(drop),
        "squash" => store.commit("box", &CommitOptions { squash: true, ..committed() }).map(drop),
        "import" => {
            let tree = archive.with_file_name("tree.tar");
            std::fs::write(&tree, images::layer(BASE)).unwrap();
            store.import(Source::Path(&tree), &committed()).map(drop)
        }
        "tag" => store.tag("old", committed().reference.unwrap()).map(drop),
        "rename" => store.rename("box", "renamed").map(drop),
        "prune" => store.prune_images(true).map(drop),
        "prune containers" => store.prune_containers().map(drop),
        "rm" => store.remove_container("box", false).map(drop),
        "rmi" => store.remove_image("spare", false).map(drop),
        "gc" => store.collect_garbage().map(drop),
        "check --repair" => store.repair().map(drop),
        "pull" => pull(store, &remote(archive), &Platform::host(), &access, &Unwatched).map(drop),
        "push" => {
            let image = store.outgoing("old").unwrap();
            let Remote::Tag(to) = remote(archive) else { panic!("a digest") };
            push(store, &image, &to, Compression::Gzip, &access, &Unwatched).map(drop)
        }
        "apply" => {
            let layer = images::layer(&[("dir/new", "n"), ("dir/.wh.file", ""), ("base", "other")]);
            let tree = archive.with_file_name("tree");
            tar_read::apply_layer(&mut layer.as_slice(), &tree, "layer").map(drop)
        }
        "cp" => {
            let here = archive.with_file_name("here");
            std::fs::create_dir_all(&here).unwrap();
            std::fs::write(here.join("copied"), "copied").unwrap();
            let (from, to) = (CopyEnd::Here(&here), CopyEnd::There(Path::new("/dir")));
            let daemon = Path::new(env!("CARGO_BIN_EXE_fuse-plyfs"));
            let (input, output) = (&mut std::io::empty(), &mut std::io::sink());
            store.copy("box", (&from, &to), CopyOptions::default(), (input, output), daemon)
        }
        _ => panic!("no such verb: {verb}"),
    }
}

/// Runs in a process of its own, because the step that stops it stops the process.
#[test]
#[ignore = "a part of the tests below, which start it"]
fn stopped_at_a_step() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let store = Store::open(Path::new(&variable("PLYFS_CRASH_ROOT"))).unwrap();
    let step = variable("PLYFS_CRASH_STEP").parse().unwrap();
    let action = match variable("PLYFS_CRASH_ACTION").as_str() {
        "stop" => Action::Stop,
        _ => Action::Fail(Errno::NOSPC),
    };
    let archive = variable("PLYFS_CRASH_ARCHIVE");
    fault::arm(step, action);
    let outcome = run(&variable("PLYFS_CRASH_VERB"), &store, Path::new(&archive));
    let taken = fault::disarm();
    // 3 tells that the step was not reached: the verb has no more of them.
    let code = if taken <= u64::from(step) { 3 } else { i32::from(outcome.is_err()) };
    std::process::exit(code);
}

fn stop(scratch: &Scratch, verb: &str, step: u32, action: &str) -> Option<i32> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stopped_at_a_step", "--ignored", "--quiet"])
        .env("PLYFS_CRASH_ROOT", scratch.store.root())
        .env("PLYFS_CRASH_ARCHIVE", archive(scratch))
        .env("PLYFS_CRASH_VERB", verb)
        .env("PLYFS_CRASH_STEP", step.to_string())
        .env("PLYFS_CRASH_ACTION", action)
        .output()
        .unwrap();
    output.status.code()
}

/// Holds that nothing is wrong but what the next change sweeps.
fn assert_only_litter(store: &Store, what: &str) {
    for problem in store.check().unwrap() {
        assert_eq!(problem.repair, Repair::Sweep, "{what}: {problem:?}");
    }
}

/// Holds that after a change of the store nothing is left that no image or container uses.
fn assert_swept(scratch: &Scratch, what: &str) {
    let store = Store::open(scratch.store.root()).unwrap();
    store.create("old", Some("sweeper")).unwrap();
    let problems = store.check().unwrap();
    assert!(problems.is_empty(), "{what}: {problems:?}");
    let images = store.images().unwrap();
    let hex = |digest: Digest| digest.hex();
    let layers: BTreeSet<_> =
        images.iter().flat_map(|image| &image.layers).map(|chain| hex(chain.0)).collect();
    assert_eq!(scratch.list("layers"), layers.into_iter().collect::<Vec<_>>());
    let ids: BTreeSet<_> = images.iter().map(|image| hex(image.id.0)).collect();
    assert_eq!(scratch.list("images"), ids.into_iter().collect::<Vec<_>>());
    assert!(scratch.list("staging").is_empty());
    let verified = store.verify(&[], &Unwatched).unwrap();
    assert!(verified.damage.is_empty(), "{what}: {:?}", verified.damage);
}

/// A verb, and the store that it is tried on.
struct Case<'a> {
    verb: &'static str,
    prepare: Box<dyn Fn() -> Scratch + 'a>,
    /// Whether people see that it was done.
    shows: bool,
}

impl<'a> Case<'a> {
    fn of(verb: &'static str) -> Case<'a> {
        Case { verb, prepare: Box::new(prepared), shows: true }
    }

    fn at_every_step(&self, action: &str) {
        let done = (self.prepare)();
        let before = view(&done.store);
        run(self.verb, &done.store, &archive(&done)).unwrap();
        let after = view(&done.store);
        assert_eq!(before != after, self.shows, "{}", self.verb);
        let (mut seen_before, mut seen_after) = (0, 0);
        for step in 0.. {
            let scratch = (self.prepare)();
            let code = stop(&scratch, self.verb, step, action);
            let store = Store::open(scratch.store.root()).unwrap();
            let what = format!("{}, {action} at step {step}: {code:?}", self.verb);
            let seen = view(&store);
            if code == Some(3) {
                assert_eq!(seen, after);
                break;
            }
            match (action, code) {
                ("stop", None) | ("fail", Some(1)) => {}
                // What is made is made, though cleaning up after it failed.
                ("fail", Some(0)) => assert_eq!(seen, after, "{what}"),
                _ => panic!("{what}"),
            }
            assert!(seen == before || seen == after, "{what}: {seen:?}");
            if self.verb != "check --repair" {
                assert_only_litter(&store, &what);
            }
            let again = run(self.verb, &store, &archive(&scratch));
            if seen == before {
                seen_before += 1;
                again.unwrap_or_else(|error| panic!("{what}, and again: {error}"));
            } else {
                seen_after += 1;
            }
            assert_eq!(view(&store), after, "{what}, and again");
            assert_swept(&scratch, &what);
        }
        if self.shows {
            assert!(seen_before >= 3 && seen_after > 0, "{seen_before} before, {seen_after} after");
        }
    }

    /// Both ways.
    fn holds(&self) {
        self.at_every_step("stop");
        self.at_every_step("fail");
    }
}

#[test]
fn load_at_every_step() {
    Case::of("load").holds();
}

#[test]
fn load_of_a_stream_at_every_step() {
    Case::of("load a stream").holds();
}

#[test]
fn create_at_every_step() {
    Case::of("create").holds();
}

#[test]
fn commit_at_every_step() {
    Case::of("commit").holds();
}

#[test]
fn squashing_commit_at_every_step() {
    Case::of("squash").holds();
}

#[test]
fn import_at_every_step() {
    Case::of("import").holds();
}

#[test]
fn tag_at_every_step() {
    Case::of("tag").holds();
}

#[test]
fn rename_at_every_step() {
    Case::of("rename").holds();
}

#[test]
fn prune_at_every_step() {
    Case::of("prune").holds();
    Case::of("prune containers").holds();
}

#[test]
fn rm_at_every_step() {
    Case::of("rm").holds();
}

#[test]
fn rmi_at_every_step() {
    Case::of("rmi").holds();
}

#[test]
fn gc_at_every_step() {
    Case { verb: "gc", prepare: Box::new(littered), shows: false }.holds();
}

#[test]
fn repair_at_every_step() {
    Case { verb: "check --repair", prepare: Box::new(broken), shows: true }.holds();
}

#[test]
fn pull_at_every_step() {
    if !support::require("tool:docker-registry") {
        return;
    }
    let registry = Registry::start();
    let name = registry.name("spare:1");
    let source = Scratch::new();
    source.load_image(&newer());
    let image = source.store.outgoing("spare").unwrap();
    let to = Reference::parse(&name).unwrap();
    let access = Access::default();
    push(&source.store, &image, &to, Compression::Gzip, &access, &Unwatched).unwrap();
    let prepare = || {
        let scratch = prepared();
        std::fs::write(archive(&scratch).with_file_name("remote"), &name).unwrap();
        scratch
    };
    Case { verb: "pull", prepare: Box::new(prepare), shows: true }.holds();
}

/// What a push changes in the store is what it notes of the registry.
#[test]
fn push_at_every_step() {
    if !support::require("tool:docker-registry") {
        return;
    }
    let registry = Registry::start();
    let prepare = || {
        let scratch = prepared();
        std::fs::write(archive(&scratch).with_file_name("remote"), registry.name("old:1")).unwrap();
        scratch
    };
    Case { verb: "push", prepare: Box::new(prepare), shows: true }.holds();
}

/// A copy into a container is no transaction: what was copied stays. The container that was mounted
/// for it is unmounted by its daemon, in its own time. The store is in order all the same, and the same copy again
/// completes it.
#[test]
fn cp_at_every_step() {
    if !(support::require("root") && support::require("fuse")) {
        return;
    }
    let done = prepared();
    run("cp", &done.store, &archive(&done)).unwrap();
    let after = view(&done.store);
    for action in ["stop", "fail"] {
        for step in 0.. {
            let scratch = prepared();
            let code = stop(&scratch, "cp", step, action);
            let store = Store::open(scratch.store.root()).unwrap();
            let what = format!("cp, {action} at step {step}: {code:?}");
            assert_only_litter(&store, &what);
            let again = run("cp", &store, &archive(&scratch));
            if let Err(error) = store.umount("box") {
                assert!(
                    error.to_string().ends_with("is not mounted"),
                    "{what}, unmounted: {error}"
                );
            }
            again.unwrap_or_else(|error| panic!("{what}, and again: {error}"));
            assert_eq!(view(&store), after, "{what}");
            assert_swept(&scratch, &what);
            if code == Some(3) {
                break;
            }
        }
    }
}

/// Nor is applying a layer to a directory, but the same again completes it.
#[test]
fn apply_at_every_step() {
    let tree = |scratch: &Scratch| archive(scratch).with_file_name("tree");
    let prepare = || {
        let scratch = Scratch::new();
        let dir = tree(&scratch);
        std::fs::create_dir_all(dir.join("dir")).unwrap();
        std::fs::write(dir.join("dir/file"), "x").unwrap();
        std::fs::write(dir.join("base"), "shared").unwrap();
        scratch
    };
    let done = prepare();
    run("apply", &done.store, &archive(&done)).unwrap();
    let after = support::Snapshot::of(&tree(&done));
    for action in ["stop", "fail"] {
        for step in 0.. {
            let scratch = prepare();
            let code = stop(&scratch, "apply", step, action);
            if code == Some(3) {
                assert!(step > 10);
                break;
            }
            assert_eq!(code, (action == "fail").then_some(1), "step {step}");
            run("apply", &scratch.store, &archive(&scratch)).unwrap();
            let seen = support::Snapshot::of(&tree(&scratch));
            let policy = support::Policy::SAME_CONTENT;
            support::assert_same("applied once", &after, "applied again", &seen, policy);
        }
    }
}
