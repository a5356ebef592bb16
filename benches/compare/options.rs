//! The command line.

use std::path::PathBuf;

use crate::Res;

pub(crate) const HELP: &str = "\
Compares PlyFS with other filesystems, end to end, in one interleaved run. Needs root.

Usage: scripts/bench [--quick] [OPTION...]

  --quick                  three rounds of smaller work: less than three minutes
  --rounds N               how often each contender does each workload [3 or 7]
  --only TEXT[,TEXT...]    only workloads with one of these in their name
  --contenders A[,B...]    only these (overlayfs is always there) [all that are installed]
  --fuse-overlayfs NAME=PATH   a further fuse-overlayfs; may be repeated
  --plyfs NAME=PATH        a further build of fuse-plyfs (rootless where its name says so), or
                           another than this one under the names plyfs and plyfs-rootless
  --dir DIR                where layers and mounts lie [target/bench]
  --tmpfs                  on a tmpfs there instead of the filesystem of DIR
  --pin no|only|both       processes bound to one CPU [quick: no; else both]
  --no-memory              leave the memory measurements out
  --output DIR             where the results go [target/bench-results]
  --list                   list workloads and contenders
  -h, --help

       scripts/bench report RESULTS.json    writes the page and the tables again";

/// Which runs are bound to one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    No,
    Only,
    Both,
}

impl Pin {
    /// The passes to make: whether each is pinned.
    pub(crate) fn passes(self) -> &'static [bool] {
        match self {
            Pin::No => &[false],
            Pin::Only => &[true],
            Pin::Both => &[false, true],
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) only: Vec<String>,
    pub(crate) contenders: Vec<String>,
    pub(crate) fuse_overlayfs: Vec<(String, PathBuf)>,
    pub(crate) plyfs: Vec<(String, PathBuf)>,
    pub(crate) dir: PathBuf,
    pub(crate) tmpfs: bool,
    pub(crate) pin: Pin,
    pub(crate) memory: bool,
    pub(crate) output: PathBuf,
    pub(crate) command: String,
}

impl Options {
    /// Reads the command line; `None` where it only asked for something to be printed.
    pub(crate) fn parse(arguments: &[String]) -> Res<Option<Options>> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut options = Options {
            quick: false,
            rounds: 0,
            only: Vec::new(),
            contenders: Vec::new(),
            fuse_overlayfs: Vec::new(),
            plyfs: Vec::new(),
            dir: root.join("target/bench"),
            tmpfs: false,
            pin: Pin::No,
            memory: true,
            output: root.join("target/bench-results"),
            command: format!("scripts/bench {}", arguments.join(" ")),
        };
        let mut pin = None;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value =
                || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
            let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--rounds" => {
                    options.rounds = value()?.parse().map_err(|_| "--rounds needs a number")?;
                }
                "--only" => options.only = list(value()?),
                "--contenders" => options.contenders = list(value()?),
                "--fuse-overlayfs" => options.fuse_overlayfs.push(named_path(&value()?)?),
                "--plyfs" => options.plyfs.push(named_path(&value()?)?),
                "--dir" => options.dir = PathBuf::from(value()?),
                "--tmpfs" => options.tmpfs = true,
                "--pin" => pin = Some(pin_of(&value()?)?),
                "--no-memory" => options.memory = false,
                "--output" => options.output = PathBuf::from(value()?),
                "--list" => {
                    crate::catalog::print();
                    return Ok(None);
                }
                "-h" | "--help" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                other => return Err(format!("{other}: not known (--help shows what is)")),
            }
        }
        options.pin = pin.unwrap_or(if options.quick { Pin::No } else { Pin::Both });
        if options.rounds == 0 {
            options.rounds = if options.quick { 3 } else { 7 };
        }
        // Measurements of memory are not for who looks for a few workloads only.
        options.memory &= if options.only.is_empty() {
            !options.quick
        } else {
            options.only.iter().any(|only| only == "memory")
        };
        Ok(Some(options))
    }

    /// Whether a workload of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }

    /// Rounds of all passes: so often something is used up.
    pub(crate) fn all_rounds(&self) -> u32 {
        self.rounds * self.pin.passes().len() as u32
    }
}

fn named_path(text: &str) -> Res<(String, PathBuf)> {
    let (name, path) = text.split_once('=').ok_or("needs NAME=PATH")?;
    let path = PathBuf::from(path).canonicalize().map_err(|error| format!("{path}: {error}"))?;
    Ok((name.to_owned(), path))
}

fn pin_of(text: &str) -> Res<Pin> {
    match text {
        "no" => Ok(Pin::No),
        "only" => Ok(Pin::Only),
        "both" => Ok(Pin::Both),
        other => Err(format!("--pin is no, only or both, not {other}")),
    }
}
