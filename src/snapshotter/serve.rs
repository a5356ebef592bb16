//! The socket, the signals, the end.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;

use crate::error::{Errno, Error, Result};

use super::ready::Manager;
use super::{Service, Snapshotter};

/// Listens at `path`; only the user of this process may connect. A socket that a snapshotter which
/// died has left is replaced; where somebody listens already, or something else lies, is an error.
fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_parent(parent)?;
    }
    remove_dead_socket(path)?;
    let failed = |error: &std::io::Error| Error::std_io("listen at", path, error);
    // Between the bind and the mode nobody may connect either.
    let listener = crate::sys::process::with_umask(0o177, || UnixListener::bind(path));
    let listener = listener.map_err(|error| failed(&error))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|error| failed(&error))?;
    listener.set_nonblocking(true).map_err(|error| failed(&error))?;
    Ok(listener)
}

/// Makes the directory of a socket where it is missing, for its owner alone.
fn make_parent(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(|error| Error::std_io("create directory", dir, &error))
}

fn remove_dead_socket(path: &Path) -> Result<()> {
    let failed = |error: &std::io::Error| Error::std_io("listen at", path, error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::io("listen at", path, Errno::EXIST));
        }
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        let what = format!("the socket {}", path.display());
        return Err(Error::InUse { what, by: "another process listens there".into() });
    }
    std::fs::remove_file(path).map_err(|error| failed(&error))
}

/// How long clients that were told of the end may keep their connections.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves at the socket `path` until `SIGTERM` or `SIGINT`; requests under way are answered first.
///
/// # Errors
/// Where somebody listens there already, something else than a socket lies there, or it fails.
pub fn serve(snapshotter: Arc<Snapshotter>, path: &Path) -> Result<()> {
    let failed = |error: &std::io::Error| Error::std_io("serve at", path, error);
    // Kept to the end, with the lock of the snapshots: the next one must find the socket gone.
    let _kept = Arc::clone(&snapshotter);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let served = runtime.block_on(async {
        // Before the socket is there: who sees it may end this process, and is to find it gone then.
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
        let listener = tokio::net::UnixListener::from_std(listen(path)?);
        let listener = listener.map_err(|error| failed(&error))?;
        let (told, mut hear) = tokio::sync::watch::channel(false);
        let manager = Manager::of_this_process();
        // Who connects from now on is heard.
        manager.ready();
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("told to end");
            manager.stopping();
            told.send_replace(true);
        };
        tracing::info!(address = %path.display(), "serving");
        let serving = tonic::transport::Server::builder()
            .add_service(Service::new(snapshotter))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), end);
        let farewell = async {
            // An error says that nobody waits for signals any more: then the server has ended.
            if hear.wait_for(|told| *told).await.is_ok() {
                tokio::time::sleep(FAREWELL).await;
            }
        };
        tokio::select! {
            served = serving => served.map_err(|error| {
                Error::Refused(format!("cannot serve at {}: {error}", path.display()))
            }),
            () = farewell => Ok(()),
        }
    });
    // Verbs that nobody waits for any more are finished, too.
    drop(runtime);
    served?;
    std::fs::remove_file(path).map_err(|error| Error::std_io("remove", path, &error))
}
