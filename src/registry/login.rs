//! `login` and `logout`: what is written to docker's or podman's file, or to a credential helper.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci_client::secrets::RegistryAuth;
use serde_json::{Map, Value, json};

use super::Access;
use super::connection::{Connection, Operation};
use super::credentials::{self, Credentials, server_of};
use super::failure::explain;
use crate::error::{Errno, Error, Result, errno_of};
use crate::image::Remote;

/// Where a login was written to.
#[derive(Debug)]
pub enum Login {
    /// A file, in which the password stands as good as open.
    File(PathBuf),
    /// A credential helper.
    Helper(String),
}

/// Asks `registry` whether it lets `credentials` in, and keeps them where it does.
///
/// # Errors
/// Where the registry cannot be reached or refuses them, or they cannot be written.
pub fn login(registry: &str, credentials: &Credentials, access: &Access) -> Result<Login> {
    // Any name will do: a registry asks who we are before it says that there is no such thing.
    let remote = remote_of(registry)?;
    let Credentials { username, password } = credentials.clone();
    let auth = RegistryAuth::Basic(username, password);
    let connection = Connection::open_as(&remote, access, Operation::Pull, &auth)?;
    let repository = connection.repository();
    let asked = connection.client.list_tags(&repository, &auth, Some(1), None);
    if let Err(failure) = connection.wait(asked) {
        match explain(&remote, &failure) {
            Error::NotFound { .. } => {}
            _ if matches!(is_refusal(&failure), Some(false)) => {}
            Error::Registry { registry, .. } => {
                let reason = "the user or the password is wrong".to_owned();
                return Err(Error::Registry { registry, reason });
            }
            error => return Err(error),
        }
    }
    let path = credentials::file_to_write(access)?;
    let mut file = read(&path)?;
    match helper_of(&file, remote.domain()) {
        Some(helper) => {
            let entry = json!({
                "ServerURL": server_of(remote.domain()),
                "Username": credentials.username,
                "Secret": credentials.password,
            });
            tell(&helper, "store", entry.to_string().as_bytes())?;
            Ok(Login::Helper(helper))
        }
        None => {
            let text = format!("{}:{}", credentials.username, credentials.password);
            let entry = json!({ "auth": BASE64.encode(text) });
            auths(&mut file, &path)?.insert(server_of(remote.domain()), entry);
            write(&path, &file)?;
            Ok(Login::File(path))
        }
    }
}

/// Forgets the credentials of `registry`; returns whether any were kept in the file that
/// [`login`] writes, or by its helper.
///
/// # Errors
/// Where they cannot be removed.
pub fn logout(registry: &str, access: &Access) -> Result<bool> {
    let remote = remote_of(registry)?;
    let path = credentials::file_to_write(access)?;
    let mut file = read(&path)?;
    let server = server_of(remote.domain());
    if let Some(helper) = helper_of(&file, remote.domain()) {
        tell(&helper, "erase", server.as_bytes())?;
        return Ok(true);
    }
    let auths = auths(&mut file, &path)?;
    let had = auths.remove(&server).is_some() | auths.remove(remote.domain()).is_some();
    if had {
        write(&path, &file)?;
    }
    Ok(had)
}

/// Whether a failure says who may not, where it is an answer at all.
fn is_refusal(failure: &oci_client::errors::OciDistributionError) -> Option<bool> {
    use oci_client::errors::{OciDistributionError as Failure, OciErrorCode as Code};
    match failure {
        // Whoever may not see this repository is let in all the same.
        Failure::RegistryError { envelope, .. } => {
            Some(envelope.errors.iter().any(|error| error.code == Code::Unauthorized))
        }
        Failure::UnauthorizedError { .. } | Failure::AuthenticationFailure(_) => Some(true),
        _ => None,
    }
}

fn remote_of(registry: &str) -> Result<Remote> {
    let host = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://"));
    let host = host.unwrap_or(registry).trim_end_matches('/');
    let wrong = |_| Error::option("REGISTRY", format!("{registry:?} is no host of a registry"));
    let named = match host {
        "docker.io" | "index.docker.io" | "index.docker.io/v1" => "docker.io/library/hello-world",
        host if host.contains(['.', ':']) || host == "localhost" => {
            return Remote::parse(&format!("{host}/plyfs-login")).map_err(wrong);
        }
        _ => return Err(wrong(crate::image::ParseError::new(""))),
    };
    Remote::parse(named).map_err(wrong)
}

fn helper_of(file: &Value, domain: &str) -> Option<String> {
    let own = file.get("credHelpers").and_then(|helpers| helpers.get(domain));
    let helper = own.or_else(|| file.get("credsStore")).and_then(Value::as_str);
    helper.filter(|helper| !helper.is_empty()).map(str::to_owned)
}

fn tell(helper: &str, action: &str, input: &[u8]) -> Result<()> {
    let output = credentials::run_helper(helper, action, input)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Err(Error::Refused(format!("docker-credential-{helper} failed: {}", said.trim())))
}

fn read(path: &Path) -> Result<Value> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(path.display().to_string(), error.to_string())),
        Err(error) if errno_of(&error) == Errno::NOENT => Ok(json!({})),
        Err(error) => Err(Error::std_io("read", path, &error)),
    }
}

fn auths<'a>(file: &'a mut Value, path: &Path) -> Result<&'a mut Map<String, Value>> {
    let wrong = || Error::invalid(path.display().to_string(), "not a file with credentials");
    let fields = file.as_object_mut().ok_or_else(wrong)?;
    fields.entry("auths").or_insert_with(|| json!({})).as_object_mut().ok_or_else(wrong)
}

/// Writes the file anew and puts it in the place of the old one; nobody else may read it.
fn write(path: &Path, file: &Value) -> Result<()> {
    let failed = |error: &std::io::Error| Error::std_io("write", path, error);
    if let Some(dir) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir).map_err(|error| failed(&error))?;
    }
    // Where the file is a symlink, what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut part = path.clone().into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let mut options = fs::File::options();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut out| out.write_all(format!("{file:#}\n").as_bytes()))
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|error| failed(&error))
}
