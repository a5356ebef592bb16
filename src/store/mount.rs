//! `mount`: hands a container to the daemon.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

use super::Store;
use super::containers::{Container, State, mount_source, mounted};
use super::lock::Hold;

/// What serves a mount.
#[derive(Debug, Clone, Copy)]
pub enum MountDriver<'a> {
    /// The daemon, the program at this path.
    Fuse(&'a Path),
    /// The kernel's overlayfs.
    Kernel,
    /// The kernel's overlayfs where it lacks nothing that the container uses, else the daemon.
    Auto(&'a Path),
}

/// Where a container is mounted for as long as a command needs it.
#[derive(Debug)]
pub(super) struct Meanwhile {
    pub(super) place: PathBuf,
    /// The daemon unmounts when the kernel closes this: when this process ends, be it by SIGKILL.
    /// Nothing where the container was mounted before.
    held: Option<PipeWriter>,
}

impl Meanwhile {
    fn mounted_before(places: Vec<PathBuf>) -> Option<Meanwhile> {
        places.into_iter().next().map(|place| Meanwhile { place, held: None })
    }

    /// Whether the mount was made by this command, which has to take it away.
    pub(super) fn is_ours(&self) -> bool {
        self.held.is_some()
    }
}

impl Store {
    /// Mounts the container that `text` names on `dir`, or on its own directory in the store,
    /// and returns where. A daemon that serves the mount has returned to the background, or
    /// failed, when this returns. A container that is mounted already is left as
    /// it is where no other place is asked for; what is left of a mount whose daemon was killed is
    /// taken away first.
    ///
    /// # Errors
    /// Where there is no such container, it is mounted elsewhere, the place would hide the store,
    /// or the daemon fails, with what the daemon said, or the kernel refuses.
    pub fn mount(
        &self,
        text: &str,
        dir: Option<&Path>,
        driver: MountDriver<'_>,
    ) -> Result<PathBuf> {
        let container = self.container(text)?;
        let held = self.hold(&container, Hold::Exclusive)?;
        let wanted = dir.map(|dir| self.mount_point(dir)).transpose()?;
        if let State::Mounted(places) = self.state_to_mount(&container, &held)? {
            return match (places.first(), wanted) {
                (Some(place), None) => Ok(place.clone()),
                (Some(place), Some(wanted)) if *place == wanted => Ok(wanted),
                _ => Err(mounted(&container, &places)),
            };
        }
        let target = wanted.unwrap_or_else(|| self.default_mount_point(&container));
        match driver {
            MountDriver::Fuse(daemon) => self.run_daemon(&container, &target, daemon, None)?,
            MountDriver::Kernel => {
                self.refuse_wrong_by_kernel(&container)?;
                self.mount_by_kernel(&container, &target)?;
            }
            MountDriver::Auto(daemon) => self.mount_by_either(&container, &target, daemon)?,
        }
        Ok(target)
    }

    /// Mounts the container on its own directory until this process ends; `None` as the place
    /// where it is mounted out of reach.
    pub(super) fn mount_meanwhile(
        &self,
        container: &Container,
        daemon: &Path,
    ) -> Result<Option<Meanwhile>> {
        if let State::Mounted(places) = self.state(container)?
            && !self.daemon_is_gone(container, &places)?
        {
            return Ok(Meanwhile::mounted_before(places));
        }
        let held = self.hold(container, Hold::Exclusive)?;
        // Another command may have mounted it just now.
        if let State::Mounted(places) = self.state_to_mount(container, &held)? {
            return Ok(Meanwhile::mounted_before(places));
        }
        let failed = |error: io::Error| Error::std_io("make", "a pipe", &error);
        let (reader, writer) = io::pipe().map_err(failed)?;
        let place = self.default_mount_point(container);
        self.run_daemon(container, &place, daemon, Some(reader))?;
        Ok(Some(Meanwhile { place, held: Some(writer) }))
    }

    /// Where a container is to be mounted, on the directory that the caller named. Neither the
    /// store nor a part of it may lie below: nobody would find what is in it any more.
    fn mount_point(&self, dir: &Path) -> Result<PathBuf> {
        let dir = canonical_directory(dir)?;
        let root = self.layout.root();
        let root = std::fs::canonicalize(root)
            .map_err(|error| Error::std_io("open the store", root, &error))?;
        let hides = root.starts_with(&dir);
        if hides || dir.starts_with(&root) {
            let (dir, root) = (dir.display(), root.display());
            let why = if hides { "would be hidden" } else { "keeps its own there" };
            let why = format!("cannot mount on {dir}: the store {root} {why}");
            return Err(Error::Refused(why));
        }
        Ok(dir)
    }

    fn mount_by_either(&self, container: &Container, target: &Path, daemon: &Path) -> Result<()> {
        match self.kernel_lacks(container)? {
            Some(lack) => tracing::info!(%lack, "the daemon mounts it, not the kernel"),
            None => match self.mount_by_kernel(container, target) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::info!(%error, "the kernel refuses, the daemon mounts it"),
            },
        }
        self.run_daemon(container, target, daemon, None)
    }

    /// Starts the daemon; with a pipe it ends when that does.
    fn run_daemon(
        &self,
        container: &Container,
        target: &Path,
        daemon: &Path,
        until: Option<PipeReader>,
    ) -> Result<()> {
        let mut options = self.mount_options(container);
        if until.is_some() {
            options.push(",until_stdin_ends");
        }
        let output = Command::new(daemon)
            .arg(mount_source(&container.id))
            .arg(target)
            .arg("-o")
            .arg(options)
            // The options name everything relative to here.
            .current_dir(self.layout.root())
            .stdin(until.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| Error::std_io("run", daemon, &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("fuse-plyfs: ");
        let name = &container.name;
        Err(Error::Refused(match said {
            "" => format!("cannot mount container {name}: the daemon ended with {}", output.status),
            said => format!("cannot mount container {name}: {said}"),
        }))
    }

    /// The options of the mount. Paths are relative to the store, so that they consist of hex
    /// digits and slashes, which nothing has to escape, and 500 layers fit one argument.
    fn mount_options(&self, container: &Container) -> OsString {
        let relative = |path: PathBuf| match path.strip_prefix(self.layout.root()) {
            Ok(relative) => relative.as_os_str().to_owned(),
            Err(_) => path.into_os_string(),
        };
        let mut options = OsString::from("lowerdir=");
        for (i, lower) in self.lowers(container).into_iter().enumerate() {
            if i > 0 {
                options.push(":");
            }
            options.push(relative(lower));
        }
        options.push(",upperdir=");
        options.push(relative(self.layout.upper(&container.id)));
        options.push(",workdir=");
        options.push(relative(self.layout.work(&container.id)));
        options
    }
}

fn canonical_directory(dir: &Path) -> Result<PathBuf> {
    let dir = std::fs::canonicalize(dir)
        .map_err(|error| Error::std_io("open mount point", dir, &error))?;
    if !dir.is_dir() {
        return Err(Error::io("mount on", &dir, crate::error::Errno::NOTDIR));
    }
    Ok(dir)
}
