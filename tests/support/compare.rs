//! The difference of two snapshots, in words.

use super::snapshot::{Entry, Kind, Snapshot};

/// What counts when two trees are compared; type, mode, owner, content, targets and device
/// numbers always do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Modification times of everything but directories, in nanoseconds.
    pub(crate) mtime: bool,
    /// Modification times of directories.
    pub(crate) dir_mtime: bool,
    /// Link counts of everything but directories.
    pub(crate) nlink: bool,
    /// Which names are one inode.
    pub(crate) hard_links: bool,
    /// Extended attributes.
    pub(crate) xattrs: bool,
    /// Inode numbers.
    pub(crate) ino: bool,
}

impl Policy {
    /// Two views of one tree at different moments, by one implementation.
    pub(crate) const SAME_TREE: Policy = Policy { ino: false, ..Policy::EXACT };
    /// All there is.
    pub(crate) const EXACT: Policy = Policy {
        mtime: true,
        dir_mtime: true,
        nlink: true,
        hard_links: true,
        xattrs: true,
        ino: true,
    };
    /// Two trees that were made by the same operations at different times.
    pub(crate) const SAME_CONTENT: Policy = Policy {
        mtime: false,
        dir_mtime: false,
        nlink: true,
        hard_links: true,
        xattrs: true,
        ino: false,
    };
}

/// Stops the test with a readable list where the trees differ.
pub(crate) fn assert_same(
    left_name: &str,
    left: &Snapshot,
    right_name: &str,
    right: &Snapshot,
    policy: Policy,
) {
    let found = differences(left_name, left, right_name, right, policy);
    if !found.is_empty() {
        let shown = found.iter().take(40).cloned().collect::<Vec<_>>().join("\n  ");
        panic!("{left_name} and {right_name} differ in {} places:\n  {shown}", found.len());
    }
}

/// One line for each difference; empty where the trees are the same.
pub(crate) fn differences(
    left_name: &str,
    left: &Snapshot,
    right_name: &str,
    right: &Snapshot,
    policy: Policy,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, entry) in &left.entries {
        match right.entries.get(path) {
            None => found.push(format!("/{}: only in {left_name}", path.display())),
            Some(other) => {
                for (what, one, two) in fields(entry, other, policy) {
                    let path = path.display();
                    found.push(format!("/{path}: {what}: {left_name} {one}, {right_name} {two}"));
                }
            }
        }
    }
    for path in right.entries.keys().filter(|path| !left.entries.contains_key(*path)) {
        found.push(format!("/{}: only in {right_name}", path.display()));
    }
    found
}

type Field = (&'static str, String, String);

fn fields(one: &Entry, two: &Entry, policy: Policy) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut differ = |what, a: String, b: String| {
        if a != b {
            fields.push((what, a, b));
        }
    };
    let is_dir = one.kind == Kind::Dir;
    differ("kind", format!("{:?}", one.kind), format!("{:?}", two.kind));
    differ("mode", format!("{:04o}", one.mode), format!("{:04o}", two.mode));
    differ("owner", format!("{}:{}", one.uid, one.gid), format!("{}:{}", two.uid, two.gid));
    if if is_dir { policy.dir_mtime } else { policy.mtime } {
        differ("mtime", one.mtime.to_string(), two.mtime.to_string());
    }
    if policy.nlink && !is_dir {
        differ("nlink", one.nlink.to_string(), two.nlink.to_string());
    }
    if policy.hard_links {
        differ("same inode as", format!("{:?}", one.same_as), format!("{:?}", two.same_as));
    }
    if policy.xattrs {
        differ("xattrs", shown_xattrs(one), shown_xattrs(two));
    }
    if policy.ino {
        differ("inode", one.ino.to_string(), two.ino.to_string());
    }
    fields
}

fn shown_xattrs(entry: &Entry) -> String {
    let shown = entry.xattrs.iter().map(|(name, value)| {
        let name = name.display();
        format!("{name}=\"{}\"", value.escape_ascii())
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
}
