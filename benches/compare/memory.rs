//! Memory: what a daemon takes for each node that the kernel knows, and what fifty containers
//! of one image take together.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Res;
use crate::arena::Arena;
use crate::contender::{Contender, Kind, Place, drop_names};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::shell::{call, make_dir, on, text, write};
use crate::stacks::noise;

const CONTAINERS: usize = 50;
/// Bytes of programs and of data in the image of those.
const HALF: usize = 24 << 20;

pub(crate) fn run(arena: &Arena, options: &Options, outcome: &mut Outcome) -> Res<()> {
    if !options.memory {
        return Ok(());
    }
    let nodes = if options.quick { 100_000 } else { 1_000_000 };
    eprintln!("making {nodes} files");
    let million = arena.dir.join("memory/million");
    for dir in 0..nodes / 1000 {
        let dir = million.join(format!("0/d{dir:04}"));
        make_dir(&dir)?;
        for file in 0..1000 {
            write(&dir.join(format!("file{file:04}")), "")?;
        }
    }
    let image = arena.dir.join("memory/image");
    make_image(&image.join("0"))?;
    for contender in arena.contenders.iter().filter(|c| !c.is_rootless()) {
        if contender.has_daemon() {
            eprintln!("memory of {} for {nodes} nodes", contender.name);
            note_nodes(outcome, contender, nodes, nodes_of(arena, contender, &million));
        }
        if contender.has_daemon() || contender.kind == Kind::Overlayfs {
            eprintln!("memory of {CONTAINERS} containers of {}", contender.name);
            let taken = containers_of(arena, contender, &image);
            let what = format!("MB for {CONTAINERS} containers of one image of 48 MB, all read");
            note(outcome, &what, contender, taken);
        }
    }
    Ok(())
}

fn note(outcome: &mut Outcome, what: &str, contender: &Contender, value: Res<f64>) {
    if let Err(error) = &value {
        eprintln!("{what}: {}: {error}", contender.name);
    }
    outcome.memory.entry(what.to_owned()).or_default().insert(contender.name.clone(), value);
}

fn note_nodes(outcome: &mut Outcome, contender: &Contender, nodes: u64, found: Res<(f64, f64)>) {
    let held = format!("bytes for each of {nodes} live nodes");
    let left = format!("bytes for each of {nodes} nodes after they were forgotten");
    note(outcome, &held, contender, found.clone().map(|found| found.0));
    note(outcome, &left, contender, found.map(|found| found.1));
}

fn place(arena: &Arena, contender: &Contender, stack: &Path, name: &str) -> Place {
    Place {
        stack: stack.to_path_buf(),
        layers: 1,
        own: arena.dir.join("memory").join(&contender.name).join(name),
        subvolume: PathBuf::new(),
    }
}

/// A number of `/proc/PID/status` or `/proc/meminfo` that is given in kB, in bytes.
fn kilobytes(path: &str, key: &str) -> Res<u64> {
    let content = text(path.as_ref())?;
    let line = content.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(number.ok_or_else(|| format!("{path} has no {key}"))? * 1024)
}

/// The heap and stacks of a daemon for each node, after a walk and after the kernel forgot.
fn nodes_of(arena: &Arena, contender: &Contender, stack: &Path) -> Res<(f64, f64)> {
    let place = place(arena, contender, stack, "million");
    contender.mount(&place, None)?;
    let measured = measure_nodes(contender, &place);
    contender.unmount(&place, None)?;
    contender.forget(&place)?;
    measured
}

fn measure_nodes(contender: &Contender, place: &Place) -> Res<(f64, f64)> {
    let daemon = contender.daemon(place).ok_or("its daemon is not found")?;
    let status = format!("/proc/{daemon}/status");
    let before = kilobytes(&status, "RssAnon:")?;
    let nodes = walk(&place.merged())?;
    let after = kilobytes(&status, "RssAnon:")?;
    drop_names()?;
    // FORGETs come in the background.
    let start = Instant::now();
    let mut left = kilobytes(&status, "RssAnon:")?;
    while start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(250));
        let now = kilobytes(&status, "RssAnon:")?;
        if now == left && start.elapsed() > Duration::from_secs(3) {
            break;
        }
        left = now;
    }
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / nodes as f64;
    Ok((each(after), each(left)))
}

fn walk(dir: &Path) -> Res<u64> {
    let mut seen = 1;
    for entry in on(dir, std::fs::read_dir(dir))? {
        let entry = on(dir, entry)?;
        seen += if on(dir, entry.metadata())?.is_dir() { walk(&entry.path())? } else { 1 };
    }
    Ok(seen)
}

/// An image of programs of this machine, and as much data.
fn make_image(root: &Path) -> Res<()> {
    make_dir(&root.join("bin"))?;
    let mut programs = 0;
    let bin = Path::new("/usr/bin");
    for entry in on(bin, std::fs::read_dir(bin))? {
        let path = on(bin, entry)?.path();
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if !meta.is_file() || meta.len() > 4 << 20 || programs >= HALF {
            continue;
        }
        programs += meta.len() as usize;
        let to = root.join("bin").join(path.file_name().unwrap_or_default());
        on(&path, std::fs::copy(&path, &to))?;
    }
    make_dir(&root.join("data"))?;
    for n in 0..HALF >> 18 {
        write(&root.join(format!("data/f{n:03}")), noise(n as u64, 1 << 18))?;
    }
    Ok(())
}

/// Page cache and daemons' memory, in megabytes, that containers take which read all of it.
fn containers_of(arena: &Arena, contender: &Contender, image: &Path) -> Res<f64> {
    let places: Vec<Place> =
        (0..CONTAINERS).map(|n| place(arena, contender, image, &format!("container{n}"))).collect();
    call("sync", &[])?;
    write("/proc/sys/vm/drop_caches".as_ref(), "3")?;
    let before = kilobytes("/proc/meminfo", "Cached:")?;
    let mut daemons = Vec::new();
    let mut read = Ok(());
    let mut mounted = Vec::new();
    for place in &places {
        if let Err(error) = contender.mount(place, None) {
            read = Err(error);
            break;
        }
        mounted.push(place);
        daemons.extend(contender.daemon(place));
        read = read.and_then(|()| read_all(&place.merged()));
    }
    let cached = kilobytes("/proc/meminfo", "Cached:")?.saturating_sub(before);
    let mut own = 0;
    for daemon in &daemons {
        own += kilobytes(&format!("/proc/{daemon}/status"), "RssAnon:")?;
    }
    for place in mounted {
        contender.unmount(place, None)?;
        contender.forget(place)?;
    }
    read.map(|()| (cached + own) as f64 / 1e6)
}

fn read_all(dir: &Path) -> Res<()> {
    for entry in on(dir, std::fs::read_dir(dir))? {
        let path = on(dir, entry)?.path();
        if path.is_dir() {
            read_all(&path)?;
        } else {
            let mut file = on(&path, std::fs::File::open(&path))?;
            on(&path, std::io::copy(&mut file, &mut std::io::sink()))?;
        }
    }
    Ok(())
}
