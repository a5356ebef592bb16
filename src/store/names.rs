//! Names of containers.

use crate::error::{Error, Result};

use super::containers::Container;

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

/// Refuses a name that is taken.
pub(super) fn check_free(name: &str, containers: &[Container]) -> Result<()> {
    match containers.iter().find(|container| container.name == name) {
        None => Ok(()),
        Some(container) => Err(Error::InUse {
            what: format!("the name {name}"),
            by: format!("container {}", container.id.short()),
        }),
    }
}

/// A name that no container has.
pub(super) fn random(containers: &[Container]) -> Result<String> {
    loop {
        let mut bytes = [0; 4];
        crate::sys::random::fill(&mut bytes)
            .map_err(|errno| Error::io("read", "random bytes", errno))?;
        let [a, b, c, d] = bytes;
        let pick = |list: &[&'static str], byte: u8| {
            list.get(usize::from(byte) % list.len()).copied().unwrap_or_default()
        };
        // With a growing crowd of containers the bare pairs run out; the number never does.
        let number = match containers.len() {
            0..=500 => String::new(),
            _ => u16::from_be_bytes([c, d]).to_string(),
        };
        let name = format!("{}_{}{number}", pick(&FIRST, a), pick(&SECOND, b));
        if check_free(&name, containers).is_ok() {
            return Ok(name);
        }
    }
}
