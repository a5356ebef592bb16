//! Mount calls.
