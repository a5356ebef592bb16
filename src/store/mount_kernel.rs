//! The kernel's overlayfs as a container's driver: whether it would show what the daemon shows, told
//! by looking at the layers, and the mount.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use crate::error::{Errno, Error, Result};
use crate::image::ChainId;
use crate::layer::dialect::{self, LayerMarks};
use crate::layer::index::Index;
use crate::layer::xattrs::{Mark, Namespace};
use crate::sys::xattr::Target;
use crate::sys::{file, file_handle, overlayfs, process};

use super::Store;
use super::containers::{Container, mount_source};

/// What overlayfs lacks for a container.
#[derive(Debug)]
pub(super) enum Lack {
    /// It does not understand the marks of a layer.
    Marks(ChainId),
    /// It merges the roots of layers, whatever is marked on them.
    OpaqueRoot(ChainId),
    /// It does not understand what is at a place of the writable layer.
    UpperMarks(OsString),
    /// In a user namespace: renamed directories and copies of attributes alone, as at this place.
    Elsewhere(OsString),
    /// In a user namespace: the index of hard links.
    Index,
    /// The xattrs in which it keeps its marks, on the filesystem of the store.
    Xattrs,
    /// File handles, by which it keeps the names of a hard link together.
    Handles,
    /// The rights of root, without which it has no redirects, index and copies of attributes alone.
    Rights,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Marks(chain) => {
                write!(f, "overlayfs would not see all that layer {chain} deletes")
            }
            Lack::OpaqueRoot(chain) => write!(
                f,
                "layer {chain} hides everything below it by a mark on its root, which overlayfs \
                 does not heed"
            ),
            Lack::UpperMarks(place) => write!(
                f,
                "overlayfs would misread /{} in its writable layer",
                Path::new(place).display()
            ),
            Lack::Elsewhere(place) => write!(
                f,
                "in a user namespace overlayfs does not find what /{} in its writable layer leads to",
                Path::new(place).display()
            ),
            Lack::Index => {
                f.write_str("in a user namespace overlayfs parts the hard links that it has")
            }
            Lack::Xattrs => f.write_str("the filesystem of the store has no xattrs for overlayfs"),
            Lack::Handles => f.write_str(
                "without file handles, which the filesystem of the store does not have, overlayfs \
                 parts hard links",
            ),
            Lack::Rights => f.write_str(
                "without the rights of root overlayfs renames no directories of layers and parts \
                 hard links",
            ),
        }
    }
}

/// Where a mount by this process keeps its marks.
fn namespace() -> Namespace {
    match process::may_use_trusted_xattrs() {
        true => Namespace::Trusted,
        false => Namespace::User,
    }
}

impl Store {
    /// What the container needs of its driver that overlayfs, mounted by this process, does not
    /// have; the worst first.
    pub(super) fn kernel_lacks(&self, container: &Container) -> Result<Option<Lack>> {
        if let Some(lack) = self.kernel_shows_wrong(container)? {
            return Ok(Some(lack));
        }
        if namespace() == Namespace::User {
            return Ok(Some(Lack::Rights));
        }
        let upper = self.upper(container);
        let handle =
            file::open_root(&upper).and_then(|fd| file_handle::handle_at(fd, OsStr::new("")));
        match handle {
            Ok(_) => Ok(None),
            Err(Errno::OPNOTSUPP) => Ok(Some(Lack::Handles)),
            Err(errno) => Err(Error::io("read the file handle of", upper, errno)),
        }
    }

    /// Refuses a container of which overlayfs would show another tree than there is.
    pub(super) fn refuse_wrong_by_kernel(&self, container: &Container) -> Result<()> {
        match self.kernel_shows_wrong(container)? {
            None => Ok(()),
            Some(lack) => Err(refused(container, &lack)),
        }
    }

    fn kernel_shows_wrong(&self, container: &Container) -> Result<Option<Lack>> {
        let namespace = namespace();
        for (height, chain) in container.layers.iter().enumerate() {
            let marks = self.layer_marks(chain)?;
            if !marks.dialect.is_read_in(namespace) {
                return Ok(Some(Lack::Marks(*chain)));
            }
            if marks.opaque_root && height > 0 {
                return Ok(Some(Lack::OpaqueRoot(*chain)));
            }
        }
        self.upper_shown_wrong(container, namespace)
    }

    /// What the marks of a layer ask of readers, from its record; of one that was unpacked before
    /// that was noted, by looking.
    fn layer_marks(&self, chain: &ChainId) -> Result<LayerMarks> {
        if let Some(marks) = self.layer(chain)?.marks {
            return Ok(marks);
        }
        let tree = self.layout.layer_tree(chain);
        let survey = dialect::survey(&tree).map_err(|errno| Error::io("read", &tree, errno))?;
        Ok(survey.marks)
    }

    /// The writable layer is looked through: it may have been written by anybody's mount.
    fn upper_shown_wrong(
        &self,
        container: &Container,
        namespace: Namespace,
    ) -> Result<Option<Lack>> {
        let (upper, work) = (self.upper(container), self.layout.work(&container.id));
        let survey = dialect::survey(&upper).map_err(|errno| Error::io("read", &upper, errno))?;
        if !survey.marks.dialect.is_read_in(namespace) {
            let place = survey.odd.or(survey.first).unwrap_or_default();
            return Ok(Some(Lack::UpperMarks(place.into_os_string())));
        }
        if namespace == Namespace::User {
            if let Some(place) = survey.leads_elsewhere {
                return Ok(Some(Lack::Elsewhere(place.into_os_string())));
            }
            let index = Index::open_to_read(&work);
            if index.map_err(|errno| Error::io("read", &work, errno))?.is_used() {
                return Ok(Some(Lack::Index));
            }
        }
        let trial = file::open_root(&work).and_then(|fd| {
            namespace.set(Target::fd(&fd), Mark::Impure, b"y")?;
            namespace.remove(Target::fd(&fd), Mark::Impure)
        });
        match trial {
            Ok(()) => Ok(None),
            Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(Some(Lack::Xattrs)),
            Err(errno) => Err(Error::io("try xattrs on", work, errno)),
        }
    }

    /// The options are those that the daemon has by default: what the one writes the other
    /// understands. In a user namespace there are fewer.
    pub(super) fn mount_by_kernel(&self, container: &Container, target: &Path) -> Result<()> {
        let (lowers, upper) = (self.lowers(container), self.upper(container));
        let work = self.layout.work(&container.id);
        let lowers = lowers.iter().map(|lower| ("lowerdir+", lower.as_os_str()));
        let paths = [("upperdir", upper.as_os_str()), ("workdir", work.as_os_str())];
        let on = OsStr::new("on");
        let switches: &[(&str, &OsStr)] = match namespace() {
            Namespace::Trusted => &[("redirect_dir", on), ("index", on), ("metacopy", on)],
            Namespace::User => &[("userxattr", OsStr::new(""))],
        };
        let source = OsString::from(mount_source(&container.id));
        let options = lowers.chain(paths).chain(switches.iter().copied());
        overlayfs::mount(&source, target, options)
            .map_err(|errno| refused(container, &std::io::Error::from(errno)))
    }
}

fn refused(container: &Container, why: &dyn fmt::Display) -> Error {
    let name = &container.name;
    Error::Refused(format!(
        "cannot mount container {name} by the kernel's overlayfs: {why}; use --driver fuse"
    ))
}
