//! Everything set up for a run: the layers, who takes part, what is mounted.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::Res;
use crate::catalog::{Setting, Workload};
use crate::contender::{Contender, Kind, Namespace, Place};
use crate::options::Options;
use crate::shell::{call, has, make_dir, on, write};
use crate::stacks::{self, ORDINARY, Scale, Stack};

pub(crate) struct Arena {
    pub(crate) dir: PathBuf,
    pub(crate) contenders: Vec<Contender>,
    /// Who could not take part, and why.
    pub(crate) absent: Vec<(String, String)>,
    pub(crate) namespace: Option<Namespace>,
    layers: HashMap<String, u32>,
    /// Which contender has which stack mounted.
    mounted: RefCell<HashSet<(String, String)>>,
    tmpfs: bool,
    btrfs: bool,
}

/// The stack that a setting is about.
pub(crate) fn stack_of(setting: Setting) -> String {
    match setting {
        Setting::Mounted | Setting::Cold => "main".to_owned(),
        Setting::Big => "big".to_owned(),
        Setting::ColdLayers(layers) | Setting::Mount(layers) => format!("layers{layers}"),
    }
}

impl Arena {
    pub(crate) fn set_up(options: &Options, workloads: &[Workload]) -> Res<Arena> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root: it mounts filesystems and empties caches".to_owned());
        }
        // Longer paths would not fit into the options of mount(2) 500 times.
        make_dir(&options.dir)?;
        let dir = on(&options.dir, options.dir.canonicalize())?;
        if dir.join("stacks").exists() || crate::machine::has_mounts_below(&dir) {
            sweep(&dir)?;
        }
        if options.tmpfs {
            let size = "size=90%,mode=0755";
            call("mount", &["-t", "tmpfs", "-o", size, "tmpfs", &dir.display().to_string()])?;
        }
        let mut arena = Arena {
            dir,
            contenders: Vec::new(),
            absent: Vec::new(),
            namespace: None,
            layers: HashMap::new(),
            mounted: RefCell::default(),
            tmpfs: options.tmpfs,
            btrfs: false,
        };
        match arena.fill(options, workloads) {
            Ok(()) => Ok(arena),
            Err(error) => {
                if let Err(second) = arena.tear_down() {
                    eprintln!("bench: {second}");
                }
                Err(error)
            }
        }
    }

    fn fill(&mut self, options: &Options, workloads: &[Workload]) -> Res<()> {
        eprintln!("making layers in {}", self.dir.display());
        make_dir(&self.dir.join("aside"))?;
        let scale = Scale::of(options.quick);
        let names: HashSet<String> =
            workloads.iter().map(|workload| stack_of(workload.setting)).collect();
        for name in names {
            self.make_stack(&name, options, scale)?;
        }
        stacks::archives(&self.dir.join("aside"), if options.quick { 300 } else { 1000 })?;
        self.invite(options)?;
        call("sync", &[]).map(drop)
    }

    fn make_stack(&mut self, name: &str, options: &Options, scale: Scale) -> Res<()> {
        let layers = match name.strip_prefix("layers") {
            Some(layers) => layers.parse().map_err(|_| "a stack has a number of layers")?,
            None if name == "big" => 1,
            None => ORDINARY,
        };
        let stack = Stack::new(self.dir.join("stacks").join(name), layers)?;
        match name {
            "main" => {
                stacks::tree(&stack, if options.quick { 120 } else { 240 }, 16)?;
                stacks::used_up(&stack, scale, options.all_rounds())?;
                stacks::data(&stack, scale.data)?;
                stacks::programs(&stack, if options.quick { 400 } else { 1500 })?;
            }
            "big" => {
                let content = stacks::noise(11, 1 << 20);
                let path = stack.dir.join("0/big");
                let mut file = on(&path, std::fs::File::create(&path))?;
                for _ in 0..scale.big >> 20 {
                    on(&path, std::io::Write::write_all(&mut file, &content))?;
                }
            }
            _ => stacks::tree(&stack, 100, 20)?,
        }
        self.layers.insert(name.to_owned(), layers);
        self.write_lists(name, &stack)
    }

    /// The names of the merged tree, so that nobody has to walk it to know them.
    fn write_lists(&self, name: &str, stack: &Stack) -> Res<()> {
        let (mut files, mut dirs) = (HashSet::new(), HashSet::new());
        for layer in 0..stack.layers {
            let root = stack.dir.join(layer.to_string());
            list(&root, &root.join("tree"), &mut files, &mut dirs)?;
        }
        for (what, names) in [("files", files), ("dirs", dirs)] {
            let mut names: Vec<String> = names.into_iter().collect();
            names.sort();
            write(&self.dir.join(format!("aside/{name}.{what}")), names.join("\n"))?;
        }
        Ok(())
    }

    /// Finds out who can take part.
    fn invite(&mut self, options: &Options) -> Res<()> {
        let own = PathBuf::from(env!("CARGO_BIN_EXE_fuse-plyfs"));
        let mut all = vec![
            ("native".to_owned(), Kind::Native),
            ("overlayfs".to_owned(), Kind::Overlayfs),
            ("plyfs".to_owned(), Kind::Plyfs(own.clone())),
            ("plyfs-rootless".to_owned(), Kind::PlyfsRootless(own)),
        ];
        for (name, path) in &options.plyfs {
            all.retain(|(other, _)| other != name);
            let rootless = name.contains("rootless");
            let kind = if rootless { Kind::PlyfsRootless } else { Kind::Plyfs };
            all.push((name.clone(), kind(path.clone())));
        }
        for (name, path) in &options.fuse_overlayfs {
            all.push((name.clone(), Kind::FuseOverlayfs(path.clone())));
        }
        if let Some(path) = in_path("fuse-overlayfs") {
            all.push((fuse_overlayfs_name(&path)?, Kind::FuseOverlayfs(path)));
        }
        all.push(("unionfs-fuse".to_owned(), Kind::UnionfsFuse));
        all.push(("btrfs".to_owned(), Kind::Btrfs));
        all.dedup_by(|a, b| a.0 == b.0);
        let wanted = |name: &str| {
            options.contenders.is_empty() || options.contenders.iter().any(|c| c == name)
        };
        for (name, kind) in all {
            if name != "overlayfs" && !wanted(&name) {
                continue;
            }
            let contender = Contender { name: name.clone(), kind };
            match self.prepare(&contender) {
                Ok(()) => self.contenders.push(contender),
                Err(error) => {
                    eprintln!("{name} does not take part: {error}");
                    self.absent.push((name, error));
                }
            }
        }
        Ok(())
    }

    fn prepare(&mut self, contender: &Contender) -> Res<()> {
        match contender.kind {
            Kind::PlyfsRootless(_) => {
                if self.namespace.is_none() {
                    self.namespace = Some(Namespace::new()?);
                }
                Ok(())
            }
            Kind::UnionfsFuse if !has("unionfs") => Err("unionfs is not in PATH".to_owned()),
            Kind::Native => {
                for (name, place) in self.places(contender) {
                    eprintln!("copying {name} for native");
                    self.stack(&name).copy_to(&place.merged())?;
                }
                Ok(())
            }
            Kind::Btrfs => self.make_btrfs(contender),
            _ => Ok(()),
        }
    }

    fn make_btrfs(&mut self, contender: &Contender) -> Res<()> {
        if !has("mkfs.btrfs") {
            return Err("mkfs.btrfs is not in PATH".to_owned());
        }
        let (image, mount) = (self.dir.join("btrfs.img"), self.dir.join("btrfs"));
        make_dir(&mount)?;
        let file = on(&image, std::fs::File::create(&image))?;
        on(&image, file.set_len(8 << 30))?;
        let (image, mount) = (image.display().to_string(), mount.display().to_string());
        call("mkfs.btrfs", &["-q", &image])?;
        call("mount", &["-o", "loop", &image, &mount])?;
        self.btrfs = true;
        for (name, place) in self.places(contender) {
            eprintln!("copying {name} for btrfs");
            let subvolume = place.subvolume.display().to_string();
            call("btrfs", &["-q", "subvolume", "create", &subvolume])?;
            self.stack(&name).copy_to(&place.subvolume)?;
        }
        Ok(())
    }

    fn places(&self, contender: &Contender) -> Vec<(String, Place)> {
        self.layers.keys().map(|name| (name.clone(), self.place(contender, name))).collect()
    }

    fn stack(&self, name: &str) -> Stack {
        let layers = self.layers.get(name).copied().unwrap_or(0);
        Stack { dir: self.dir.join("stacks").join(name), layers }
    }

    pub(crate) fn place(&self, contender: &Contender, stack: &str) -> Place {
        let own = match contender.kind {
            Kind::Btrfs => self.dir.join("btrfs").join(format!("of-{stack}")),
            _ => self.dir.join("c").join(&contender.name).join(stack),
        };
        Place {
            stack: self.dir.join("stacks").join(stack),
            layers: self.layers.get(stack).copied().unwrap_or(0),
            own,
            subvolume: self.dir.join("btrfs").join(format!("base-{stack}")),
        }
    }

    /// Makes sure that the stack is mounted.
    pub(crate) fn mount(&self, contender: &Contender, stack: &str) -> Res<()> {
        let key = (contender.name.clone(), stack.to_owned());
        if self.mounted.borrow().contains(&key) {
            return Ok(());
        }
        contender.mount(&self.place(contender, stack), self.namespace.as_ref())?;
        self.mounted.borrow_mut().insert(key);
        Ok(())
    }

    /// Makes sure that it is not.
    pub(crate) fn unmount(&self, contender: &Contender, stack: &str) -> Res<()> {
        let key = (contender.name.clone(), stack.to_owned());
        if self.mounted.borrow_mut().remove(&key) {
            contender.unmount(&self.place(contender, stack), self.namespace.as_ref())?;
        }
        Ok(())
    }

    /// Unmounts everything and removes what was made.
    pub(crate) fn tear_down(self) -> Res<()> {
        let mut outcome = Ok(());
        let mounted: Vec<_> = self.mounted.borrow().iter().cloned().collect();
        for (name, stack) in mounted {
            if let Some(contender) = self.contenders.iter().find(|c| c.name == name)
                && let Err(error) = self.unmount(contender, &stack)
            {
                outcome = Err(format!("{name}: {error}"));
            }
        }
        if let Some(namespace) = self.namespace {
            namespace.end()?;
        }
        if self.btrfs {
            call("umount", &[&self.dir.join("btrfs").display().to_string()])?;
        }
        if self.tmpfs {
            call("umount", &[&self.dir.display().to_string()])?;
        }
        outcome.and_then(|()| sweep(&self.dir))
    }
}

/// Removes what an earlier run made, once nothing is mounted there any more.
fn sweep(dir: &Path) -> Res<()> {
    if crate::machine::has_mounts_below(dir) {
        return Err(format!("something is still mounted below {}", dir.display()));
    }
    for name in ["stacks", "c", "aside", "btrfs", "btrfs.img", "memory"] {
        let path = dir.join(name);
        if path.is_dir() {
            on(&path, std::fs::remove_dir_all(&path))?;
        } else if path.exists() {
            on(&path, std::fs::remove_file(&path))?;
        }
    }
    Ok(())
}

fn list(
    root: &Path,
    dir: &Path,
    files: &mut HashSet<String>,
    dirs: &mut HashSet<String>,
) -> Res<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    let relative = |path: &Path| path.strip_prefix(root).map(|p| p.display().to_string());
    dirs.insert(relative(dir).map_err(|error| error.to_string())?);
    for entry in entries {
        let path = on(dir, entry)?.path();
        if path.is_dir() {
            list(root, &path, files, dirs)?;
        } else {
            files.insert(relative(&path).map_err(|error| error.to_string())?);
        }
    }
    Ok(())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A name with the version that the program tells.
fn fuse_overlayfs_name(path: &Path) -> Res<String> {
    let said = call(&path.display().to_string(), &["--version"])?;
    let own = said.lines().find(|line| line.starts_with("fuse-overlayfs"));
    let version = own.and_then(|line| line.rsplit(' ').next()).unwrap_or("unknown");
    Ok(format!("fuse-overlayfs-{version}"))
}
