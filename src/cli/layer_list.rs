//! The options that name layers without a store.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::Args;

use crate::changeset::UpperDir;
use crate::error::{Error, Result};

/// Layers given as directories.
#[derive(Debug, Args)]
pub(super) struct LayerList {
    /// Directories of the read-only layers, topmost first; a colon in a name is written \:
    #[arg(long, value_name = "DIR[:DIR...]", conflicts_with = "container")]
    lowerdir: Option<OsString>,
    /// Directory of the writable layer
    #[arg(long, value_name = "DIR", requires = "lowerdir")]
    upperdir: Option<PathBuf>,
    /// Directory that the writable layer was mounted with as workdir; changed hard links of the
    /// read-only layers are complete only with it
    #[arg(long, value_name = "DIR", requires = "upperdir")]
    workdir: Option<PathBuf>,
    /// The writable layer was mounted with the option userxattr
    #[arg(long, requires = "upperdir")]
    userxattr: bool,
}

/// What a verb that takes either a container or layers is to work on.
pub(super) enum Subject {
    /// A container of the store.
    Container(String),
    /// Layers: the read-only ones topmost first, and the writable one.
    Layers { lowers: Vec<PathBuf>, upper: Option<UpperDir> },
}

impl LayerList {
    /// The container, where these options were not given. Clap has made sure that one is there.
    pub(super) fn or_container(self, container: Option<String>) -> Result<Subject> {
        match (self.lowerdir, container) {
            (Some(list), _) => {
                let lowers = split(&list)?;
                let (workdir, userxattr) = (self.workdir, self.userxattr);
                let upper = self.upperdir.map(|path| UpperDir { path, workdir, userxattr });
                Ok(Subject::Layers { lowers, upper })
            }
            (None, Some(container)) => Ok(Subject::Container(container)),
            (None, None) => Err(Error::option("CONTAINER", "or --lowerdir must be given")),
        }
    }
}

/// Splits at colons; a backslash takes the special meaning of the character after it.
fn split(list: &OsStr) -> Result<Vec<PathBuf>> {
    let mut paths = vec![Vec::new()];
    let mut bytes = list.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b':' => {
                paths.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next().unwrap_or(byte),
            byte => byte,
        };
        if let Some(path) = paths.last_mut() {
            path.push(*byte);
        }
    }
    if paths.iter().any(Vec::is_empty) {
        return Err(Error::option("--lowerdir", "an empty path is in the list"));
    }
    Ok(paths.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_and_unescaped() {
        let split = |list: &str| split(OsStr::new(list)).ok();
        assert_eq!(split("/a:b\\:c:d\\\\"), Some(vec!["/a".into(), "b:c".into(), "d\\".into()]));
        assert_eq!(split("/a::b"), None);
        assert_eq!(split(""), None);
    }
}
