//! Names of containers.
//!
//! A container's record says what it is called. So that none but that one has to be read to find
//! it, `names/NAME` leads to its directory. The link is made before the name is given, and removed
//! after it was taken away: whatever has a name has its link, and a link that leads to what has
//! another name, or is gone, counts for nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Errno, Error, Result, errno_of};

use super::containers::{Container, ContainerId};
use super::lock::Exclusive;
use super::transaction::entries;
use super::{Store, durable};

const FIRST: [&str; 48] = [
    "amber", "ample", "balmy", "bold", "brisk", "calm", "clear", "cosy", "crisp", "deft", "eager",
    "early", "fair", "fleet", "fond", "fresh", "gentle", "glad", "grand", "hardy", "hazel",
    "honest", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "neat",
    "noble", "plain", "polite", "proud", "quick", "quiet", "rapid", "ready", "rosy", "sharp",
    "sleek", "solid", "sunny", "swift", "tidy", "warm", "witty",
];

const SECOND: [&str; 48] = [
    "acacia", "alder", "apple", "ash", "aspen", "balsa", "bamboo", "banyan", "beech", "birch",
    "cedar", "cherry", "chestnut", "cork", "cypress", "ebony", "elder", "elm", "fig", "fir",
    "hazelnut", "hickory", "holly", "juniper", "larch", "laurel", "lime", "linden", "mahogany",
    "maple", "meranti", "oak", "okoume", "olive", "palm", "pear", "pine", "plane", "plum",
    "poplar", "rowan", "spruce", "sycamore", "tamarind", "teak", "walnut", "willow", "yew",
];

/// The most characters of a name, so that it fits wherever file names do.
const LENGTH_MAX: usize = 128;

/// Refuses what podman would refuse as a name; docker wants two characters at least.
pub(super) fn check(name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if (1..=LENGTH_MAX).contains(&name.len()) && starts_well && name.bytes().all(allowed) {
        return Ok(());
    }
    let why = format!(
        "{name:?} is not a container name: 1 to {LENGTH_MAX} letters, digits, _ . -, \
         starting with a letter or digit"
    );
    Err(Error::option("--name", why))
}

impl Store {
    /// The container of that name. The store must be locked.
    pub(super) fn named(&self, name: &str) -> Result<Option<Container>> {
        if check(name).is_err() {
            return Ok(None);
        }
        let Some(id) = linked(&self.layout.name(name))? else { return Ok(None) };
        Ok(self.read_container(&id)?.filter(|container| container.name == name))
    }

    /// Whether the container's name leads to it.
    pub(super) fn is_linked(&self, container: &Container) -> Result<bool> {
        Ok(linked(&self.layout.name(&container.name))? == Some(container.id))
    }

    /// Refuses a name that is taken. The store must be locked.
    pub(super) fn check_free(&self, name: &str) -> Result<()> {
        match self.named(name)? {
            None => Ok(()),
            Some(container) => Err(Error::InUse {
                what: format!("the name {name}"),
                by: format!("container {}", container.id.short()),
            }),
        }
    }

    /// A name that no container has. The store must be locked.
    pub(super) fn free_name(&self) -> Result<String> {
        let mut tries = 0;
        loop {
            // With a growing crowd of containers the bare pairs run out; numbered, they never do.
            let name = random(tries >= 3)?;
            if self.named(&name)?.is_none() {
                return Ok(name);
            }
            tries += 1;
        }
    }

    /// Makes `name`, which must be free, lead to a container that is about to get it.
    pub(super) fn link_name(&self, name: &str, id: &ContainerId, _: &Exclusive) -> Result<()> {
        let link = self.layout.name(name);
        let target = Path::new("../containers").join(id.hex());
        match durable::symlink(&target, &link) {
            // It led to a container that is gone or called otherwise.
            Err(Error::Io { source: Errno::EXIST, .. }) => {
                durable::remove_all(&link)?;
                durable::symlink(&target, &link)?;
            }
            other => other?,
        }
        durable::sync_dir(&self.layout.names())
    }

    /// Removes the link of a name that its container has no more. One that stays for a crash
    /// leads to nothing.
    pub(super) fn unlink_name(&self, name: &str, _: &Exclusive) -> Result<()> {
        durable::remove_all(&self.layout.name(name))
    }

    /// The links that do not lead to a container of their name.
    pub(super) fn stale_names(&self) -> Result<Vec<PathBuf>> {
        let mut stale = Vec::new();
        for link in entries(&self.layout.names())? {
            let name = link.file_name().unwrap_or_default().to_string_lossy();
            // What cannot be read is named elsewhere; it may have this name.
            if matches!(self.named(&name), Ok(None)) {
                stale.push(link);
            }
        }
        Ok(stale)
    }

    /// Makes the names of these containers lead to them where they do not. Of two that have one
    /// name, as no command makes them, the first keeps it.
    pub(super) fn link_names(&self, all: &[Container], exclusive: &Exclusive) -> Result<()> {
        for container in all {
            if check(&container.name).is_ok() && self.named(&container.name)?.is_none() {
                self.link_name(&container.name, &container.id, exclusive)?;
            }
        }
        Ok(())
    }
}

/// The id of the container that a link leads to; `None` where there is no such link.
fn linked(link: &Path) -> Result<Option<ContainerId>> {
    match std::fs::read_link(link) {
        Ok(target) => Ok(target.file_name().and_then(OsStr::to_str).and_then(ContainerId::parse)),
        Err(error) if matches!(errno_of(&error), Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(Error::std_io("read", link, &error)),
    }
}

/// A name that nobody chose, with a number behind it if that is wanted.
fn random(numbered: bool) -> Result<String> {
    let mut bytes = [0; 4];
    crate::sys::random::fill(&mut bytes)
        .map_err(|errno| Error::io("read", "random bytes", errno))?;
    let [a, b, c, d] = bytes;
    let pick = |list: &[&'static str], byte: u8| {
        list.get(usize::from(byte) % list.len()).copied().unwrap_or_default()
    };
    let number = if numbered { u16::from_be_bytes([c, d]).to_string() } else { String::new() };
    Ok(format!("{}_{}{number}", pick(&FIRST, a), pick(&SECOND, b)))
}
