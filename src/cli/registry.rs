//! Verbs on registries: pull, push, login, logout.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::archive::compress::Compression;
use crate::error::{Error, Result};
use crate::image::{Platform, Remote};
use crate::registry::{self, Access, Credentials, Login as LoggedIn};

use super::commit::reference;
use super::progress::Bars;
use super::{Context, output};

/// How a registry is to be reached.
#[derive(Debug, Args)]
struct Reach {
    /// Whether certificates must be valid and http is refused [default: true, but for registries
    /// on this machine]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// Directory with certificates (*.crt) to trust, besides /etc/docker/certs.d and
    /// /etc/containers/certs.d
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// File with credentials [default: REGISTRY_AUTH_FILE, or docker's config.json and podman's
    /// auth.json]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Reach {
    fn access(self, credentials: Option<Credentials>) -> Access {
        let Reach { tls_verify, cert_dir, authfile } = self;
        Access { tls_verify, cert_dir, authfile, credentials }
    }
}

/// Who we are, given on the command line.
#[derive(Debug, Args)]
struct Creds {
    /// User and password, instead of those that were kept by login
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
}

impl Creds {
    fn credentials(self) -> Result<Option<Credentials>> {
        let Some(text) = self.creds else { return Ok(None) };
        let (username, password) = text
            .split_once(':')
            .ok_or_else(|| Error::option("--creds", "must be USER:PASSWORD"))?;
        let (username, password) = (username.to_owned(), password.to_owned());
        Ok(Some(Credentials { username, password }))
    }
}

/// Pull images from a registry
///
/// A name without a registry belongs to docker.io. Of an image for several machines the one for
/// this machine is taken. What is at hand does not come again, and a pull that broke off goes on
/// where it was.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs pull debian:12\n  \
                        plyfs pull --platform linux/arm64 registry.example.com/team/app:1")]
pub(super) struct Pull {
    /// Names, with a tag [default: latest] or @DIGEST
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The machine that the image is for, as linux/amd64 or linux/arm/v7 [default: this one]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    creds: Creds,
    /// Print nothing but the names
    #[arg(short, long)]
    quiet: bool,
}

impl Pull {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let platform = match &self.platform {
            Some(text) => Platform::parse(text)
                .map_err(|error| Error::option("--platform", error.to_string()))?,
            None => Platform::host(),
        };
        let access = self.reach.access(self.creds.credentials()?);
        let store = context.store()?;
        output::for_each(&self.images, |name| {
            let remote = Remote::parse(name).map_err(|error| Error::Refused(error.to_string()))?;
            let bars = Bars::new(self.quiet);
            let pulled = registry::pull(&store, &remote, &platform, &access, &bars)?;
            drop(bars);
            if !self.quiet {
                let status = match pulled.is_news {
                    true => "Downloaded newer image for",
                    false => "Image is up to date for",
                };
                output::print_line(&format!("Digest: {}", pulled.digest))?;
                output::print_line(&format!("Status: {status} {remote}"))?;
            }
            let full = match &remote {
                Remote::Tag(reference) => reference.to_string(),
                Remote::Digest(pinned) => pinned.to_string(),
            };
            output::print_line(&full)
        })
    }
}

/// Push an image to a registry
///
/// What the registry has already is not sent. An image that came from a registry or an OCI
/// archive goes with the manifest that it came with, so that its digest stays; layers that were
/// committed here are compressed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs push registry.example.com/team/app:1\n  \
                        plyfs push app:1 localhost:5000/app:1")]
pub(super) struct Push {
    /// Name, id or start of an id of an image
    image: String,
    /// Name in the registry [default: that of the image]
    destination: Option<String>,
    /// How layers that are kept uncompressed are compressed
    #[arg(long, value_enum, default_value = "gzip", value_name = "FORMAT")]
    compression_format: Compress,
    /// File to write the digest of the pushed manifest to
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    creds: Creds,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compress {
    /// What every tool reads
    Gzip,
    /// Smaller and faster; docker 23 and podman 4 read it
    Zstd,
    /// Not at all
    None,
}

impl Push {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let image = store.outgoing(&self.image)?;
        let to = match (&self.destination, &image.reference) {
            (Some(name), _) => {
                let name = name.strip_prefix("docker://").unwrap_or(name);
                reference(name)?
            }
            (None, Some(name)) => name.clone(),
            (None, None) => {
                let why = "an image that is named by its id needs a destination: \
                           plyfs push IMAGE DESTINATION";
                return Err(Error::Refused(why.to_owned()));
            }
        };
        let compression = match self.compression_format {
            Compress::Gzip => Compression::Gzip,
            Compress::Zstd => Compression::Zstd,
            Compress::None => Compression::Plain,
        };
        let access = self.reach.access(self.creds.credentials()?);
        if !self.quiet {
            output::print_line(&format!("The push refers to repository [{}]", to.repository()))?;
        }
        let bars = Bars::new(self.quiet);
        let pushed = registry::push(&store, &image, &to, compression, &access, &bars)?;
        drop(bars);
        if let Some(path) = &self.digestfile {
            std::fs::write(path, pushed.digest.to_string())
                .map_err(|error| Error::std_io("write", path, &error))?;
        }
        if self.quiet {
            return Ok(());
        }
        output::print_line(&format!(
            "{} layers pushed, {} were there already",
            pushed.uploaded, pushed.present
        ))?;
        output::print_line(&format!(
            "{}: digest: {} size: {}",
            to.tag(),
            pushed.digest,
            pushed.size
        ))
    }
}

/// Log in to a registry
///
/// The registry is asked before anything is kept. Credentials go to docker's config.json, or the
/// file that REGISTRY_AUTH_FILE names, or the credential helper that is set there; docker reads
/// them, too.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs login -u me registry.example.com\n  \
                        printenv TOKEN | plyfs login -u me --password-stdin registry.example.com")]
pub(super) struct Login {
    /// Host of the registry, with its port
    #[arg(default_value = "docker.io")]
    registry: String,
    /// User
    #[arg(short, long)]
    username: Option<String>,
    /// Password; others can see it, --password-stdin is safer
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Login {
    pub(super) fn run(self) -> Result<()> {
        let username = match self.username {
            Some(username) => username,
            None if self.password_stdin => {
                return Err(Error::option("--username", "is needed beside --password-stdin"));
            }
            None => ask("Username: ")?,
        };
        let password = match self.password {
            Some(password) => password,
            None if self.password_stdin || !std::io::stdin().is_terminal() => line()?,
            None => {
                let prompt = "Password: ";
                let _quiet = crate::sys::terminal::NoEcho::new();
                let password = ask(prompt)?;
                output::print_line("")?;
                password
            }
        };
        let credentials = Credentials { username, password };
        match registry::login(&self.registry, &credentials, &self.reach.access(None))? {
            LoggedIn::File(path) => output::print_line(&format!(
                "Login Succeeded; the password is readable in {}",
                path.display()
            )),
            LoggedIn::Helper(name) => {
                output::print_line(&format!("Login Succeeded; docker-credential-{name} keeps it"))
            }
        }
    }
}

fn ask(prompt: &str) -> Result<String> {
    if std::io::stdin().is_terminal() {
        output::print(prompt)?;
    }
    line()
}

fn line() -> Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Error::std_io("read", "standard input", &error))?;
    let line = line.trim_end_matches(['\n', '\r']).to_owned();
    if line.is_empty() {
        return Err(Error::Refused(
            "no user or no password was given: see --username and --password-stdin".to_owned(),
        ));
    }
    Ok(line)
}

/// Forget the credentials of a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  plyfs logout registry.example.com")]
pub(super) struct Logout {
    /// Host of the registry, with its port
    #[arg(default_value = "docker.io")]
    registry: String,
    #[command(flatten)]
    reach: Reach,
}

impl Logout {
    pub(super) fn run(self) -> Result<()> {
        let had = registry::logout(&self.registry, &self.reach.access(None))?;
        output::print_line(&match had {
            true => format!("Removed the credentials of {}", self.registry),
            false => format!("Not logged in to {}", self.registry),
        })
    }
}
