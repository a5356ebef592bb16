//! Images, layers and containers on disk.
