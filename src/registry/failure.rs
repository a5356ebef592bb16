//! What went wrong, in words that help; and whether to try again.

use oci_client::errors::{OciDistributionError as Failure, OciErrorCode as Code};

use crate::error::Error;
use crate::image::Remote;

/// The error of asking a registry for something of `remote`.
pub(super) fn explain(remote: &Remote, failure: &Failure) -> Error {
    let registry = remote.domain().to_owned();
    let refused = |reason: String| Error::Registry { registry: registry.clone(), reason };
    let missing = || Error::NotFound { kind: "image in the registry", name: remote.to_string() };
    let denied = || {
        refused(format!(
            "access to {} is denied: it does not exist, or needs plyfs login {registry}",
            remote.path()
        ))
    };
    match failure {
        Failure::ImageManifestNotFoundError(_) => missing(),
        Failure::UnauthorizedError { .. } => denied(),
        Failure::AuthenticationFailure(_) => refused(format!(
            "the credentials are refused: see plyfs login {registry}, or plyfs logout {registry} \
             where none are needed"
        )),
        Failure::RegistryError { envelope, .. } => match envelope.errors.first() {
            Some(first) => match first.code {
                Code::ManifestUnknown | Code::NameUnknown | Code::NotFound => missing(),
                Code::Unauthorized | Code::Denied => denied(),
                _ => refused(format!("{:?}: {}", first.code, first.message)),
            },
            None => refused("an error without a reason".to_owned()),
        },
        Failure::ServerError { code: 401 | 403, .. } => denied(),
        Failure::ServerError { code: 404, .. } => missing(),
        Failure::ServerError { code, message, .. } => {
            refused(format!("status {code}: {}", clipped(message)))
        }
        Failure::RequestError(error) => match error.status().map(|status| status.as_u16()) {
            Some(401 | 403) => denied(),
            Some(404) => missing(),
            _ if error.is_timeout() => refused("it does not answer in time".to_owned()),
            _ if error.is_connect() => refused(format!("it cannot be reached: {}", root(error))),
            _ => refused(chain(failure)),
        },
        failure => refused(chain(failure)),
    }
}

/// Whether we are not let in as who we said that we are.
pub(super) fn is_refused_token(failure: &Failure) -> bool {
    match failure {
        Failure::UnauthorizedError { .. } => true,
        Failure::ServerError { code, .. } => *code == 401,
        Failure::RequestError(error) => error.status().is_some_and(|status| status.as_u16() == 401),
        Failure::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|error| error.code == Code::Unauthorized)
        }
        _ => false,
    }
}

/// Whether the same may succeed a moment later.
pub(super) fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::RequestError(error) => match error.status() {
            Some(status) => status.is_server_error() || status.as_u16() == 429,
            None => !error.is_builder() && !error.is_redirect(),
        },
        Failure::IoError(_) => true,
        Failure::ServerError { code, .. } => *code >= 500 || *code == 429,
        Failure::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|error| error.code == Code::Toomanyrequests)
        }
        _ => false,
    }
}

/// What caused an error in the first place.
fn root(mut error: &dyn std::error::Error) -> String {
    while let Some(cause) = error.source() {
        error = cause;
    }
    clipped(&error.to_string())
}

/// An error with all that caused it: the cause of a failed connection stands at the end.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    clipped(&text)
}

/// The start of a text that may be long and hostile, on one line.
fn clipped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}
