//! Bytes to changesets and images and back; the only user of tar, gzip and zstd.
