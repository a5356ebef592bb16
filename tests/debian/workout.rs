//! What a user does in the root filesystem, step by step, with the time that each step took.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::rootfs::chroot;
use super::run;

/// What the steps need from outside the mount.
#[derive(Debug)]
pub(crate) struct Material {
    repository: PathBuf,
}

const FILES: usize = 400;
const COMMITS: usize = 5;

impl Material {
    /// Makes a git repository of some files and commits in `place`.
    pub(crate) fn new(place: &Path) -> Material {
        let repository = place.join("repository");
        fs::create_dir(&repository).unwrap();
        git(&repository, &["init", "--quiet"]);
        for commit in 0..COMMITS {
            for file in (0..FILES).filter(|file| commit == 0 || file % COMMITS == commit) {
                let dir = repository.join(format!("dir{}", file % 20));
                fs::create_dir_all(&dir).unwrap();
                let line = format!("file {file} of commit {commit}\n");
                fs::write(dir.join(format!("file{file}")), line.repeat(1 + file % 50)).unwrap();
            }
            git(&repository, &["add", "."]);
            git(&repository, &["commit", "--quiet", "-m", &format!("commit {commit}")]);
        }
        Material { repository }
    }
}

fn git(repository: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    for (name, value) in [("user.name", "a"), ("user.email", "a@b.c"), ("gc.auto", "0")] {
        git.args(["-c", &format!("{name}={value}")]);
    }
    run(git.arg("-C").arg(repository).args(arguments))
}

type Step = (&'static str, fn(&Path, &Material));

const STEPS: &[Step] = &[
    ("apt-get install hello", |root, _| {
        let install = ["apt-get", "install", "-y", "--no-download", "hello"];
        run(chroot(root).args(install));
        assert_eq!(run(chroot(root).arg("hello")), "Hello, world!\n");
    }),
    ("dpkg --verify", |root, _| {
        assert_eq!(run(chroot(root).args(["dpkg", "--verify"])), "");
    }),
    ("git clone", |root, material| {
        let mut git = Command::new("git");
        let clone = git.args(["clone", "--quiet", "--no-hardlinks"]);
        run(clone.arg(&material.repository).arg(root.join("srv/clone")));
    }),
    ("git fsck and status", |root, _| {
        let clone = root.join("srv/clone");
        run(Command::new("git").arg("-C").arg(&clone).args(["fsck", "--full", "--strict"]));
        let status = ["status", "--porcelain"];
        assert_eq!(run(Command::new("git").arg("-C").arg(&clone).args(status)), "");
    }),
    ("cargo build", |root, _| {
        let place = root.join("srv/tiny");
        fs::create_dir_all(place.join("src")).unwrap();
        let manifest =
            "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
        fs::write(place.join("Cargo.toml"), manifest).unwrap();
        fs::write(place.join("src/main.rs"), "fn main() { println!(\"tiny works\") }\n").unwrap();
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--offline"]).current_dir(&place);
        run(cargo.env("CARGO_TARGET_DIR", place.join("target")).env_remove("RUSTFLAGS"));
        assert_eq!(run(&mut Command::new(place.join("target/debug/tiny"))), "tiny works\n");
    }),
    ("sqlite3: 10,000 rows, one transaction", |root, _| {
        let rows: String =
            (0..10_000).map(|n| format!("insert into t values ({n}, 'row {n}');\n")).collect();
        let script =
            format!("create table t (n integer primary key, s text);\nbegin;\n{rows}commit;\n");
        sqlite(root, &script);
        assert_eq!(sqlite(root, "select count(*), sum(n) from t;"), "10000|49995000\n");
    }),
    ("sqlite3: 200 rows, each its own", |root, _| {
        let rows: String =
            (10_000..10_200).map(|n| format!("insert into t values ({n}, 'x');\n")).collect();
        sqlite(root, &rows);
        assert_eq!(sqlite(root, "pragma integrity_check; select count(*) from t;"), "ok\n10200\n");
    }),
    ("rm -rf /usr/share/doc", |root, _| {
        run(Command::new("rm").arg("-rf").arg(root.join("usr/share/doc")));
        assert!(!root.join("usr/share/doc").exists());
    }),
    ("find, stat of all", |root, _| {
        let found = run(Command::new("find").arg(root).args(["-printf", "%s\\n"]));
        assert!(found.lines().count() > 3000, "a root filesystem has more files");
    }),
];

fn sqlite(root: &Path, script: &str) -> String {
    let file = root.join("srv/script.sql");
    fs::write(&file, script).unwrap();
    let mut sqlite = Command::new("sqlite3");
    sqlite.arg("-batch").arg("-bail").arg(root.join("srv/test.db"));
    run(sqlite.stdin(fs::File::open(&file).unwrap()))
}

/// All steps in the tree at `root`.
pub(crate) fn workout(root: &Path, material: &Material) -> Vec<(&'static str, Duration)> {
    let timed = |(name, step): &Step| {
        let start = Instant::now();
        step(root, material);
        (*name, start.elapsed())
    };
    STEPS.iter().map(timed).collect()
}
