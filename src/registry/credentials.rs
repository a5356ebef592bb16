//! Who we are to a registry: the files of docker and podman, and docker's credential helpers.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::Access;
use crate::error::{Errno, Error, Result, errno_of};
use crate::image::Remote;

/// The name under which docker keeps the credentials of docker.io.
pub(super) const DOCKER_IO: &str = "https://index.docker.io/v1/";

/// A user and a password, or an access token in the place of one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password or access token.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The parts of a file with credentials that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// The credentials for `remote`: those that were given, else the first that a file has.
pub(super) fn find(remote: &Remote, access: &Access) -> Result<Option<Credentials>> {
    if let Some(given) = &access.credentials {
        return Ok(Some(given.clone()));
    }
    for path in files(access) {
        if let Some(file) = read(&path)?
            && let Some(found) = file.find(remote, &path)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The files in which credentials may be, the most particular first.
fn files(access: &Access) -> Vec<PathBuf> {
    if let Some(path) = &access.authfile {
        return vec![path.clone()];
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return vec![PathBuf::from(path)];
    }
    let home = variable("HOME").map(PathBuf::from);
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from);
    let docker = docker.or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| home.map(|home| home.join(".config")));
    let podman = [runtime, config].into_iter().flatten();
    let podman = podman.map(|dir| dir.join("containers/auth.json"));
    docker.map(|dir| dir.join("config.json")).into_iter().chain(podman).collect()
}

/// The file that login writes.
pub(super) fn file_to_write(access: &Access) -> Result<PathBuf> {
    let first = files(access).into_iter().next();
    first.ok_or_else(|| Error::option("--authfile", "must be given: HOME is not set"))
}

fn read(path: &Path) -> Result<Option<File>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(errno_of(&error), Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(Error::std_io("read", path, &error)),
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))
}

impl File {
    fn find(&self, remote: &Remote, path: &Path) -> Result<Option<Credentials>> {
        for key in keys(remote) {
            let same = |known: &&String| normal(known) == key;
            if let Some((server, helper)) = self.cred_helpers.iter().find(|(known, _)| same(known))
                && let Some(found) = ask(helper, server)?
            {
                return Ok(Some(found));
            }
            if let Some(helper) = &self.creds_store
                && let Some(found) = ask(helper, &server_of(&key))?
            {
                return Ok(Some(found));
            }
            let entry = self.auths.iter().find(|(known, _)| same(known));
            if let Some((_, entry)) = entry
                && let Some(found) = entry.credentials(&key, path)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Entry {
    fn credentials(&self, key: &str, path: &Path) -> Result<Option<Credentials>> {
        if let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            let wrong = || {
                let why = format!("the credentials of {key} are not base64 of user:password");
                Error::invalid(path.display().to_string(), why)
            };
            let bytes = BASE64.decode(auth.trim()).map_err(|_| wrong())?;
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            let (username, password) = text.split_once(':').ok_or_else(wrong)?;
            let password = password.trim_end_matches('\0').to_owned();
            if !password.is_empty() {
                return Ok(Some(Credentials { username: username.to_owned(), password }));
            }
        }
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            let (username, password) = (username.clone(), password.clone());
            return Ok(Some(Credentials { username, password }));
        }
        match &self.identitytoken {
            Some(token) if !token.is_empty() => Err(no_identity_tokens(key)),
            _ => Ok(None),
        }
    }
}

fn no_identity_tokens(key: &str) -> Error {
    let reason = "what is known is an identity token, which plyfs cannot use: log in with a \
                  password or an access token";
    Error::Registry { registry: key.to_owned(), reason: reason.to_owned() }
}

/// Under which names the credentials of a repository may be kept, the most particular first.
fn keys(remote: &Remote) -> Vec<String> {
    let mut keys = Vec::new();
    let mut name = format!("{}/{}", remote.domain(), remote.path());
    keys.push(name.clone());
    while let Some((above, _)) = name.rsplit_once('/') {
        keys.push(above.to_owned());
        name = above.to_owned();
    }
    keys
}

/// A key without what does not tell registries apart.
fn normal(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key.split_once('/').map_or((key, None), |(host, path)| (host, Some(path))) {
        ("index.docker.io" | "registry-1.docker.io", None) => "docker.io".to_owned(),
        ("index.docker.io", Some(path)) => format!("docker.io/{path}"),
        _ => key.to_owned(),
    }
}

/// What credential helpers call a registry.
pub(super) fn server_of(domain: &str) -> String {
    if domain == "docker.io" { DOCKER_IO.to_owned() } else { domain.to_owned() }
}

/// What a credential helper answers with.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the program `docker-credential-HELPER`.
fn ask(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let output = run_helper(helper, "get", server.as_bytes())?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let reason = format!("docker-credential-{helper} failed: {}", said.trim());
        return Err(Error::Registry { registry: server.to_owned(), reason });
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|error| {
        Error::invalid(format!("the answer of docker-credential-{helper}"), error.to_string())
    })?;
    match answer.username.as_str() {
        "<token>" => Err(no_identity_tokens(server)),
        _ => Ok(Some(Credentials { username: answer.username, password: answer.secret })),
    }
}

/// Runs the program `docker-credential-HELPER` with `input`.
pub(super) fn run_helper(helper: &str, action: &str, input: &[u8]) -> Result<std::process::Output> {
    if helper.is_empty() || helper.contains('/') {
        return Err(Error::option("credential helper", format!("{helper:?} is no name of one")));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |error: &std::io::Error| Error::std_io("run", &program, error);
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input)
        && errno_of(&error) != Errno::PIPE
    {
        return Err(failed(&error));
    }
    child.wait_with_output().map_err(|error| failed(&error))
}

/// The fuzz target's way in: looks for `name` in a file of these bytes. One that names a helper
/// is left alone: a helper is a program.
#[cfg(fuzzing)]
pub fn fuzz_credentials(bytes: &[u8], name: &str) {
    let (Ok(file), Ok(remote)) = (serde_json::from_slice::<File>(bytes), Remote::parse(name))
    else {
        return;
    };
    if file.creds_store.is_none() && file.cred_helpers.is_empty() {
        drop(file.find(&remote, Path::new("config.json")));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops")]
mod tests {
    use super::*;

    fn find_in(json: &str, name: &str) -> Option<Credentials> {
        let file: File = serde_json::from_str(json).unwrap();
        file.find(&Remote::parse(name).unwrap(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn every_spelling_of_a_registry_is_found() {
        let auth = BASE64.encode("me:se:cret");
        let found = Some(Credentials { username: "me".into(), password: "se:cret".into() });
        for (key, name) in [
            ("https://index.docker.io/v1/", "busybox"),
            ("docker.io", "busybox"),
            ("h:5000", "h:5000/a/b"),
            ("https://h:5000", "h:5000/a"),
            ("http://h:5000/v2/", "h:5000/a"),
            ("quay.io/team", "quay.io/team/app"),
        ] {
            let json = format!("{{\"auths\":{{\"{key}\":{{\"auth\":\"{auth}\"}}}}}}");
            assert_eq!(find_in(&json, name), found, "{key} {name}");
            assert_eq!(find_in(&json, "other.example.com/a"), None);
        }
        assert_eq!(find_in("{\"auths\":{\"h:5000\":{}}}", "h:5000/a"), None);
    }

    #[test]
    fn the_most_particular_credentials_win() {
        let entry = |user: &str| format!("{{\"auth\":\"{}\"}}", BASE64.encode(format!("{user}:p")));
        let json = format!(
            "{{\"auths\":{{\"quay.io\":{},\"quay.io/team\":{}}}}}",
            entry("all"),
            entry("team")
        );
        assert_eq!(find_in(&json, "quay.io/team/app").unwrap().username, "team");
        assert_eq!(find_in(&json, "quay.io/other/app").unwrap().username, "all");
    }
}
