//! Every verb that changes the store, stopped at or failing in each of its steps: the next
//! command sees the state before or the state after, and the next change sweeps the rest.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops")]

mod images;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use images::{Scratch, docker_files, image};
use plyfs::error::Errno;
use plyfs::store::{CommitOptions, Source, Store};
use plyfs::sys::fault::{self, Action};

const BASE: images::Files<'_> = &[("base", "shared"), ("dir/file", "x")];

/// What people see of a store: images with names, and containers by name.
type View = (BTreeSet<String>, BTreeSet<String>);

fn view(store: &Store) -> View {
    let images = store.images().unwrap();
    let images = images.iter().map(|image| format!("{} {:?}", image.id, image.references));
    let containers = store.containers().unwrap().into_iter().map(|container| container.name);
    (images.collect(), containers.collect())
}

/// A store with two images that share a layer, and a container of one of them.
fn prepared() -> Scratch {
    let scratch = Scratch::new();
    scratch.load_image(&image("old", &[BASE, &[("old", "1")]]));
    scratch.load_image(&image("spare", &[BASE, &[("spare", "2")]]));
    let container = scratch.store.create("old", Some("box")).unwrap();
    std::fs::write(scratch.store.upper(&container).join("written"), "x").unwrap();
    let new = image("spare", &[BASE, &[("new", "3")]]);
    std::fs::write(archive(&scratch), images::archive(&docker_files(&[new]))).unwrap();
    scratch
}

fn archive(scratch: &Scratch) -> std::path::PathBuf {
    scratch.dir.path().join("new.tar")
}

fn committed() -> CommitOptions {
    let reference = Some(plyfs::image::Reference::parse("spare").unwrap());
    // Said, because the default names the file that is imported, which differs from run to run.
    let message = Some("made".to_owned());
    CommitOptions { reference, message, timestamp: Some(0), ..CommitOptions::default() }
}

fn run(verb: &str, store: &Store, archive: &Path) -> plyfs::error::Result<()> {
    match verb {
        "load" => store.load(Source::Path(archive)).map(drop),
        "create" => store.create("spare", Some("made")).map(drop),
        "commit" => store.commit("box", &committed()).map(drop),
        "import" => {
            let tree = archive.with_file_name("tree.tar");
            std::fs::write(&tree, images::layer(BASE)).unwrap();
            store.import(Source::Path(&tree), &committed()).map(drop)
        }
        "tag" => store.tag("old", committed().reference.unwrap()).map(drop),
        "rename" => store.rename("box", "renamed").map(drop),
        "prune" => store.prune_images(true).map(drop),
        "rm" => store.remove_container("box", false).map(drop),
        "rmi" => store.remove_image("spare", false).map(drop),
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
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stopped_at_a_step", "--ignored", "--quiet"])
        .env("PLYFS_CRASH_ROOT", scratch.store.root())
        .env("PLYFS_CRASH_ARCHIVE", archive(scratch))
        .env("PLYFS_CRASH_VERB", verb)
        .env("PLYFS_CRASH_STEP", step.to_string())
        .env("PLYFS_CRASH_ACTION", action)
        .output()
        .unwrap()
        .status;
    status.code()
}

/// Holds that after a change of the store nothing is left that no image or container uses.
fn assert_swept(scratch: &Scratch) {
    let store = Store::open(scratch.store.root()).unwrap();
    store.create("old", Some("sweeper")).unwrap();
    let images = store.images().unwrap();
    let hex = |digest: plyfs::image::Digest| digest.hex();
    let layers: BTreeSet<_> =
        images.iter().flat_map(|image| &image.layers).map(|chain| hex(chain.0)).collect();
    assert_eq!(scratch.list("layers"), layers.into_iter().collect::<Vec<_>>());
    let ids: BTreeSet<_> = images.iter().map(|image| hex(image.id.0)).collect();
    assert_eq!(scratch.list("images"), ids.into_iter().collect::<Vec<_>>());
    let blobs: BTreeSet<_> = images
        .iter()
        .flat_map(|image| &image.layers)
        .map(|chain| {
            let record = scratch.store.root().join("layers").join(hex(chain.0)).join("layer.json");
            let record = std::fs::read(record).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            record["blob"]["digest"].as_str().unwrap().replace("sha256:", "")
        })
        .collect();
    assert_eq!(scratch.list("blobs/sha256"), blobs.into_iter().collect::<Vec<_>>());
    assert!(scratch.list("staging").is_empty());
}

fn at_every_step(verb: &str, action: &str) {
    let done = prepared();
    let before = view(&done.store);
    run(verb, &done.store, &archive(&done)).unwrap();
    let after = view(&done.store);
    assert_ne!(before, after);
    let (mut seen_before, mut seen_after) = (0, 0);
    for step in 0.. {
        let scratch = prepared();
        let code = stop(&scratch, verb, step, action);
        let store = Store::open(scratch.store.root()).unwrap();
        let seen = view(&store);
        if code == Some(3) {
            assert_eq!(seen, after);
            break;
        }
        assert_eq!(code.is_none(), action == "stop", "{verb} step {step}: {code:?}");
        assert!(seen == before || seen == after, "{verb} step {step}: {seen:?}");
        if seen == before {
            seen_before += 1
        } else {
            seen_after += 1
        }
        assert_swept(&scratch);
    }
    assert!(seen_before >= 3 && seen_after > 0, "{verb}: {seen_before} before, {seen_after} after");
}

#[test]
fn load_stopped_at_every_step() {
    at_every_step("load", "stop");
}

#[test]
fn load_failing_in_every_step() {
    at_every_step("load", "fail");
}

#[test]
fn create_stopped_at_every_step() {
    at_every_step("create", "stop");
}

#[test]
fn create_failing_in_every_step() {
    at_every_step("create", "fail");
}

#[test]
fn commit_stopped_at_every_step() {
    at_every_step("commit", "stop");
}

#[test]
fn commit_failing_in_every_step() {
    at_every_step("commit", "fail");
}

#[test]
fn import_stopped_at_every_step() {
    at_every_step("import", "stop");
}

#[test]
fn tag_stopped_at_every_step() {
    at_every_step("tag", "stop");
}

#[test]
fn tag_failing_in_every_step() {
    at_every_step("tag", "fail");
}

#[test]
fn rename_stopped_at_every_step() {
    at_every_step("rename", "stop");
}

#[test]
fn rename_failing_in_every_step() {
    at_every_step("rename", "fail");
}

#[test]
fn prune_stopped_at_every_step() {
    at_every_step("prune", "stop");
}

#[test]
fn rm_stopped_at_every_step() {
    at_every_step("rm", "stop");
}

#[test]
fn rm_failing_in_every_step() {
    at_every_step("rm", "fail");
}

#[test]
fn rmi_stopped_at_every_step() {
    at_every_step("rmi", "stop");
}

#[test]
fn rmi_failing_in_every_step() {
    at_every_step("rmi", "fail");
}
