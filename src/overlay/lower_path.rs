//! Where the merged view of the lowers alone has a file: what a redirect must say.
//!
//! That is neither the path that users see (the upper may have renamed any directory on it) nor
//! the path within the layer that holds the file (a layer above that one may have renamed a
//! directory and hidden its old name). Lowers do not change, so a directory's path among them
//! stays the same as long as the mount lives.

use std::sync::Arc;

use super::Name;
use super::layer_dir::name_of;
use crate::layer::redirect::Redirect;

/// A path in the merged lowers; their root is `None`.
#[derive(Debug)]
pub struct LowerPath {
    parent: Option<Arc<LowerPath>>,
    name: Name,
}

impl LowerPath {
    /// The path of `name` in `parent`, unless the upper redirects it elsewhere.
    pub fn child(
        parent: Option<&Arc<LowerPath>>,
        name: &Name,
        redirect: Option<&Redirect>,
    ) -> Option<Arc<LowerPath>> {
        let below = |parent: Option<Arc<LowerPath>>, name| Some(Arc::new(Self { parent, name }));
        match redirect {
            None => below(parent.cloned(), name.clone()),
            Some(Redirect::Sibling(other)) => below(parent.cloned(), name_of(other)),
            Some(Redirect::Absolute(path)) => {
                path.iter().fold(None, |parent, name| below(parent, name_of(name)))
            }
        }
    }

    /// The redirect that leads there.
    pub fn redirect(&self) -> Redirect {
        let mut names = vec![self.name.to_os_string()];
        let mut above = self.parent.as_deref();
        while let Some(path) = above {
            names.push(path.name.to_os_string());
            above = path.parent.as_deref();
        }
        names.reverse();
        Redirect::Absolute(names)
    }
}
