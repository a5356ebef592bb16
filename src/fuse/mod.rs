//! The kernel's FUSE protocol: decode a request, make one overlay call, reply.
//!
//! | file | what it holds |
//! |---|---|
//! | `abi` | the wire format |
//! | `channel`, `buffer` | the device, and the buffers of a serving thread |
//! | `request`, `reply` | bytes to operations, results to bytes |
//! | `negotiate` | INIT: what the kernel and we agree on |
//! | `adapter` | one overlay call for each operation |
//! | `passthrough` | which open files the kernel serves by itself |
//! | `readers` | what those who read directories are given along with names |
//! | `notify` | telling the kernel of changes |
//! | `mount` | on and off the mountpoint |
//! | `join` | a second mount of a live upper |
//! | `session` | one mount from INIT to its end |
//! | `workers` | the serving threads |
//! | `stats`, `control`, `log` | figures, asking a daemon for them, what it logs |
//! | `daemon` | foreground, background, signals |
//!
//! Locks: the shards of `passthrough` are the only ones here; no overlay call is made under one.

mod abi;
mod adapter;
mod buffer;
mod channel;
pub mod control;
pub mod daemon;
mod duty;
mod join;
pub mod log;
mod look_ahead;
mod mount;
mod negotiate;
mod notify;
mod passthrough;
mod read_ahead;
mod readers;
pub mod remount;
mod reply;
mod request;
mod session;
pub mod stats;
mod wakeful;
mod workers;

pub use notify::Notifier;
#[cfg(fuzzing)]
pub use request::fuzz_request;
pub use session::{Observer, Session, Stopper};
