//! Processes: umask, limits, going to the background.

use rustix::fs::Mode;

/// Clears this process's umask, so that the modes that clients ask for are the modes they get.
pub fn clear_umask() {
    rustix::process::umask(Mode::empty());
}
