//! Bytes to changesets and images and back; the only user of tar, gzip and zstd.

mod attributes;
mod contained;
mod marks;
pub mod oci_whiteout;
mod pax;
mod sparse;
pub mod tar_read;
mod tar_stream;
