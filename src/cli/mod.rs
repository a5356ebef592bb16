//! The `plyfs` command: the clap tree, one file per group of verbs.
