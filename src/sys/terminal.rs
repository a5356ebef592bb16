//! The terminal: nobody shall read a password on it.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// While it lives, what is typed on standard input does not show.
#[derive(Debug)]
pub struct NoEcho(Option<Termios>);

impl NoEcho {
    /// Begins; what is no terminal shows nothing anyway.
    pub fn new() -> NoEcho {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return NoEcho(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let set = tcsetattr(&stdin, OptionalActions::Flush, &quiet);
        NoEcho(set.ok().map(|()| before))
    }
}

impl Default for NoEcho {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(errno) = tcsetattr(std::io::stdin(), OptionalActions::Now, before)
        {
            tracing::warn!(%errno, "the terminal does not show what is typed: run stty echo");
        }
    }
}
