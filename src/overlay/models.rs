//! Models of what threads do to one another: nodes, handles, copy-up and the order of locks, on a
//! real stack of layers. Each runs some hundred times in an order of threads that shuttle chooses at
//! every lock and every atomic access; threads that all wait for one another fail it, too.
//!
//! `scripts/models` runs them; `PLYFS_MODELS_RUNS=100000` looks for longer. What fails prints its
//! schedule; `PLYFS_MODELS_SCHEDULE=...` with one test plays it again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod world;

use self::world::{ROOT, World, content, explore, n, names, on, write};
use super::{NodeId, Overlay, SetAttr};
use crate::error::Errno;
use crate::sys::xattr::XattrFlags;
use crate::sys::{OFlags, RenameFlags};

/// The kernel names a node by its number until it has forgotten it as often as it was told of it.
#[test]
fn a_node_stays_while_a_lookup_of_it_is_counted() {
    explore(|| {
        let world = World::new();
        let look = |path: &'static str| {
            world.spawn(move |fs| {
                for _ in 0..2 {
                    let ino = on(fs, path, |node| fs.getattr(node, None).unwrap().ino).unwrap();
                    assert_ne!(ino, 0);
                }
            })
        };
        // The directory of a node that is held may be forgotten before it.
        let child_first = world.spawn(|fs| {
            let dir = fs.lookup(NodeId::ROOT, n("a")).unwrap().node;
            let file = fs.lookup(dir, n("x")).unwrap().node;
            fs.forget(dir, 1);
            write(fs, file, "above").unwrap();
            fs.forget(file, 1);
        });
        for thread in [look("f"), look("f"), look("a/x"), child_first] {
            thread.join().unwrap();
        }
        assert_eq!(content(&world.fs, "a/x").unwrap(), "above");
        world.nothing_is_left();
    });
}

/// Forgotten by several threads at once, a directory and all that lies in it go.
#[test]
fn what_is_forgotten_at_once_goes() {
    explore(|| {
        let world = World::new();
        let dir = world.fs.lookup(NodeId::ROOT, n("a")).unwrap().node;
        let file = world.fs.lookup(dir, n("x")).unwrap().node;
        let threads = [dir, file].map(|node| world.spawn(move |fs| fs.forget(node, 1)));
        for thread in threads {
            thread.join().unwrap();
        }
        world.nothing_is_left();
    });
}

#[test]
fn many_changes_at_once_copy_a_file_up_once_and_lose_none() {
    explore(|| {
        let world = World::new();
        let threads = [
            world.spawn(|fs| on(fs, "a/x", |node| write(fs, node, "ABOVE")).unwrap().unwrap()),
            world.spawn(|fs| {
                let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
                on(fs, "a/x", |node| fs.setattr(&ROOT, node, None, &set))
                    .unwrap()
                    .map(drop)
                    .unwrap();
            }),
            world.spawn(|fs| {
                on(fs, "a/x", |node| {
                    fs.setxattr(node, n("user.x"), b"1", rustix::fs::XattrFlags::empty(), false)
                })
                .unwrap()
                .unwrap();
            }),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        let copied = world.fs.figures().copy_ups;
        assert_eq!((copied.files, copied.directories), (1, 1));
        assert_eq!(content(&world.fs, "a/x").unwrap(), "ABOVE");
        let stat = on(&world.fs, "a/x", |node| world.fs.getattr(node, None)).unwrap().unwrap();
        assert_eq!(stat.mode & 0o7777, 0o600);
        world.nothing_is_left();
    });
}

/// Attributes first and data later, by different threads: each once.
#[test]
fn attributes_and_data_are_copied_up_once_each() {
    explore(|| {
        let world = World::with(|options| options.metacopy = Some(true));
        let chmod = |mode: u32| {
            world.spawn(move |fs| {
                let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                on(fs, "f", |node| fs.setattr(&ROOT, node, None, &set)).unwrap().map(drop).unwrap();
            })
        };
        let cut = world.spawn(|fs| {
            let set = SetAttr { size: Some(3), ..SetAttr::default() };
            on(fs, "f", |node| fs.setattr(&ROOT, node, None, &set)).unwrap().map(drop).unwrap();
        });
        let changed = world.spawn(|fs| on(fs, "f", |node| write(fs, node, "AB")).unwrap().unwrap());
        for thread in [chmod(0o600), chmod(0o600), cut, changed] {
            thread.join().unwrap();
        }
        let copied = world.fs.figures().copy_ups;
        assert!(copied.attributes <= 1 && copied.files == 1, "{copied:?}");
        assert_eq!(content(&world.fs, "f").unwrap(), "ABl");
        world.nothing_is_left();
    });
}

/// Whoever has a file open keeps it; nobody finds it by a name that is gone.
#[test]
fn a_file_that_is_removed_while_it_is_copied_up_stays_removed() {
    explore(|| {
        let world = World::new();
        let writer = world.spawn(|fs| {
            on(fs, "f", |node| {
                let opened = fs.open(node, OFlags::RDWR, false)?;
                fs.write(opened.handle.into(), 0, b"ABOVE", OFlags::empty())?;
                let mut buffer = [0; 8];
                assert_eq!(fs.read(opened.handle.into(), 0, &mut buffer)?, 5);
                assert_eq!(&buffer[..5], b"ABOVE");
                fs.release(opened.handle);
                Ok(())
            })
            .unwrap_or(Err(Errno::NOENT))
        });
        let remover = world.spawn(|fs| fs.unlink(NodeId::ROOT, n("f")));
        let looker = world.spawn(|fs| on(fs, "f", |node| fs.getattr(node, None)).map(drop));
        let written: Result<(), Errno> = writer.join().unwrap();
        assert!(matches!(written, Ok(()) | Err(Errno::NOENT)), "{written:?}");
        assert_eq!(remover.join().unwrap(), Ok(()));
        assert!(matches!(looker.join().unwrap(), Ok(()) | Err(Errno::NOENT)));
        assert_eq!(content(&world.fs, "f").unwrap_err(), Errno::NOENT);
        assert_eq!(names(&world.fs, ""), ["a", "b", "one", "two"]);
        world.nothing_is_left();
    });
}

/// Directories are locked in one order whoever moves what where.
#[test]
fn moves_between_directories_wait_for_one_another_without_end_for_none() {
    explore(|| {
        let world = World::new();
        let rename =
            |from: &'static str, name: &'static str, to: &'static str, new: &'static str| {
                world.spawn(move |fs| {
                    on(fs, from, |from| {
                        on(fs, to, |to| fs.rename(from, n(name), to, n(new), RenameFlags::empty()))
                    })
                    .and_then(|done| done)
                    .and_then(|done| done)
                })
            };
        let threads =
            [rename("a", "x", "b", "x"), rename("b", "y", "a", "y"), rename("", "a", "b", "a")];
        let maker = world.spawn(|fs| {
            on(fs, "b", |dir| {
                let made = fs.mkdir(&ROOT, dir, n("new"), 0o755, 0).unwrap();
                fs.forget(made.node, 1);
            })
        });
        let done: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        maker.join().unwrap().unwrap();
        // What came too late for its directory found nothing of that name.
        assert!(done.iter().all(|done| matches!(done, Ok(()) | Err(Errno::NOENT))), "{done:?}");
        assert_eq!(done[2], Ok(()));
        assert_eq!(names(&world.fs, ""), ["b", "f", "one", "two"]);
        let mut all = names(&world.fs, "b");
        all.extend(names(&world.fs, "b/a"));
        all.sort();
        assert_eq!(all, ["a", "new", "x", "y"]);
        world.nothing_is_left();
    });
}

/// A directory is locked before what lies in it, whoever is faster.
#[test]
fn what_leaves_a_directory_that_is_removed_is_in_one_place() {
    explore(|| {
        let world = World::new();
        // What is copied up already takes few steps: they meet more often.
        on(&world.fs, "a/x", |node| write(&world.fs, node, "ABOVE")).unwrap().unwrap();
        let mover = world.spawn(|fs| {
            on(fs, "a", |dir| fs.rename(dir, n("x"), NodeId::ROOT, n("x"), RenameFlags::empty()))
        });
        let remover = world.spawn(|fs| fs.rmdir(NodeId::ROOT, n("a")));
        assert_eq!(mover.join().unwrap(), Ok(Ok(())));
        let removed = remover.join().unwrap();
        let left = names(&world.fs, "");
        match removed {
            Ok(()) => assert_eq!(left, ["b", "f", "one", "two", "x"]),
            Err(errno) => {
                assert_eq!(errno, Errno::NOTEMPTY);
                assert_eq!(left, ["a", "b", "f", "one", "two", "x"]);
            }
        }
        world.nothing_is_left();
    });
}

/// Of those who find that a handle is outdated each opens the copy; none reads in between.
#[test]
fn all_who_meet_at_an_outdated_handle_read_the_copy() {
    explore(|| {
        let world = World::new();
        let file = world.fs.lookup(NodeId::ROOT, n("f")).unwrap().node;
        let handle = world.fs.open(file, OFlags::RDONLY, false).unwrap().handle;
        write(&world.fs, file, "ABOVE").unwrap();
        let reader = || {
            world.spawn(move |fs| {
                let mut buffer = [0; 8];
                let length = fs.read(handle.into(), 0, &mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"ABOVE");
            })
        };
        for thread in [reader(), reader()] {
            thread.join().unwrap();
        }
        world.fs.release(handle);
        world.fs.forget(file, 1);
        world.nothing_is_left();
    });
}

/// A reader that was there before the copy-up sees what was written, and then never less.
#[test]
fn a_handle_never_goes_back_to_what_lies_below() {
    explore(|| {
        let world = World::new();
        // The kernel forgets no file that is open.
        let file = world.fs.lookup(NodeId::ROOT, n("f")).unwrap().node;
        let handle = world.fs.open(file, OFlags::RDONLY, false).unwrap().handle;
        let read = move |fs: &Overlay| {
            let mut buffer = [0; 8];
            let length = fs.read(handle.into(), 0, &mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        let reader = || {
            world.spawn(move |fs| {
                let seen = [read(fs), read(fs)];
                assert!(seen.iter().all(|text| text == "below" || text == "ABOVE"), "{seen:?}");
                assert!(!(seen[0] == "ABOVE" && seen[1] == "below"), "went back");
            })
        };
        let writer = world.spawn(move |fs| {
            on(fs, "f", |node| write(fs, node, "ABOVE")).unwrap().unwrap();
            assert_eq!(read(fs), "ABOVE");
        });
        for thread in [reader(), reader(), writer] {
            thread.join().unwrap();
        }
        assert_eq!(read(&world.fs), "ABOVE");
        world.fs.release(handle);
        world.fs.forget(file, 1);
        world.nothing_is_left();
    });
}

/// The node that takes over is found by all names, and goes with the old one or after it.
#[test]
fn a_node_that_is_renewed_is_lost_to_nobody() {
    explore(|| {
        let world = World::new();
        let before = world.fs.lookup(NodeId::ROOT, n("f")).unwrap();
        write(&world.fs, before.node, "ABOVE").unwrap();
        let renewer = || world.spawn(move |fs| fs.renew_node(before.node).map(drop));
        let looker = world.spawn(move |fs| {
            on(fs, "f", |node| assert_eq!(fs.getattr(node, None).unwrap().ino, before.stat.ino))
        });
        for thread in [renewer(), renewer()] {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
        looker.join().unwrap().unwrap();
        assert_eq!(world.fs.getattr(before.node, None).unwrap().ino, before.stat.ino);
        // The old one last or first, while the new one is found.
        let old = world.spawn(move |fs| fs.forget(before.node, 1));
        let found = world.spawn(|fs| on(fs, "f", |_| ()));
        old.join().unwrap();
        found.join().unwrap().unwrap();
        assert_eq!(content(&world.fs, "f").unwrap(), "ABOVE");
        world.nothing_is_left();
    });
}

/// All names of a file lead to one, while one is removed and another written through.
#[test]
fn names_of_one_file_stay_names_of_one_file() {
    explore(|| {
        let world = World::new();
        let writer =
            world.spawn(|fs| on(fs, "one", |node| write(fs, node, "ABOVE")).unwrap().unwrap());
        let remover = world.spawn(|fs| fs.unlink(NodeId::ROOT, n("two")).unwrap());
        let linker = world.spawn(|fs| {
            on(fs, "one", |node| {
                let made = fs.link(node, NodeId::ROOT, n("three")).unwrap();
                fs.forget(made.node, 1);
            })
            .unwrap();
        });
        for thread in [writer, remover, linker] {
            thread.join().unwrap();
        }
        assert_eq!(content(&world.fs, "three").unwrap(), "ABOVE");
        let stat = |path: &str| on(&world.fs, path, |node| world.fs.getattr(node, None).unwrap());
        let (one, three) = (stat("one").unwrap(), stat("three").unwrap());
        assert_eq!((one.ino, one.nlink), (three.ino, 2));
        assert_eq!(names(&world.fs, ""), ["a", "b", "f", "one", "three"]);
        world.nothing_is_left();
    });
}

/// Of two who make one name, one does; a listing that is kept has it once.
#[test]
fn one_of_two_who_make_a_name_makes_it() {
    explore(|| {
        let world = World::new();
        assert_eq!(names(&world.fs, "a"), ["x"]);
        let make = || {
            world.spawn(|fs| {
                on(fs, "a", |dir| {
                    let made = fs.mkdir(&ROOT, dir, n("new"), 0o755, 0);
                    made.map(|entry| fs.forget(entry.node, 1))
                })
                .unwrap()
            })
        };
        let lister = world.spawn(|fs| {
            let listed = names(fs, "a");
            assert!(listed == ["x"] || listed == ["new", "x"], "{listed:?}");
        });
        let makers = [make(), make()];
        let mut made = makers.map(|thread| thread.join().unwrap());
        made.sort_by_key(Result::is_err);
        lister.join().unwrap();
        assert_eq!(made, [Ok(()), Err(Errno::EXIST)]);
        assert_eq!(names(&world.fs, "a"), ["new", "x"]);
        world.nothing_is_left();
    });
}

/// Who asks while an xattr is set may be told of none, but nobody may remember that.
#[test]
fn an_xattr_that_was_set_stays_known() {
    explore(|| {
        let world = World::new();
        let dir = world.fs.lookup(NodeId::ROOT, n("a")).unwrap().node;
        let file = world.fs.lookup(dir, n("x")).unwrap().node;
        let value = move |fs: &Overlay| fs.getxattr(file, n("user.set"), &mut [0; 8]);
        let ask =
            || world.spawn(move |fs| assert!(matches!(value(fs), Ok(1) | Err(Errno::NODATA))));
        let set = world.spawn(move |fs| {
            fs.setxattr(file, n("user.set"), b"1", XattrFlags::empty(), false).unwrap();
            assert_eq!(value(fs), Ok(1));
        });
        for thread in [ask(), set, ask()] {
            thread.join().unwrap();
        }
        assert_eq!(value(&world.fs), Ok(1));
        for node in [file, dir] {
            world.fs.forget(node, 1);
        }
        world.nothing_is_left();
    });
}

/// What was found ahead is what would be found now, whoever changes the file meanwhile.
#[test]
fn what_is_found_ahead_is_true_when_it_is_given() {
    explore(|| {
        let world = World::new();
        world.fs.begin_to_look_ahead(|| true);
        let dir = world.fs.lookup(NodeId::ROOT, n("a")).unwrap().node;
        let ahead = world.spawn(move |fs| fs.look_into(dir));
        let changer = world.spawn(move |fs| {
            on(fs, "a/x", |node| write(fs, node, "ABOVE")).unwrap().unwrap();
            assert_eq!(content(fs, "a/x").unwrap(), "ABOVE");
        });
        for thread in [ahead, changer] {
            thread.join().unwrap();
        }
        assert_eq!(content(&world.fs, "a/x").unwrap(), "ABOVE");
        let ahead = world.spawn(move |fs| fs.look_into(dir));
        let changer = world.spawn(move |fs| {
            fs.unlink(dir, n("x")).unwrap();
            fs.rename(NodeId::ROOT, n("f"), dir, n("x"), RenameFlags::empty()).unwrap();
        });
        for thread in [ahead, changer] {
            thread.join().unwrap();
        }
        assert_eq!(names(&world.fs, "a"), ["x"]);
        assert_eq!(content(&world.fs, "a/x").unwrap(), "below");
        world.fs.forget(dir, 1);
        world.nothing_is_left();
    });
}
