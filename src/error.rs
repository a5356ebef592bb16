//! The error types, and the only mapping from an error to an errno.
//!
//! Two kinds of error exist. A file operation on a merged tree fails with a bare [`Errno`]: that
//! is what the caller of the filesystem sees, and nothing is allocated on that path. Everything
//! that a person started (a mount, a verb of `plyfs`) fails with [`Error`], which says what was
//! tried, on what, and why it failed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use rustix::io::Errno;

/// The result of a file operation: a value or the errno that its caller gets.
pub type FsResult<T> = Result<T, Errno>;

/// The result of something that a person started.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong with something that a person started; one clear line when displayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a path failed.
    #[error("cannot {action} {}: {}", path.display(), describe(*source))]
    Io {
        /// The action that failed, as a verb phrase: "open", "create directory".
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why it failed.
        source: Errno,
    },
    /// A mount option or command-line value that cannot be honoured.
    #[error("option {option}: {reason}")]
    Option {
        /// The option as the user wrote it, without its value where that is long.
        option: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// Input (an archive, a manifest, a record of the store) that is not what it claims to be.
    #[error("{what}: {reason}")]
    Invalid {
        /// The input: a file name, a blob, an entry of an archive.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A digest or size that does not match its content.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The object whose content is wrong.
        what: String,
        /// The digest or size that was promised.
        expected: String,
        /// The digest or size of what is there.
        found: String,
    },
    /// A named object does not exist.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// "image", "container", "layer".
        kind: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// A name is taken, or an object is in use.
    #[error("{what} is in use: {by}")]
    InUse {
        /// The object.
        what: String,
        /// What holds it.
        by: String,
    },
    /// A registry that cannot be reached, or does not do what it is asked for.
    #[error("registry {registry}: {reason}")]
    Registry {
        /// Its host, with the port where one was given.
        registry: String,
        /// What is wrong, and what can be done.
        reason: String,
    },
    /// A request that makes no sense in the present state.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// A failed system call on `path`.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: impl Into<Errno>) -> Self {
        Error::Io { action, path: path.as_ref().to_path_buf(), source: source.into() }
    }

    /// A failed operation of the standard library on `path`.
    pub fn std_io(action: &'static str, path: impl AsRef<Path>, source: &std::io::Error) -> Self {
        Error::io(action, path, errno_of(source))
    }

    /// An option that cannot be honoured.
    pub fn option(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Option { option: option.into(), reason: reason.into() }
    }

    /// Input that is not what it claims to be.
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Invalid { what: what.into(), reason: reason.into() }
    }

    /// A thread of ours that ended in a panic, which has said where on standard error.
    pub fn bug(what: &str) -> Self {
        Error::Refused(format!(
            "{what} ended in a panic, a bug of plyfs: please report what stands above"
        ))
    }

    /// The errno nearest to this error.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Io { source, .. } => *source,
            Error::Option { .. } | Error::Invalid { .. } | Error::Refused(_) => Errno::INVAL,
            Error::Mismatch { .. } => Errno::BADMSG,
            Error::Registry { .. } => Errno::REMOTEIO,
            Error::NotFound { .. } => Errno::NOENT,
            Error::InUse { .. } => Errno::BUSY,
        }
    }
}

/// The errno inside a standard library error; EIO where it carries none (a short read, say).
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// The system's words for an errno, in lower case and without the number.
fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// Whether `name` may name a directory entry: not empty, not `.` or `..`, without `/` and NUL.
///
/// # Errors
/// `ENAMETOOLONG` over 255 bytes (FUSE itself lets 1,024 through), `EINVAL` for the others.
pub fn check_name(name: &OsStr) -> FsResult<()> {
    let bytes = name.as_encoded_bytes();
    if bytes.len() > 255 {
        return Err(Errno::NAMETOOLONG);
    }
    match bytes {
        b"" | b"." | b".." => Err(Errno::INVAL),
        _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(Errno::INVAL),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_reads_as_one_plain_line() {
        let error = Error::io("open", "/no/where", Errno::NOENT);
        assert_eq!(error.to_string(), "cannot open /no/where: no such file or directory");
        assert_eq!(error.errno(), Errno::NOENT);
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(check_name(OsStr::new("a b\n")), Ok(()));
        assert_eq!(check_name(OsStr::new("..")), Err(Errno::INVAL));
        assert_eq!(check_name(OsStr::new("a/b")), Err(Errno::INVAL));
        assert_eq!(check_name(OsStr::new(&"x".repeat(256))), Err(Errno::NAMETOOLONG));
    }
}
