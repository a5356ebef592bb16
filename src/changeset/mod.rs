//! The difference of two trees, independent of tar.
