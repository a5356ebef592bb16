//! What one tree on disk means; knows nothing of merging.
