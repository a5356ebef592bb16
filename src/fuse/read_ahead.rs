//! How far the kernel reads ahead in files that it does not pass through.
//!
//! A filesystem gets the default of its kind, 128 KiB; each request can carry eight times that,
//! and fewer requests are what makes a cold read fast. Only the administrator may set it.

use std::path::Path;

use super::buffer::MAX_DATA;
use crate::error::FsResult;
use crate::sys::stat::device_as_known;

/// Lets the kernel read ahead as much as one request carries in files of the mount at `target`.
/// Where that is not permitted the default stays.
pub(super) fn widen(target: &Path) {
    if let Err(errno) = try_widen(target) {
        tracing::debug!("read-ahead keeps its default: {errno}");
    }
}

fn try_widen(target: &Path) -> FsResult<()> {
    // The mount table would tell it, too, but a busy host has hundreds of lines in it.
    let (major, minor) = device_as_known(target)?;
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    std::fs::write(setting, (MAX_DATA / 1024).to_string())
        .map_err(|error| crate::error::errno_of(&error))
}
