//! One life of containers, to be played on several storages: what the trees are after each step.

use std::path::Path;

use super::image::{BASE, build_context};
use super::{Beside, Podman, Storage, fixture, sorted, unpacked};
use crate::support::{Snapshot, assert_same};

/// What was seen, step by step.
#[derive(Debug, Default)]
pub(crate) struct Life {
    trees: Vec<(String, Snapshot)>,
    words: Vec<(String, Vec<String>)>,
}

impl Life {
    pub(crate) fn tree(&mut self, step: &str, tree: Snapshot) {
        self.trees.push((step.to_owned(), tree));
    }

    pub(crate) fn words(&mut self, step: &str, words: &str) {
        self.words.push((step.to_owned(), sorted(words)));
    }

    /// Stops the test where a life on `beside` saw something else.
    pub(crate) fn expect_same(&self, other: &Life, beside: Beside<'_>) {
        assert_eq!((self.trees.len(), self.words.len()), (other.trees.len(), other.words.len()));
        let alike = |step: &str| !beside.other.contains(&step);
        for ((step, ours), (_, theirs)) in
            self.trees.iter().zip(&other.trees).filter(|((step, _), _)| alike(step))
        {
            let without = |tree: &Snapshot| {
                let mut tree = tree.clone();
                tree.entries
                    .retain(|path, _| !beside.blind.iter().any(|name| path == Path::new(name)));
                tree
            };
            let names = ["PlyFS", beside.name].map(|name| format!("{name} after {step}"));
            let (ours, theirs) = (without(ours), without(theirs));
            assert_same(&names[0], &ours, &names[1], &theirs, beside.policy);
        }
        for ((step, ours), (_, theirs)) in
            self.words.iter().zip(&other.words).filter(|((step, _), _)| alike(step))
        {
            assert_eq!(ours, theirs, "PlyFS and {}: {step}", beside.name);
        }
    }

    /// The tree of one step.
    pub(crate) fn at(&self, step: &str) -> &Snapshot {
        let found = self.trees.iter().find(|(name, _)| name == step);
        &found.unwrap_or_else(|| panic!("no step {step}")).1
    }
}

/// Import, run, commit, run again, export, save and load.
pub(crate) fn containers(podman: &Podman<'_>) -> Life {
    let mut life = Life::default();
    life.tree("import", podman.image_tree(BASE));
    podman.ok_with(&["run", "-i", "--name", "changed", BASE, "sh", "-s"], &fixture("changes.sh"));
    life.tree("run", podman.tree("changed"));
    // podman 4.3 fails to list them on the kernel's driver where a file became a directory.
    let listed = podman.storage != Storage::Kernel;
    let changes = if listed { podman.ok(&["diff", "changed"]) } else { String::new() };
    assert_eq!(changes.lines().count() > 40, listed, "{changes}");
    life.words("list of changes", &changes);
    podman.ok(&["commit", "-q", "changed", "committed:1"]);
    life.tree("commit", podman.image_tree("committed:1"));
    let look = "cd /t; cat a_modify 00_add o_opaque/* 'sp ace/'*; ls . o_opaque g_dir_renamed";
    let seen = podman.ok(&["run", "--rm", "committed:1", "sh", "-c", look]);
    life.words("a run of what was committed", &seen);

    let archive = podman.path("export.tar");
    podman.ok(&["export", "-o", archive.to_str().unwrap(), "changed"]);
    life.tree("export", unpacked(&archive, &podman.path("unpacked")));
    let archive = podman.path("saved.tar");
    podman.ok(&["save", "-q", "-o", archive.to_str().unwrap(), "committed:1"]);
    podman.ok(&["rmi", "committed:1"]);
    podman.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
    life.tree("save and load", podman.image_tree("committed:1"));
    podman.ok(&["rm", "changed"]);
    life
}

/// A build of five steps by podman: the tree of each of its images.
pub(crate) fn build(podman: &Podman<'_>) -> Life {
    let mut life = steps(podman, |words| podman.ok(words));
    let context = build_context(podman.room);
    let squashed = ["build", "-q", "--squash-all", "--no-cache", "-t", "squashed:1"];
    podman.ok(&[&squashed[..], &[context.to_str().unwrap()]].concat());
    life.tree("build, squashed", podman.image_tree("squashed:1"));
    life
}

/// The same by buildah, which also puts the image into an archive and takes it from there.
pub(crate) fn build_by_buildah(podman: &Podman<'_>) -> Life {
    let mut life = steps(podman, |words| podman.buildah(words));
    let archive = format!("oci-archive:{}", podman.path("pushed.tar").display());
    podman.buildah(&["push", "-q", "built:1", &archive]);
    podman.buildah(&["rmi", "built:1"]);
    let pulled = podman.buildah(&["pull", "-q", &archive]);
    life.tree("push and pull", podman.image_tree(&pulled));
    life
}

fn steps(podman: &Podman<'_>, build: impl Fn(&[&str]) -> String) -> Life {
    let mut life = Life::default();
    let context = build_context(podman.room);
    let context = context.to_str().unwrap();
    let words = build(&["build", "--layers", "--no-cache", "-t", "built:1", context]);
    let images: Vec<&str> = words.lines().filter_map(|line| line.strip_prefix("--> ")).collect();
    assert_eq!(images.len(), 5, "{words}");
    for (step, image) in images.iter().enumerate() {
        life.tree(&format!("build step {}", step + 1), podman.image_tree(image));
    }
    life.tree("build", podman.image_tree("built:1"));
    let again = build(&["build", "--layers", "-t", "built:1", context]);
    assert_eq!(again.matches("Using cache").count(), 5, "{again}");
    life.words(
        "run of what was built",
        &podman.ok(&["run", "--rm", "built:1", "cat", "/home/link"]),
    );
    life
}

/// Two containers of one image at once, changed while they run; one goes when it has ended, and so
/// is mounted with `volatile`.
pub(crate) fn two_at_once(podman: &Podman<'_>) -> Life {
    let mut life = Life::default();
    let names = ["one", "two"];
    podman.ok(&["run", "-d", "--name", "one", BASE, "sleep", "1000"]);
    podman.ok(&["run", "-d", "--rm", "--name", "two", BASE, "sleep", "1000"]);
    for name in names {
        let write = format!("echo {name} >>/t/a_modify; rm /t/b_delete; mkdir /t/{name}");
        podman.ok(&["exec", name, "sh", "-c", &write]);
    }
    podman.ok(&["exec", "two", "mv", "/t/h1_orig", "/home/h1"]);
    for name in names {
        life.words(&format!("exec in {name}"), &podman.ok(&["exec", name, "cat", "/t/a_modify"]));
        life.tree(&format!("exec in {name}"), podman.tree(name));
        life.words(&format!("diff of {name}"), &podman.ok(&["diff", name]));
    }
    podman.ok(&["commit", "-q", "one", "live:1"]);
    life.tree("commit of a running container", podman.image_tree("live:1"));
    podman.ok(&["rm", "--force", "--time", "0", "one", "two"]);
    life
}

/// A container whose ids are not those of the machine.
pub(crate) fn mapped(podman: &Podman<'_>) -> Life {
    let mut life = Life::default();
    let maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script = "cd /t; chown 5:6 a_modify; echo x >new; chown 7:8 new; mkdir -m 2775 dir; \
                  chown 1:2 dir; mkdir dir/sub; touch dir/sub/f; ln -s x dir/link; \
                  chown -h 3:4 dir/link; stat -c '%u %g %a %n' * dir/* /home /home/*";
    let words = [&["run", "--name", "mapped"][..], &maps, &[BASE, "sh", "-c", script]].concat();
    life.words("run with maps", &podman.ok(&words));
    life.tree("run with maps", podman.tree("mapped"));
    life.words("diff with maps", &podman.ok(&["diff", "mapped"]));
    podman.ok(&["commit", "-q", "mapped", "of-mapped:1"]);
    life.tree("commit with maps", podman.image_tree("of-mapped:1"));
    let look = ["run", "--rm", "of-mapped:1", "stat", "-c", "%u %g %n", "/t/new", "/t/dir/link"];
    life.words("run without maps", &podman.ok(&look));
    life
}

/// Containers for which podman itself chooses ids that no other container has.
pub(crate) fn chosen_ids(podman: &Podman<'_>) -> Life {
    let mut life = Life::default();
    let look = "cd /t; echo x >new; chown 7:8 new a_modify; rm b_delete; cat /proc/self/uid_map; \
                stat -c '%u %g %a %n' * /home /home/*";
    for name in ["first", "second"] {
        let words = ["run", "--userns=auto:size=2048", "--name", name, BASE, "sh", "-c", look];
        life.words(&format!("run of the {name}"), &podman.ok(&words));
        life.tree(&format!("run of the {name}"), podman.tree(name));
    }
    let roots = ["first", "second"].map(|name| {
        let entry = &life.at(&format!("run of the {name}")).entries[Path::new("t/new")];
        entry.uid
    });
    assert_ne!(roots[0], roots[1], "each has ids of its own");
    life
}

/// A container in which an ordinary user has the id that he has outside; podman commits it where
/// that id is one that an image can have here.
pub(crate) fn own_id(podman: &Podman<'_>, commit: bool) -> Life {
    let mut life = Life::default();
    let script = "id -u >/tmp/id; cd /tmp; mkdir dir; echo x >dir/new; chmod 640 dir/new; \
                  stat -c '%u %g %a %n' / /t /t/* /home dir dir/*; echo x >/t/a_modify || true";
    let maps = ["--userns=keep-id", "--name", "own"];
    let words = [&["run"][..], &maps, &[BASE, "sh", "-c", script]].concat();
    life.words("run", &podman.ok(&words));
    life.tree("run", podman.tree("own"));
    life.words("diff", &podman.ok(&["diff", "own"]));
    if commit {
        podman.ok(&["commit", "-q", "own", "of-own:1"]);
        life.tree("commit", podman.image_tree("of-own:1"));
    }
    life
}

/// What buildah does step by step, without podman.
pub(crate) fn by_hand(podman: &Podman<'_>) -> Life {
    let mut life = Life::default();
    let context = build_context(podman.room);
    let place = |name: &str| context.join(name).to_str().unwrap().to_owned();
    let tree = |container: &str| podman.mounted(&["buildah", "mount", container]);
    let container = podman.buildah(&["from", BASE]);
    let container = container.as_str();
    podman.buildah(&["copy", container, &place("changes.sh"), "/bin/changes"]);
    podman.buildah(&["add", "--chown", "5:6", container, &place("context"), "/srv"]);
    life.tree("buildah copy and add", tree(container));
    podman.buildah(&["run", container, "changes"]);
    life.tree("buildah run", tree(container));
    podman.buildah(&["config", "--env", "A=B", "--cmd", "cat /t/00_add", container]);
    podman.buildah(&["commit", "-q", container, "by-hand:1"]);
    life.tree("buildah commit", podman.image_tree("by-hand:1"));
    life.words("run of what buildah made", &podman.ok(&["run", "--rm", "by-hand:1"]));
    podman.buildah(&["rm", container]);

    let scratch = podman.buildah(&["from", "scratch"]);
    podman.buildah(&["add", &scratch, &place("context"), "/"]);
    life.tree("buildah add to scratch", tree(&scratch));
    podman.buildah(&["commit", "-q", "--rm", &scratch, "from-scratch:1"]);
    life.tree("buildah commit of scratch", podman.image_tree("from-scratch:1"));
    life
}
