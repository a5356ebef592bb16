//! How a registry is reached.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use oci_client::Reference as ClientReference;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError as Failure;
use oci_client::manifest;
use oci_client::secrets::RegistryAuth;
use tokio::runtime::Runtime;

use super::failure::{explain, is_refused_token, may_pass};
use super::{Access, credentials};
use crate::error::{Error, Result};
use crate::image::Remote;

/// A registry that does not begin to answer within this is taken to be gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// So is one that sends nothing for this long.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How often something is tried, and how long is waited before the second time; twice as long
/// before each further one.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);

const USER_AGENT: &str = concat!("plyfs/", env!("CARGO_PKG_VERSION"));

/// What is to be done with a repository.
pub(super) use oci_client::RegistryOperation as Operation;

/// A repository of a registry that lets us in.
pub(super) struct Connection {
    runtime: Runtime,
    pub(super) client: Client,
    pub(super) remote: Remote,
    auth: RegistryAuth,
    operation: Operation,
    /// For what the client of the protocol would read whole, however much comes.
    plain: reqwest::Client,
    scheme: &'static str,
}

impl Connection {
    /// Connects to the registry of `remote`. One on this machine, or one whose certificates are
    /// not to be verified, is tried by https first and then by http, as docker does.
    pub(super) fn open(remote: &Remote, access: &Access, for_: Operation) -> Result<Connection> {
        let auth = credentials::find(remote, access)?;
        let auth = auth.map_or(RegistryAuth::Anonymous, |found| {
            RegistryAuth::Basic(found.username, found.password)
        });
        Connection::open_as(remote, access, for_, &auth)
    }

    /// As [`Connection::open`], with these credentials.
    pub(super) fn open_as(
        remote: &Remote,
        access: &Access,
        for_: Operation,
        auth: &RegistryAuth,
    ) -> Result<Connection> {
        choose_tls();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Error::Refused(format!("cannot start threads: {error}")))?;
        let verify = access.tls_verify.unwrap_or(!is_local(remote.domain()));
        let protocols = match verify {
            true => &[ClientProtocol::Https][..],
            false => &[ClientProtocol::Https, ClientProtocol::Http],
        };
        let mut outcome = Err(Error::Refused("no protocol".to_owned()));
        for protocol in protocols {
            let client = client(remote, access, protocol.clone(), verify)?;
            let reference = client_reference(remote);
            let try_once = client.auth(&reference, auth, for_);
            outcome = match runtime.block_on(try_once) {
                Ok(_) => {
                    let scheme = match protocol {
                        ClientProtocol::Http => "http",
                        _ => "https",
                    };
                    return Ok(Connection {
                        runtime,
                        client,
                        remote: remote.clone(),
                        auth: auth.clone(),
                        operation: for_,
                        plain: plain_client(remote, access, verify)?,
                        scheme,
                    });
                }
                Err(failure @ Failure::RequestError(_)) => Err(explain(remote, &failure)),
                Err(failure) => return Err(explain(remote, &failure)),
            };
        }
        outcome
    }

    /// The repository, as the client names it.
    pub(super) fn repository(&self) -> ClientReference {
        client_reference(&self.remote)
    }

    /// The client's name for something else in the same repository.
    pub(super) fn reference(&self, remote: &Remote) -> ClientReference {
        client_reference(remote)
    }

    /// Waits for one thing.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Does something, again where it fails in a way that may pass. A token that is refused, because
    /// it lasted less long than we thought, is asked for anew once.
    pub(super) fn retried<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        mut each: impl FnMut() -> F,
    ) -> Result<T> {
        let mut wait = FIRST_WAIT;
        let mut renewed = false;
        for _ in 1..TRIES {
            match self.wait(each()) {
                Ok(value) => return Ok(value),
                Err(failure) if is_refused_token(&failure) && !renewed => {
                    renewed = true;
                    self.wait(self.client.auth(&self.repository(), &self.auth, self.operation))
                        .map_err(|failure| explain(&self.remote, &failure))?;
                    continue;
                }
                Err(failure) if may_pass(&failure) => {
                    tracing::info!(%failure, "trying again");
                }
                Err(failure) => return Err(explain(&self.remote, &failure)),
            }
            std::thread::sleep(wait);
            wait *= 2;
        }
        self.wait(each()).map_err(|failure| explain(&self.remote, &failure))
    }
}

impl Connection {
    /// The document that `remote` names, one of the media types in `accept`; `None` where it has more
    /// than `most` bytes, of which no more are read then.
    pub(super) async fn document(
        &self,
        remote: &Remote,
        accept: &[&str],
        most: u64,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let reference = self.reference(remote);
        let (host, path) = (reference.resolve_registry(), reference.repository());
        let url = format!("{}://{host}/v2/{path}/manifests/{}", self.scheme, remote.selector());
        let request = self.plain.get(&url).header("Accept", accept.join(", "));
        let token = self.client.auth(&reference, &self.auth, self.operation).await?;
        let request = match (token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        };
        let mut response = request.send().await?;
        let status = response.status();
        if response.content_length().is_some_and(|length| length > most) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > most {
                return Ok(None);
            }
        }
        if status.is_success() {
            return Ok(Some(bytes));
        }
        let message = String::from_utf8_lossy(&bytes).into_owned();
        Err(match serde_json::from_slice(&bytes) {
            Ok(envelope) if status.is_client_error() => Failure::RegistryError { envelope, url },
            _ => Failure::ServerError { code: status.as_u16(), url, message },
        })
    }
}

/// A client with the same trust as [`client`].
fn plain_client(remote: &Remote, access: &Access, verify: bool) -> Result<reqwest::Client> {
    let failed = |error: reqwest::Error| explain(remote, &Failure::RequestError(error));
    let certificates = certificates(remote.domain(), access)?;
    let certificates = certificates.iter().map(|pem| reqwest::Certificate::from_pem(&pem.data));
    let builder = reqwest::Client::builder()
        .tls_certs_merge(certificates.collect::<Result<Vec<_>, _>>().map_err(failed)?)
        .tls_danger_accept_invalid_certs(!verify)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(USER_AGENT);
    builder.build().map_err(failed)
}

/// The only provider of cryptography; chosen once for the process.
fn choose_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider was chosen before");
        }
    });
}

fn client(
    remote: &Remote,
    access: &Access,
    protocol: ClientProtocol,
    verify: bool,
) -> Result<Client> {
    let config = ClientConfig {
        protocol,
        accept_invalid_certificates: !verify,
        use_monolithic_push: true,
        extra_root_certificates: certificates(remote.domain(), access)?,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|failure| explain(remote, &failure))
}

fn client_reference(remote: &Remote) -> ClientReference {
    let (domain, path) = (remote.domain().to_owned(), remote.path().to_owned());
    match remote {
        Remote::Tag(name) => ClientReference::with_tag(domain, path, name.tag().to_owned()),
        Remote::Digest(_) => ClientReference::with_digest(domain, path, remote.selector()),
    }
}

/// Whether the registry is on this machine, which docker and podman trust without TLS.
fn is_local(domain: &str) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The certificates that are trusted for this registry: where docker and podman look for them.
fn certificates(domain: &str, access: &Access) -> Result<Vec<Certificate>> {
    let places = ["/etc/docker/certs.d", "/etc/containers/certs.d"];
    let mut dirs: Vec<PathBuf> = places.iter().map(|dir| Path::new(dir).join(domain)).collect();
    dirs.retain(|dir| dir.is_dir());
    dirs.extend(access.cert_dir.clone());
    let mut found = Vec::new();
    for dir in dirs {
        let failed = |error: &std::io::Error| Error::std_io("read", &dir, error);
        for entry in std::fs::read_dir(&dir).map_err(|error| failed(&error))? {
            let path = entry.map_err(|error| failed(&error))?.path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                let data = std::fs::read(&path);
                let data = data.map_err(|error| Error::std_io("read", &path, &error))?;
                found.push(Certificate { encoding: CertificateEncoding::Pem, data });
            }
        }
    }
    Ok(found)
}

/// A descriptor as the client wants it.
pub(super) fn descriptor(blob: &crate::image::manifest::Descriptor) -> manifest::OciDescriptor {
    manifest::OciDescriptor {
        digest: blob.digest.to_string(),
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        media_type: blob.media_type.clone(),
        ..manifest::OciDescriptor::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3"] {
            assert!(is_local(local), "{local}");
        }
        for far in ["docker.io", "localhost.example.com", "127.example.com:1", "10.0.0.1"] {
            assert!(!is_local(far), "{far}");
        }
    }
}
