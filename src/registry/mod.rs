//! Registries: pull and push by the OCI distribution protocol, and whom they let in.
//!
//! The protocol itself (tokens, uploads, redirects) is the crate `oci-client`'s; what is asked
//! for, in which order, what is believed and what is kept is decided here. Nothing that a
//! registry sends is believed: manifests, configs and layers are checked against the digests
//! that lead to them, and only the digest of what a tag means is taken on trust.
//!
//! | file | what it decides |
//! |---|---|
//! | `connection` | how a registry is reached: https, http, certificates, retries |
//! | `credentials` | who we are there: docker's and podman's files, credential helpers |
//! | `login` | what login and logout write to them |
//! | `manifests` | which manifest a name means on this machine |
//! | `fetch` | how a layer comes, and goes on where it broke off |
//! | `pull`, `push` | the verbs |
//! | `failure` | what went wrong, in words that help |

mod connection;
mod credentials;
mod failure;
mod fetch;
mod login;
mod manifests;
mod pull;
mod push;

use std::path::PathBuf;

pub use credentials::Credentials;
#[cfg(fuzzing)]
pub use credentials::fuzz_credentials;
pub use login::{Login, login, logout};
pub use pull::{Pulled, pull};
pub use push::{Pushed, push};

/// How many layers are downloaded or uploaded at once.
const PARALLEL: usize = 6;

/// How a registry is to be reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Whether certificates are checked, and plain http is refused. `None`: unless the registry
    /// is on this machine.
    pub tls_verify: Option<bool>,
    /// A directory with certificates (`*.crt`) that are trusted besides the system's.
    pub cert_dir: Option<PathBuf>,
    /// The file with credentials, instead of those of docker and podman.
    pub authfile: Option<PathBuf>,
    /// Credentials that were given on the command line.
    pub credentials: Option<Credentials>,
}
