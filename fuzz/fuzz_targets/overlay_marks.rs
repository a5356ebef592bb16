//! The values of overlay's own xattrs, the names of its index, and owners kept in xattrs.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use plyfs::layer::index::{Nlink, entry_name};
use plyfs::layer::origin::Origin;
use plyfs::layer::redirect::Redirect;
use plyfs::layer::xattrs;

fuzz_target!(|input: &[u8]| {
    plyfs::layer::stored_stat::fuzz_value(input);
    if let Ok(redirect) = Redirect::parse(input) {
        assert_eq!(redirect.to_bytes(), input);
        if let Redirect::Absolute(components) = redirect {
            assert!(components.iter().all(|name| name != ".." && name != "." && !name.is_empty()));
        }
    }
    if let Some(origin) = Origin::parse(input) {
        assert_eq!(Origin::parse(&origin.to_bytes()).as_ref(), Some(&origin));
        assert_eq!(entry_name(&origin).len(), input.len() * 2);
        drop(origin.inode_number());
    }
    if let Some(nlink) = Nlink::parse(input) {
        assert_eq!(Nlink::parse(&nlink.to_bytes()), Some(nlink));
    }
    let name = OsStr::from_bytes(input);
    let kept = xattrs::escape(name);
    if !xattrs::is_private(name) || kept != name {
        assert_eq!(xattrs::unescape(&kept).as_deref(), Some(name));
    }
});
