//! Redirects: where the lower part of a renamed directory lies (kernel format).
//!
//! The value of `overlay.redirect` is a path from the root of the layers (`/a/b`) or one name, a
//! sibling's in the same parent directory. It applies to the layers below the one that holds it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::error::{Errno, FsResult, check_name};

/// A validated redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// The components of a path from the root of the layers.
    Absolute(Vec<OsString>),
    /// A name in the same parent directory.
    Sibling(OsString),
}

/// The longest value that the kernel writes and reads (`OVL_REDIRECT_MAX`).
pub const MAX: usize = 256;

/// The longest value that we follow: `PATH_MAX`.
const LIMIT: usize = 4096;

impl Redirect {
    /// Reads the value of the xattr.
    ///
    /// # Errors
    /// `EINVAL` where it is empty or too long, or a component is empty, `.`, `..` or over-long:
    /// a crafted layer must not lead out of itself.
    pub fn parse(value: &[u8]) -> FsResult<Redirect> {
        if value.is_empty() || value.len() > LIMIT {
            return Err(Errno::INVAL);
        }
        match value.strip_prefix(b"/") {
            Some(path) => {
                let components: Vec<OsString> =
                    path.split(|b| *b == b'/').map(|c| OsString::from_vec(c.to_vec())).collect();
                for component in &components {
                    check_name(component).map_err(|_| Errno::INVAL)?;
                }
                Ok(Redirect::Absolute(components))
            }
            None => {
                let name = OsStr::from_bytes(value);
                check_name(name).map_err(|_| Errno::INVAL)?;
                Ok(Redirect::Sibling(name.to_owned()))
            }
        }
    }

    /// The value to write.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Redirect::Sibling(name) => name.as_bytes().to_vec(),
            Redirect::Absolute(components) => {
                let mut value = Vec::new();
                for component in components {
                    value.push(b'/');
                    value.extend_from_slice(component.as_bytes());
                }
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        for value in [&b"/a"[..], b"/a/b c/d", b"sibling", b"\xff\n"] {
            assert_eq!(Redirect::parse(value).unwrap().to_bytes(), value);
        }
    }

    #[test]
    fn values_that_lead_astray_are_refused() {
        let long = vec![b'x'; 5000];
        for value in [&b""[..], b"/", b"..", "/a/../b".as_bytes(), b"/a//b", b"a/b", b"/a/", &long]
        {
            assert_eq!(Redirect::parse(value), Err(Errno::INVAL), "{value:?}");
        }
    }
}
