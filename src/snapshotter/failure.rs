//! What went wrong with a verb, and the gRPC code by which containerd knows it.

use tonic::{Code, Status};

use crate::error::{Errno, Error};

/// The result of a verb.
pub type Outcome<T> = Result<T, Failure>;

/// Why a verb failed; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such snapshot.
    #[error("{0}")]
    NotFound(String),
    /// The key or name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// Not in the state that the snapshot is in.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The request makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// The disk, or the store on it.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Failure {
    pub(super) fn not_found(name: &str) -> Failure {
        Failure::NotFound(format!("snapshot {name}: not found"))
    }

    pub(super) fn taken(name: &str) -> Failure {
        Failure::AlreadyExists(format!("snapshot {name}: already exists"))
    }

    /// What is wrong with a snapshot that a verb was tried on.
    pub(super) fn state(name: &str, why: impl std::fmt::Display) -> Failure {
        Failure::FailedPrecondition(format!("snapshot {name}: {why}"))
    }

    pub(super) fn invalid(why: impl Into<String>) -> Failure {
        Failure::InvalidArgument(why.into())
    }

    fn code(&self) -> Code {
        match self {
            Failure::NotFound(_) => Code::NotFound,
            Failure::AlreadyExists(_) => Code::AlreadyExists,
            Failure::FailedPrecondition(_) => Code::FailedPrecondition,
            Failure::InvalidArgument(_) => Code::InvalidArgument,
            Failure::Store(Error::InUse { .. }) => Code::FailedPrecondition,
            Failure::Store(error) => match error.errno() {
                Errno::NOSPC | Errno::DQUOT => Code::ResourceExhausted,
                _ => Code::Internal,
            },
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        Status::new(failure.code(), failure.to_string())
    }
}
