//! The thread that finds names before they are asked for.

use std::sync::Arc;

use crate::overlay::Overlay;

/// Has names found ahead where there is a processor for it: while a client waits for the thread
/// that serves it, a second one has nothing to do.
pub(super) fn begin(overlay: &Arc<Overlay>) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors < 2 {
        return;
    }
    let weak = Arc::downgrade(overlay);
    overlay.begin_to_look_ahead(move || {
        let weak = weak.clone();
        let look = move || {
            if let Some(overlay) = weak.upgrade() {
                overlay.look_ahead();
            }
        };
        let started = std::thread::Builder::new().name("fuse-ahead".to_owned()).spawn(look);
        if let Err(error) = &started {
            tracing::warn!("names are not found ahead: cannot start a thread: {error}");
        }
        started.is_ok()
    });
}
