//! The generated layers: the same bytes at each run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Res;
use crate::shell::{call, has, make_dir, on, run, write};

/// Layers of the stack that most workloads use: an ordinary image.
pub(crate) const ORDINARY: u32 = 8;

/// Names that are used up by workloads, by workload; `count` of them in each round.
pub(crate) const USED_UP: &[&str] = &["unlink", "rm-rf", "mv", "append", "chmod"];

/// How large the generated trees are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Files of each kind that a round uses up.
    pub(crate) used_up: u32,
    /// Bytes of the file that is read and written.
    pub(crate) data: u64,
    /// Bytes of the file that is copied up.
    pub(crate) big: u64,
}

impl Scale {
    pub(crate) fn of(quick: bool) -> Scale {
        match quick {
            true => Scale { used_up: 100, data: 32 << 20, big: 128 << 20 },
            false => Scale { used_up: 200, data: 128 << 20, big: 1 << 30 },
        }
    }
}

/// One stack being made: `0` is its topmost layer.
pub(crate) struct Stack {
    pub(crate) dir: PathBuf,
    pub(crate) layers: u32,
}

impl Stack {
    pub(crate) fn new(dir: PathBuf, layers: u32) -> Res<Stack> {
        for layer in 0..layers {
            make_dir(&dir.join(layer.to_string()))?;
        }
        Ok(Stack { dir, layers })
    }

    fn layer(&self, layer: u32) -> PathBuf {
        self.dir.join((layer % self.layers).to_string())
    }

    fn bottom(&self) -> PathBuf {
        self.layer(self.layers - 1)
    }

    fn file(&self, layer: u32, path: &str, content: &[u8]) -> Res<()> {
        let path = self.layer(layer).join(path);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        write(&path, content)
    }

    /// Copies all layers together, as the merged tree shows them.
    pub(crate) fn copy_to(&self, to: &Path) -> Res<()> {
        make_dir(to)?;
        for layer in (0..self.layers).rev() {
            let from = format!("{}/.", self.layer(layer).display());
            call("cp", &["-a", "--reflink=never", &from, &to.display().to_string()])?;
        }
        Ok(())
    }
}

/// Bytes that no filesystem can make small.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn prose(seed: u64) -> String {
    const WORDS: [&str; 8] =
        ["layer", "upper", "lower", "merged", "inode", "whiteout", "origin", "redirect"];
    let mut text = String::new();
    for (i, byte) in noise(seed, 40 + (seed as usize * 37) % 400).iter().enumerate() {
        text.push_str(WORDS[usize::from(*byte) % WORDS.len()]);
        text.push(if i % 9 == 8 { '\n' } else { ' ' });
    }
    if seed.is_multiple_of(97) {
        text.push_str("a needle\n");
    }
    text
}

/// `directories` directories of `files` files below `tree/`, spread over all layers; every tenth
/// file lies in two of them.
pub(crate) fn tree(stack: &Stack, directories: u32, files: u32) -> Res<()> {
    for n in 0..directories * files {
        let (directory, file) = (n / files, n % files);
        let path = format!("tree/d{:03}/s{}/f{file:03}.txt", directory / 4, directory % 4);
        let doubled = n.is_multiple_of(10) && stack.layers > 1;
        if doubled {
            stack.file(stack.layers - 1, &path, b"hidden by the topmost layer")?;
        }
        let layer = if doubled { 0 } else { n % stack.layers };
        stack.file(layer, &path, prose(u64::from(n)).as_bytes())?;
    }
    Ok(())
}

/// What the workloads use up, for each of `rounds`.
pub(crate) fn used_up(stack: &Stack, scale: Scale, rounds: u32) -> Res<()> {
    for round in 0..rounds {
        for kind in USED_UP {
            for n in 0..scale.used_up {
                let path = match *kind {
                    "rm-rf" | "mv" => format!("used/{kind}/{round}/d{:02}/f{n:03}", n % 10),
                    _ => format!("used/{kind}/{round}/f{n:03}"),
                };
                stack.file(stack.layers - 1 - n % 2, &path, &noise(u64::from(n), 4096))?;
            }
        }
    }
    Ok(())
}

/// Files that are read and written at length.
pub(crate) fn data(stack: &Stack, length: u64) -> Res<()> {
    stack.file(stack.layers - 1, "data/read", &noise(7, length as usize))
}

/// Surroundings of real programs, in the bottom layer.
pub(crate) fn programs(stack: &Stack, files: u32) -> Res<()> {
    let bottom = stack.bottom();
    repository(&bottom.join("repo"), files)?;
    root(&bottom.join("root"))?;
    sources(&bottom.join("src"))?;
    dpkg_database(&bottom.join("dpkg"))
}

/// A git repository with two branches that differ in a fifth of its files.
fn repository(dir: &Path, files: u32) -> Res<()> {
    if !has("git") {
        return Ok(());
    }
    make_dir(dir)?;
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]);
        command.args(["-c", "init.defaultBranch=main", "-c", "gc.auto=0"]);
        run(command.args(arguments).current_dir(dir)).map(drop)
    };
    git(&["init", "-q"])?;
    for n in 0..files {
        let path = dir.join(format!("lib/m{:02}/file{n:04}.c", n % 40));
        make_dir(path.parent().unwrap_or(dir))?;
        write(&path, prose(u64::from(n) + 1))?;
    }
    git(&["add", "."])?;
    git(&["commit", "-qm", "all"])?;
    git(&["checkout", "-qb", "other"])?;
    for n in (0..files).step_by(5) {
        write(&dir.join(format!("lib/m{:02}/file{n:04}.c", n % 40)), prose(u64::from(n) + 99_999))?;
    }
    git(&["commit", "-qam", "some of them"])?;
    git(&["checkout", "-q", "main"])
}

/// A root directory with `true` and the libraries that it needs.
fn root(dir: &Path) -> Res<()> {
    for name in ["bin", "tmp"] {
        make_dir(&dir.join(name))?;
    }
    let listed = call("ldd", &["/bin/true"])?;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in words.chain(["/bin/true"]) {
        let to = dir.join(file.trim_start_matches('/'));
        make_dir(to.parent().unwrap_or(dir))?;
        on(&to, std::fs::copy(file, &to).map(drop))?;
    }
    Ok(())
}

/// A program of a few sources and many headers.
fn sources(dir: &Path) -> Res<()> {
    make_dir(&dir.join("include"))?;
    let mut includes = String::new();
    for n in 0..60 {
        let header = format!(
            "#pragma once\n#include <stddef.h>\nstatic inline int f{n}(int x) {{ return x + {n}; }}\n"
        );
        write(&dir.join(format!("include/h{n}.h")), header)?;
        includes.push_str(&format!("#include \"h{n}.h\"\n"));
    }
    for n in 0..4 {
        let body = if n == 0 { "int g1(int); int main(void) { return g1(0) != 1; }" } else { "" };
        let source = format!("{includes}\nint g{n}(int x) {{ return f{n}(x); }}\n{body}\n");
        write(&dir.join(format!("m{n}.c")), source)?;
    }
    Ok(())
}

/// What dpkg expects below its root.
fn dpkg_database(dir: &Path) -> Res<()> {
    for name in ["info", "updates", "triggers", "parts"] {
        make_dir(&dir.join("var/lib/dpkg").join(name))?;
    }
    for name in ["status", "available"] {
        write(&dir.join("var/lib/dpkg").join(name), "")?;
    }
    Ok(())
}

/// A Debian package with `files` files, and an archive of as many.
pub(crate) fn archives(dir: &Path, files: u32) -> Res<()> {
    let content = dir.join("package");
    for n in 0..files {
        let path = content.join(format!("usr/share/bench/p{:02}/file{n:04}", n % 25));
        make_dir(path.parent().unwrap_or(dir))?;
        write(&path, prose(u64::from(n) + 5))?;
    }
    let (from, to) = (content.display().to_string(), dir.join("files.tar").display().to_string());
    call("tar", &["--create", "--file", &to, "--directory", &from, "usr"])?;
    if !has("dpkg-deb") {
        return Ok(());
    }
    make_dir(&content.join("DEBIAN"))?;
    let control = "Package: bench\nVersion: 1\nArchitecture: all\nMaintainer: bench <b@localhost>\nDescription: files\n";
    write(&content.join("DEBIAN/control"), control)?;
    let deb = dir.join("files.deb").display().to_string();
    call("dpkg-deb", &["--build", "--root-owner-group", "-Znone", &from, &deb]).map(drop)
}
