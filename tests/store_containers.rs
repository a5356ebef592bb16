//! `create`, `rm`, `rmi`: names, ids, what is shared and what is in use.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use images::{Image, Scratch, docker_files, image};
use plyfs::store::Store;

fn error<T: std::fmt::Debug>(outcome: plyfs::error::Result<T>) -> String {
    outcome.unwrap_err().to_string()
}

fn two_layers(name: &str) -> Image {
    image(name, &[&[("base", "shared")], &[("own", name)]])
}

#[test]
fn a_container_is_found_by_name_id_and_start_of_id() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("app:v1"));
    let made = scratch.store.create("app:v1", Some("box")).unwrap();
    for text in ["box", &made.id.hex(), &made.id.short(), &made.id.hex()[..3]] {
        assert_eq!(scratch.store.container(text).unwrap().id, made.id, "{text}");
    }
    assert_eq!(made.image_name, "app:v1");
    assert_eq!(error(scratch.store.container("bo")), "no such container: bo");
    assert_eq!(error(scratch.store.container("")), "no such container: ");
    let of_the_same = |id: &str| scratch.store.create(id, None).unwrap().image;
    assert_eq!(of_the_same(&made.image.to_string()), made.image);
    assert_eq!(of_the_same(&made.image.0.short()), made.image);
}

#[test]
fn the_start_of_several_ids_is_no_answer() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("app"));
    // 17 ids cannot all differ in their first hex digit.
    let ids: Vec<_> =
        (0..17).map(|_| scratch.store.create("app", None).unwrap().id.hex()).collect();
    let ambiguous = ids
        .iter()
        .map(|id| &id[..1])
        .find(|start| ids.iter().filter(|id| id.starts_with(*start)).count() > 1);
    let refusal = error(scratch.store.container(ambiguous.unwrap()));
    assert!(refusal.starts_with("more than one container"), "{refusal}");
}

#[test]
fn names_are_unique_and_well_formed() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("app"));
    scratch.store.create("app", Some("box")).unwrap();
    let taken = error(scratch.store.create("app", Some("box")));
    assert!(taken.starts_with("the name box is in use: container "), "{taken}");
    for name in ["", ".", "../x", "a/b", "-a", "a b", &"x".repeat(129)] {
        let refusal = error(scratch.store.create("app", Some(name)));
        assert!(refusal.contains("is not a container name"), "{refusal}");
    }
    assert_eq!(error(scratch.store.create("nope", None)), "no such image: nope");
    let names: std::collections::HashSet<_> =
        (0..40).map(|_| scratch.store.create("app", None).unwrap().name).collect();
    assert_eq!(names.len(), 40);
    assert_eq!(scratch.list("containers").len(), 41);
    assert!(scratch.list("staging").is_empty());
}

#[test]
fn one_name_asked_for_at_once_goes_to_one() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("app"));
    let made = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| scratch.store.create("app", Some("box")).is_ok()))
            .collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
}

#[test]
fn the_writable_layer_starts_with_the_root_of_the_image() {
    let scratch = Scratch::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o1751);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    tar.append_data(&mut header, "./", std::io::empty()).unwrap();
    let mut app = image("app", &[&[], &[("file", "in a layer that does not speak of the root")]]);
    app.layers[0] = tar.into_inner().unwrap();
    let diff_ids: Vec<_> =
        app.layers.iter().map(|layer| plyfs::image::Digest::of(layer).to_string()).collect();
    let mut config: serde_json::Value = serde_json::from_slice(&app.config).unwrap();
    config["rootfs"]["diff_ids"] = diff_ids.into();
    app.config = config.to_string().into_bytes();
    scratch.load(&docker_files(&[app])).unwrap();

    let container = scratch.store.create("app", None).unwrap();
    let upper = fs::metadata(scratch.store.upper(&container)).unwrap();
    assert_eq!(upper.permissions().mode() & 0o7777, 0o1751);
    assert_eq!(upper.uid(), 0);
    // Programs of other users must not reach the layers, which hold set-user-id programs.
    assert_eq!(fs::metadata(scratch.store.root()).unwrap().permissions().mode() & 0o77, 0);
}

#[test]
fn rm_takes_the_container_and_nothing_else() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("app"));
    let gone = scratch.store.create("app", Some("gone")).unwrap();
    let stays = scratch.store.create("app", Some("stays")).unwrap();
    let upper = scratch.store.upper(&gone);
    // A tree deeper than PATH_MAX, as a container can make it.
    let mut at = upper.clone();
    for _ in 0..40 {
        at = at.join("d".repeat(90));
    }
    fs::create_dir_all(&at).unwrap();
    fs::write(at.join("file"), "x").unwrap();

    let held = File::open(upper.parent().unwrap()).unwrap();
    held.lock_shared().unwrap();
    let refusal = error(scratch.store.remove_container("gone", false));
    assert!(refusal.contains("another plyfs command is working on it"), "{refusal}");
    drop(held);

    scratch.store.remove_container("gone", false).unwrap();
    assert_eq!(scratch.list("containers"), [stays.id.hex()]);
    assert!(scratch.list("staging").is_empty());
    assert_eq!(error(scratch.store.remove_container("gone", false)), "no such container: gone");
}

#[test]
fn rm_refuses_a_container_whose_daemon_lives() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("app"));
    let container = scratch.store.create("app", Some("box")).unwrap();
    // What the daemon holds as long as it lives, in whatever mount namespace.
    let work = scratch.store.upper(&container).with_file_name("work");
    let lock = File::open(work).unwrap();
    lock.lock().unwrap();
    let refusal = error(scratch.store.remove_container("box", false));
    assert_eq!(refusal, "container box is in use: mounted in another mount namespace");
    drop(lock);
    scratch.store.remove_container("box", false).unwrap();
}

#[test]
fn rmi_keeps_shared_layers_and_takes_the_others() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("one"));
    scratch.load_image(&two_layers("two"));
    assert_eq!(scratch.list("layers").len(), 3);
    let removed = scratch.store.remove_image("one", false).unwrap();
    assert_eq!(removed.untagged[0].familiar(), "one:latest");
    assert_eq!((removed.image.is_some(), removed.layers.len()), (true, 1));
    assert_eq!(scratch.list("layers").len(), 2);
    assert_eq!(scratch.list("images").len(), 1);
    scratch.store.remove_image("two", false).unwrap();
    assert!(scratch.list("layers").is_empty() && scratch.list("images").is_empty());
    assert!(scratch.list("staging").is_empty());
    assert_eq!(error(scratch.store.remove_image("two", false)), "no such image: two");
}

#[test]
fn rmi_of_one_name_of_several_takes_the_name() {
    let scratch = Scratch::new();
    let mut app = two_layers("one");
    scratch.load_image(&app);
    app.name = Some("two".to_owned());
    scratch.load_image(&app);
    let id = app.id();
    let refusal = error(scratch.store.remove_image(&id, false));
    assert!(refusal.contains("has several names (one:latest, two:latest)"), "{refusal}");
    let removed = scratch.store.remove_image("one", false).unwrap();
    assert_eq!((removed.untagged.len(), removed.image), (1, None));
    assert_eq!(scratch.list("layers").len(), 2);
    scratch.store.remove_image(&id, false).unwrap();
    assert!(scratch.store.images().unwrap().is_empty());
}

#[test]
fn rmi_refuses_an_image_that_a_container_was_made_from() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("app"));
    scratch.store.create("app", Some("box")).unwrap();
    let refusal = error(scratch.store.remove_image("app", false));
    assert!(refusal.contains("is in use: container box"), "{refusal}");
    // Forced, it loses its name; the container keeps it alive.
    let removed = scratch.store.remove_image("app", true).unwrap();
    assert_eq!((removed.untagged.len(), removed.image), (1, None));
    assert_eq!(scratch.list("layers").len(), 2);
    let [image] = scratch.store.images().unwrap().try_into().unwrap();
    assert!(image.references.is_empty());
    scratch.store.remove_container("box", false).unwrap();
    scratch.store.remove_image(&image.id.to_string(), false).unwrap();
    assert!(scratch.list("layers").is_empty());
}

#[test]
fn short_names_find_what_they_must_mean() {
    let scratch = Scratch::new();
    scratch.load_image(&two_layers("localhost/team/app:v1"));
    scratch.load_image(&image("quay.io/other/tool", &[&[("x", "y")]]));
    for text in ["localhost/team/app:v1", "team/app:v1", "app:v1"] {
        let found = scratch.store.create(text, None).unwrap();
        assert_eq!(found.image_name, "localhost/team/app:v1", "{text}");
    }
    assert!(scratch.store.create("tool", None).is_ok());
    assert!(scratch.store.create("app", None).is_err());
    scratch.load_image(&image("quay.io/second/app:v1", &[&[("z", "y")]]));
    let refusal = error(scratch.store.create("app:v1", None));
    assert!(refusal.starts_with("app:v1 may mean "), "{refusal}");
}

/// A store of before names led to containers, and one that lost some of them.
#[test]
fn names_are_made_to_lead_where_they_do_not() {
    let scratch = Scratch::new();
    scratch.load_image(&image("base", &[&[("file", "x")]]));
    let box_id = scratch.store.create("base", Some("box")).unwrap().id;
    let other = scratch.store.create("base", Some("other")).unwrap().id;
    let root = scratch.store.root();
    fs::remove_dir_all(root.join("names")).unwrap();
    fs::write(root.join("format"), "2\n").unwrap();
    let store = Store::open(root).unwrap();
    assert_eq!(store.container("box").unwrap().id, box_id);
    assert_eq!(fs::read_to_string(root.join("format")).unwrap(), "3\n");
    assert!(root.join("names/other/container.json").is_file());

    fs::remove_file(root.join("names/box")).unwrap();
    fs::rename(root.join("names/other"), root.join("names/stale")).unwrap();
    let said: Vec<_> = store.check().unwrap().into_iter().map(|problem| problem.why).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(store.container("stale").is_err(), "a link alone names nothing");
    store.repair().unwrap();
    assert!(store.check().unwrap().is_empty());
    assert_eq!(store.container("other").unwrap().id, other);
    assert_eq!(store.container("box").unwrap().id, box_id);
    assert_eq!(scratch.list("names"), ["box", "other"]);
}

/// A command reads the record of the container that it is told of, however many others there are.
#[test]
fn damage_of_one_container_is_no_matter_of_others() {
    let scratch = Scratch::new();
    scratch.load_image(&image("base", &[&[("file", "x")]]));
    let broken = scratch.store.create("base", Some("broken")).unwrap();
    let sound = scratch.store.create("base", Some("sound")).unwrap();
    let record = scratch.store.root().join("containers").join(broken.id.hex());
    fs::write(record.join("container.json"), "{").unwrap();
    let store = Store::open(scratch.store.root()).unwrap();
    assert_eq!(store.container("sound").unwrap().id, sound.id);
    assert_eq!(store.container(&sound.id.hex()).unwrap().name, "sound");
    assert_eq!(store.container(&sound.id.hex()[..20]).unwrap().name, "sound");
    store.create("base", None).unwrap();
    store.rename("sound", "renamed").unwrap();
    store.remove_container("renamed", false).unwrap();
    assert!(store.container("broken").unwrap_err().to_string().contains("damaged record"));
    assert!(store.containers().is_err());
    assert!(store.create("base", Some("broken")).is_err(), "it may still have its name");
}
