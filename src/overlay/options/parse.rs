//! Reading `-o` strings.
//!
//! Options are separated by commas; an empty one means nothing. In a value `\,` is a comma, `\:`
//! a colon that separates nothing, and `\\` a backslash; a value that starts with a double quote
//! runs to the next one (SELinux labels contain commas). A later option overrides an earlier.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use super::{CpuLatencyPolicy, IdRange, Options, PassthroughPolicy, RedirectDir, UpperOption};
use crate::error::{Error, Result};

/// Options of other drivers and of libfuse that change nothing here: either always so, never
/// so, or a hint.
const IGNORED: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "default_permissions",
    "fsync",
    "fast_ino",
    "writeback",
    "plugins",
    "ino32_t",
    "clone_fd",
    "max_idle_threads",
    "auto_unmount",
    "nonempty",
    "big_writes",
    "auto_cache",
    "kernel_cache",
    "direct_io",
    "hard_remove",
    "intr",
    "large_read",
    "max_read",
    "max_write",
    "splice_read",
    "splice_write",
    "splice_move",
    "lazytime",
    "nolazytime",
    "uuid",
];

impl Options {
    /// Reads the values of one or several `-o`. Paths stay as they were written.
    ///
    /// # Errors
    /// An option whose value makes no sense, or that needs another one. An option that is not
    /// known is only warned about.
    pub fn parse<S: AsRef<OsStr>>(strings: impl IntoIterator<Item = S>) -> Result<Options> {
        let mut options = Options::default();
        let mut upper = UpperParts::default();
        for string in strings {
            for option in split(string.as_ref().as_bytes(), b',') {
                if !option.is_empty() {
                    options.apply(option, &mut upper)?;
                }
            }
        }
        options.finish(upper)
    }

    /// Whether one option, as it would be given, is known and its value makes sense.
    pub fn knows(option: &str) -> bool {
        let applied = Options::default().apply_known(option.as_bytes(), &mut UpperParts::default());
        applied.unwrap_or(false)
    }

    fn apply(&mut self, option: &[u8], upper: &mut UpperParts) -> Result<()> {
        if !self.apply_known(option, upper)? {
            let name = option.split(|byte| *byte == b'=').next().unwrap_or_default();
            tracing::warn!("option {}: not known, ignored", String::from_utf8_lossy(name));
        }
        Ok(())
    }

    fn apply_known(&mut self, option: &[u8], upper: &mut UpperParts) -> Result<bool> {
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (option.get(..at), option.get(at + 1..)),
            None => (Some(option), None),
        };
        let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        let given = Given { name: &name, value };
        Ok(self.apply_layers(&given, upper)?
            || self.apply_owners(&given)?
            || self.apply_behaviour(&given)?
            || self.apply_mount(&given)?
            || IGNORED.contains(&given.name))
    }

    fn apply_layers(&mut self, given: &Given<'_>, upper: &mut UpperParts) -> Result<bool> {
        match given.name {
            "lowerdir" => self.lowerdirs = lowerdirs(given)?,
            "upperdir" => upper.upperdir = Some(given.path()?),
            "workdir" => upper.workdir = Some(given.path()?),
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "volatile" => self.volatile = true,
            "redirect_dir" => self.redirect_dir = redirect_dir(given)?,
            "metacopy" => self.metacopy = Some(given.switch()?),
            "index" => self.index = Some(given.switch()?),
            "xino" => self.xino = if given.is("auto") { None } else { Some(given.switch()?) },
            "userxattr" => self.userxattr = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn apply_owners(&mut self, given: &Given<'_>) -> Result<bool> {
        match given.name {
            "uidmapping" => self.uid_map = id_ranges(given)?,
            "gidmapping" => self.gid_map = id_ranges(given)?,
            "squash_to_root" => self.squash_to_root = given.switch()?,
            "squash_to_uid" => self.squash_to_uid = Some(given.number()?),
            "squash_to_gid" => self.squash_to_gid = Some(given.number()?),
            "xattr_permissions" => {
                self.xattr_permissions = given.number()?;
                if self.xattr_permissions > 2 {
                    return Err(given.wrong("must be 0, 1 or 2"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn apply_behaviour(&mut self, given: &Given<'_>) -> Result<bool> {
        match given.name {
            "static_nlink" => self.static_nlink = given.switch()?,
            "noacl" => self.noacl = true,
            "noxattrs" => self.noxattrs = given.switch()?,
            "timeout" => self.timeout = Some(timeout(given)?),
            "threaded" => self.threads = if given.switch()? { None } else { Some(1) },
            "max_threads" => match given.number()? {
                0 => return Err(given.wrong("must be at least 1")),
                threads => self.threads = Some(threads),
            },
            "look_ahead" => self.no_look_ahead = !given.switch()?,
            "stats_socket" => self.stats_socket = Some(given.path()?),
            "log_level" => self.log_level = Some(given.text()?),
            "debug" => self.log_level = Some("debug".to_owned()),
            "passthrough" => {
                self.passthrough = match given.text()?.as_str() {
                    "auto" => PassthroughPolicy::Auto,
                    "off" => PassthroughPolicy::Off,
                    "all" => PassthroughPolicy::All,
                    _ => return Err(given.wrong("must be auto, off or all")),
                }
            }
            "cpu_latency" => {
                self.cpu_latency = match given.text()?.as_str() {
                    "auto" => CpuLatencyPolicy::Auto,
                    "off" => CpuLatencyPolicy::Off,
                    number => number.parse().map(CpuLatencyPolicy::Most).map_err(|_| {
                        given.wrong("must be auto, off or a number of microseconds")
                    })?,
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn apply_mount(&mut self, given: &Given<'_>) -> Result<bool> {
        let mount = &mut self.mount;
        match given.name {
            "fsname" => mount.fsname = Some(given.text()?),
            "subtype" => mount.subtype = Some(given.text()?),
            "join" => mount.join = given.switch()?,
            "until_stdin_ends" => mount.until_stdin_ends = given.switch()?,
            "allow_other" => mount.allow_other = Some(true),
            "allow_root" => mount.allow_root = true,
            "context" => mount.context = Some(given.text()?),
            "suid" | "nosuid" => mount.nosuid = given.negated(),
            "dev" | "nodev" => mount.nodev = given.negated(),
            "exec" | "noexec" => mount.noexec = given.negated(),
            "atime" | "noatime" => mount.noatime = given.negated(),
            "diratime" | "nodiratime" => mount.nodiratime = given.negated(),
            "relatime" | "norelatime" => mount.relatime = !given.negated(),
            "strictatime" | "nostrictatime" => mount.strictatime = !given.negated(),
            "sync" | "async" => mount.sync = given.name == "sync",
            "dirsync" => mount.dirsync = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(mut self, upper: UpperParts) -> Result<Options> {
        if self.lowerdirs.is_empty() {
            return Err(Error::option("lowerdir", LOWERDIR_NEEDED));
        }
        self.upper = match (upper.upperdir, upper.workdir) {
            (Some(upperdir), Some(workdir)) => Some(UpperOption { upperdir, workdir }),
            (Some(_), None) => {
                return Err(Error::option("workdir", "must be given with upperdir"));
            }
            // Without an upper nothing is prepared anywhere.
            (None, _) => None,
        };
        if self.mount.join && self.mount.until_stdin_ends {
            return Err(Error::option(
                "until_stdin_ends",
                "cannot be together with join, whose mount goes on",
            ));
        }
        self.read_only |= self.upper.is_none();
        Ok(self)
    }
}

/// The two halves of an upper while they are collected.
#[derive(Default)]
struct UpperParts {
    upperdir: Option<PathBuf>,
    workdir: Option<PathBuf>,
}

/// One option as it was written.
struct Given<'a> {
    name: &'a str,
    value: Option<&'a [u8]>,
}

impl Given<'_> {
    fn wrong(&self, reason: &str) -> Error {
        match self.value {
            Some(value) => {
                let value = String::from_utf8_lossy(value);
                Error::option(self.name, format!("{reason}, not \"{value}\""))
            }
            None => Error::option(self.name, reason),
        }
    }

    fn is(&self, value: &str) -> bool {
        self.value == Some(value.as_bytes())
    }

    /// Whether the name is the `no` form.
    fn negated(&self) -> bool {
        self.name.starts_with("no")
    }

    /// The value, unquoted and unescaped; not empty.
    fn bytes(&self) -> Result<Vec<u8>> {
        match self.value.map(unescape) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(Error::option(self.name, "needs a value")),
        }
    }

    fn path(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(OsString::from_vec(self.bytes()?)))
    }

    fn text(&self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| self.wrong("must be UTF-8"))
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T> {
        self.text()?.trim().parse().map_err(|_| self.wrong("must be a number"))
    }

    /// On where nothing is said.
    fn switch(&self) -> Result<bool> {
        match self.value {
            None | Some(b"on" | b"1" | b"true" | b"yes") => Ok(true),
            Some(b"off" | b"0" | b"false" | b"no") => Ok(false),
            Some(_) => Err(self.wrong("must be on or off")),
        }
    }
}

const LOWERDIR_NEEDED: &str = "must be given: DIR[:DIR...], topmost first";

fn lowerdirs(given: &Given<'_>) -> Result<Vec<PathBuf>> {
    let value = given.value.unwrap_or_default();
    if value.is_empty() {
        return Err(Error::option(given.name, LOWERDIR_NEEDED));
    }
    let mut paths = Vec::new();
    for part in split(value, b':') {
        let path = unescape(part);
        if path.is_empty() {
            return Err(Error::option(given.name, "needs a path on both sides of each colon"));
        }
        paths.push(PathBuf::from(OsString::from_vec(path)));
    }
    Ok(paths)
}

fn redirect_dir(given: &Given<'_>) -> Result<RedirectDir> {
    match given.value {
        None | Some(b"on" | b"default") => Ok(RedirectDir::On),
        Some(b"off" | b"follow") => Ok(RedirectDir::Follow),
        Some(b"nofollow") => Ok(RedirectDir::NoFollow),
        Some(_) => Err(given.wrong("must be on, off, follow or nofollow")),
    }
}

fn timeout(given: &Given<'_>) -> Result<Duration> {
    let seconds: f64 = given.number()?;
    if seconds.is_nan() || seconds < 0.0 {
        return Err(given.wrong("must be a number of seconds"));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Triples `inside:outside:count`, all in one row; colons around them are allowed.
fn id_ranges(given: &Given<'_>) -> Result<Vec<IdRange>> {
    const SHAPE: &str = "must be DISK:SHOWN:COUNT[:...]";
    let text = given.text()?;
    let numbers: Vec<u32> = text
        .split(':')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_err(|_| given.wrong(SHAPE)))
        .collect::<Result<_>>()?;
    let mut ranges = Vec::new();
    for triple in numbers.chunks(3) {
        let &[outside, inside, count] = triple else { return Err(given.wrong(SHAPE)) };
        if inside.checked_add(count).is_none() || outside.checked_add(count).is_none() {
            return Err(given.wrong("must stay below 4294967296"));
        }
        ranges.push(IdRange { inside, outside, count });
    }
    Ok(ranges)
}

/// Splits at each `separator` that is neither escaped nor inside a quoted value.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut escaped = false;
    let mut quoted = false;
    let mut before = 0;
    text.split(move |byte| {
        let literal = std::mem::take(&mut escaped);
        let after_equals = std::mem::replace(&mut before, *byte) == b'=';
        match byte {
            _ if literal => {}
            b'\\' => escaped = true,
            b'"' if quoted => quoted = false,
            b'"' if after_equals => quoted = true,
            _ if *byte == separator && !quoted => return true,
            _ => {}
        }
        false
    })
}

/// Takes the quotes off, and the backslash before each escaped character.
fn unescape(text: &[u8]) -> Vec<u8> {
    let inner = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let mut plain = Vec::with_capacity(text.len());
    let mut escaped = false;
    for byte in inner.unwrap_or(text) {
        if *byte == b'\\' && !escaped {
            escaped = true;
            continue;
        }
        // Before anything else a backslash is just that.
        if escaped && !matches!(byte, b'\\' | b',' | b':') {
            plain.push(b'\\');
        }
        escaped = false;
        plain.push(*byte);
    }
    if escaped {
        plain.push(b'\\');
    }
    plain
}
