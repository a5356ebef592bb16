//! A unix socket that gives the figures as Prometheus text to root and the daemon's own user.
//!
//! Who sends the start of an HTTP request first (a scraper) is answered in HTTP; who sends
//! nothing (`nc -U`) gets the bare text.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Snapshot;
use crate::error::{Error, Result};

/// How long a client may keep the one thread that answers.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a client that says nothing is taken for one that is about to.
const SILENCE: Duration = Duration::from_millis(100);

/// A socket that goes with this, from the directory too.
#[derive(Debug)]
pub(in crate::fuse) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    /// Listens at `path`, where there must be nothing, or the socket of a daemon that is gone.
    /// Who connects waits for [`Socket::serve`].
    ///
    /// # Errors
    /// Where there is something else, or the directory cannot be written to.
    pub(in crate::fuse) fn bind(path: &Path) -> Result<Socket> {
        let failed = |error: &std::io::Error| Error::std_io("listen on", path, error);
        let path = std::path::absolute(path).map_err(|error| failed(&error))?;
        let listener = bind(&path).map_err(|error| failed(&error))?;
        Ok(Socket { listener, path, thread: None })
    }

    /// Starts to answer, each client with its own `snapshot`.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(in crate::fuse) fn serve(
        &mut self,
        snapshot: impl Fn() -> Snapshot + Send + 'static,
    ) -> Result<()> {
        let failed = |error: &std::io::Error| Error::std_io("answer on", &self.path, error);
        let listener = self.listener.try_clone().map_err(|error| failed(&error))?;
        let thread = std::thread::Builder::new()
            .name("stats".into())
            .spawn(move || answer_all(&listener, snapshot));
        self.thread = Some(thread.map_err(|error| failed(&error))?);
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Wakes the thread out of its accept, which then fails with EINVAL.
        if let Err(errno) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            tracing::debug!("cannot shut the statistics socket down: {errno}");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the statistics thread ended in a panic");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("the statistics socket stays: {error}");
        }
    }
}

fn answer_all(listener: &UnixListener, snapshot: impl Fn() -> Snapshot) {
    for client in listener.incoming() {
        match client {
            Ok(client) => {
                if let Err(error) = answer(client, &snapshot()) {
                    tracing::debug!("statistics did not reach a client: {error}");
                }
            }
            // The listener was shut down.
            Err(error) if error.kind() == ErrorKind::InvalidInput => break,
            // This process has no descriptor left, say.
            Err(error) => {
                tracing::debug!("a client could not connect: {error}");
                std::thread::sleep(SILENCE);
            }
        }
    }
}

/// Binds; the socket of a daemon that was killed is replaced, that of a live one is not.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Who got in before this is turned away by its credentials.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn answer(mut client: UnixStream, snapshot: &Snapshot) -> std::io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&client)?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    client.set_write_timeout(Some(PATIENCE))?;
    client.set_read_timeout(Some(SILENCE))?;
    let body = super::prometheus::text(std::slice::from_ref(snapshot));
    let mut asked = [0; 4096];
    let length = match client.read(&mut asked) {
        Ok(length) => length,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
        Err(error) => return Err(error),
    };
    if asked.get(..length).is_some_and(|asked| asked.starts_with(b"GET ")) {
        let length = body.len();
        write!(
            client,
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
    }
    client.write_all(body.as_bytes())
}
