//! The stories.

use std::fs::{self, File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, XattrFlags};

/// A story: what a lower directory holds, and what is then done in it.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) begin: fn(&Path),
    pub(crate) steps: &'static [Step],
    /// Files that are written to in place, which is not one step.
    pub(crate) torn: &'static [&'static str],
    /// Names that may look like anything: files that were not yet promised anything.
    pub(crate) ignored: &'static [&'static str],
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) act: fn(&Path) -> Result<()>,
    /// It ends with an fsync of all that came before in this story.
    pub(crate) syncs: bool,
    /// It writes in place.
    pub(crate) tears: bool,
}

const fn step(act: fn(&Path) -> Result<()>) -> Step {
    Step { act, syncs: false, tears: false }
}

const fn synced(act: fn(&Path) -> Result<()>) -> Step {
    Step { act, syncs: true, tears: false }
}

const fn torn(act: fn(&Path) -> Result<()>) -> Step {
    Step { act, syncs: true, tears: true }
}

/// Bytes none of which is zero.
fn content(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|n| ((n / 3 + n * 7 + salt) % 255) as u8 + 1).collect()
}

fn put(path: &Path, length: usize) {
    fs::write(path, content(length, length)).unwrap();
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)?.sync_all()
}

fn append(path: &Path, length: usize) -> Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&content(length, 77))?;
    file.sync_all()
}

fn overwrite(path: &Path, offset: u64, length: usize) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&content(length, 99), offset)?;
    file.sync_data()
}

fn chmod(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// A directory with files, one of them further down.
fn tree(path: &Path) {
    fs::create_dir_all(path.join("sub")).unwrap();
    put(&path.join("a"), 3000);
    put(&path.join("sub/b"), 9000);
}

const NONE: &[&str] = &[];

/// All of them.
pub(crate) const STORIES: &[Story] = &[
    Story {
        name: "a mode changes",
        begin: |dir| put(&dir.join("f"), 30_000),
        steps: &[step(|dir| chmod(&dir.join("f"))), synced(|dir| sync(&dir.join("f")))],
        torn: NONE,
        ignored: NONE,
    },
    Story {
        name: "attributes, then data, of a large file",
        begin: |dir| put(&dir.join("f"), 1_100_000),
        steps: &[
            step(|dir| chmod(&dir.join("f"))),
            step(sync),
            synced(|dir| sync(&dir.join("f"))),
            torn(|dir| append(&dir.join("f"), 50)),
        ],
        torn: &["f"],
        ignored: NONE,
    },
    Story {
        name: "something is appended",
        begin: |dir| put(&dir.join("f"), 50_000),
        steps: &[torn(|dir| append(&dir.join("f"), 3000)), torn(|dir| append(&dir.join("f"), 5))],
        torn: &["f"],
        ignored: NONE,
    },
    Story {
        name: "something is overwritten",
        begin: |dir| put(&dir.join("f"), 200_000),
        steps: &[torn(|dir| overwrite(&dir.join("f"), 90_000, 5000))],
        torn: &["f"],
        ignored: NONE,
    },
    Story {
        name: "a file is opened to write and left as it is",
        begin: |dir| put(&dir.join("f"), 120_000),
        steps: &[
            step(|dir| OpenOptions::new().write(true).open(dir.join("f")).map(drop)),
            synced(sync),
        ],
        torn: NONE,
        ignored: NONE,
    },
    Story {
        name: "a file is removed and made again",
        begin: |dir| put(&dir.join("f"), 5000),
        steps: &[
            step(|dir| fs::remove_file(dir.join("f"))),
            synced(sync),
            step(|dir| fs::create_dir(dir.join("f"))),
            synced(sync),
        ],
        torn: NONE,
        ignored: NONE,
    },
    Story {
        name: "a file is renamed",
        begin: |dir| put(&dir.join("f"), 40_000),
        steps: &[
            step(|dir| fs::rename(dir.join("f"), dir.join("g"))),
            synced(sync),
            step(|dir| fs::rename(dir.join("g"), dir.join("f"))),
        ],
        torn: NONE,
        ignored: NONE,
    },
    Story {
        name: "a file is replaced by a rename",
        begin: |dir| put(&dir.join("f"), 60_000),
        steps: &[
            step(|dir| {
                let mut file = File::create(dir.join("t"))?;
                file.write_all(&content(70_000, 5))?;
                file.sync_all()
            }),
            step(|dir| fs::rename(dir.join("t"), dir.join("f"))),
            synced(sync),
        ],
        torn: NONE,
        ignored: &["t"],
    },
    Story {
        name: "a lower file replaces another",
        begin: |dir| {
            put(&dir.join("f"), 20_000);
            put(&dir.join("g"), 25_000);
        },
        steps: &[step(|dir| fs::rename(dir.join("f"), dir.join("g"))), synced(sync)],
        torn: NONE,
        ignored: NONE,
    },
    Story {
        name: "a directory is renamed",
        begin: |dir| tree(&dir.join("d")),
        steps: &[
            step(|dir| fs::rename(dir.join("d"), dir.join("e"))),
            synced(sync),
            torn(|dir| append(&dir.join("e/sub/b"), 100)),
            step(|dir| fs::rename(dir.join("e/sub"), dir.join("s"))),
            synced(|dir| sync(&dir.join("e")).and_then(|()| sync(dir))),
        ],
        torn: &["e/sub/b"],
        ignored: NONE,
    },
    Story {
        name: "a directory is removed and made again",
        begin: |dir| tree(&dir.join("d")),
        steps: &[
            step(|dir| fs::remove_file(dir.join("d/a"))),
            step(|dir| fs::remove_file(dir.join("d/sub/b"))),
            step(|dir| fs::remove_dir(dir.join("d/sub"))),
            step(|dir| fs::remove_dir(dir.join("d"))),
            step(|dir| fs::create_dir(dir.join("d"))),
            synced(sync),
        ],
        torn: NONE,
        ignored: NONE,
    },
    Story {
        name: "a file is made in a directory that was removed and made again",
        begin: |dir| fs::create_dir(dir.join("d")).unwrap(),
        steps: &[
            step(|dir| fs::remove_dir(dir.join("d"))),
            step(|dir| fs::create_dir(dir.join("d"))),
            torn(|dir| {
                let mut file = File::create(dir.join("d/n"))?;
                file.write_all(&content(9000, 3))?;
                file.sync_all()
            }),
            torn(|dir| append(&dir.join("d/n"), 800)),
        ],
        torn: &["d/n"],
        ignored: NONE,
    },
    Story {
        name: "a synced file goes into a directory from below",
        begin: |dir| {
            put(&dir.join("f"), 21_000);
            fs::create_dir(dir.join("d")).unwrap();
        },
        steps: &[
            torn(|dir| append(&dir.join("f"), 100)),
            step(|dir| fs::rename(dir.join("f"), dir.join("d/g"))),
            synced(|dir| sync(&dir.join("d")).and_then(|()| sync(dir))),
            torn(|dir| overwrite(&dir.join("d/g"), 700, 90)),
        ],
        torn: &["f", "d/g"],
        ignored: NONE,
    },
    Story {
        name: "two names of one file",
        begin: |dir| {
            put(&dir.join("f"), 8000);
            fs::create_dir(dir.join("d")).unwrap();
            fs::hard_link(dir.join("f"), dir.join("d/g")).unwrap();
        },
        steps: &[
            torn(|dir| append(&dir.join("f"), 400)),
            step(|dir| fs::remove_file(dir.join("f"))),
            synced(sync),
            torn(|dir| append(&dir.join("d/g"), 300)),
        ],
        torn: &["f", "d/g"],
        ignored: NONE,
    },
    Story {
        name: "something is made",
        begin: |dir| put(&dir.join("f"), 10),
        steps: &[
            step(|dir| {
                let mut file = File::create(dir.join("n"))?;
                file.write_all(&content(33_000, 1))?;
                file.sync_all()
            }),
            step(|dir| fs::hard_link(dir.join("n"), dir.join("named"))),
            step(|dir| std::os::unix::fs::symlink("n", dir.join("l"))),
            synced(sync),
        ],
        torn: NONE,
        ignored: &["n", "named"],
    },
    Story {
        name: "two files change places",
        begin: |dir| {
            put(&dir.join("f"), 7000);
            tree(&dir.join("d"));
        },
        steps: &[
            step(|dir| {
                let (f, d) = (dir.join("f"), dir.join("d"));
                Ok(rustix::fs::renameat_with(CWD, f, CWD, d, RenameFlags::EXCHANGE)?)
            }),
            synced(sync),
        ],
        torn: NONE,
        ignored: NONE,
    },
    Story {
        name: "a file is cut off",
        begin: |dir| put(&dir.join("f"), 80_000),
        steps: &[torn(|dir| {
            let file = OpenOptions::new().write(true).open(dir.join("f"))?;
            file.set_len(1000)?;
            file.sync_all()
        })],
        torn: &["f"],
        ignored: NONE,
    },
    Story {
        name: "a large file is cut off after its attributes changed",
        begin: |dir| put(&dir.join("f"), 1_100_000),
        steps: &[
            step(|dir| chmod(&dir.join("f"))),
            step(sync),
            synced(|dir| sync(&dir.join("f"))),
            torn(|dir| {
                let file = OpenOptions::new().write(true).open(dir.join("f"))?;
                file.set_len(1000)?;
                file.sync_all()
            }),
        ],
        torn: &["f"],
        ignored: NONE,
    },
    Story {
        name: "a file deep down is appended to",
        begin: |dir| {
            fs::create_dir_all(dir.join("d/e/g")).unwrap();
            put(&dir.join("d/e/g/f"), 12_000);
        },
        steps: &[torn(|dir| append(&dir.join("d/e/g/f"), 700))],
        torn: &["d/e/g/f"],
        ignored: NONE,
    },
    Story {
        name: "a file comes up in directories that take their time",
        begin: |dir| {
            fs::create_dir_all(dir.join("d/e/g")).unwrap();
            for (path, n) in
                ["d", "d/e", "d/e/g"].iter().flat_map(|d| (0..120).map(move |n| (d, n)))
            {
                let name = format!("user.n{n}");
                rustix::fs::setxattr(dir.join(path), name, b"1", XattrFlags::empty()).unwrap();
            }
            put(&dir.join("d/e/g/f"), 18_000);
        },
        steps: &[torn(|dir| append(&dir.join("d/e/g/f"), 60))],
        torn: &["d/e/g/f"],
        ignored: NONE,
    },
    Story {
        name: "an xattr is set and a name is given",
        begin: |dir| put(&dir.join("f"), 15_000),
        steps: &[
            step(|dir| {
                let value = &b"value"[..];
                let none = XattrFlags::empty();
                Ok(rustix::fs::setxattr(dir.join("f"), "user.story", value, none)?)
            }),
            step(|dir| fs::hard_link(dir.join("f"), dir.join("g"))),
            synced(|dir| sync(&dir.join("f")).and_then(|()| sync(dir))),
        ],
        torn: NONE,
        ignored: NONE,
    },
];
