//! What is told to the service manager (`Type=notify` of systemd, see sd_notify(3)).

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the service manager listens; nowhere, unless it started this process.
#[derive(Debug)]
pub(super) struct Manager(Option<OsString>);

impl Manager {
    pub(super) fn of_this_process() -> Manager {
        Manager(std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()))
    }

    /// What waits for this service may start: clients can connect.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A manager that does not hear is no reason not to serve; it acts upon that by itself.
    fn tell(&self, state: &str) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = send(path, state) {
            tracing::warn!("cannot tell the service manager {state}: {error}");
        }
    }
}

fn send(path: &OsStr, state: &str) -> std::io::Result<()> {
    // A name that begins with "@" is none of a file.
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let sent = UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    if sent == state.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
}
