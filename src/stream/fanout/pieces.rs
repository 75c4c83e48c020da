//! A client that takes the stream in pieces, each when it asks for it.
//!
//! Nothing is sent to it here: it has no queue, and whoever serves it cuts its pieces out of the backlog. So the fetcher never
//! waits for it, and while there is one the backlog is kept longer: what it is going to ask for has to be there still.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::backlog::Bounds;
use super::{Fanout, Progress, Shared};

/// A client that takes pieces. Dropping it is leaving.
#[derive(Debug)]
pub struct Pieces {
    hub: Arc<Fanout>,
    progress: Arc<Progress>,
}

/// Who takes pieces, and how much is kept for them.
#[derive(Debug)]
pub(super) struct Keeping {
    clients: usize,
    /// What is kept when nobody takes pieces.
    usual: Bounds,
}

impl Keeping {
    pub(super) fn new(usual: Bounds) -> Self {
        Self { clients: 0, usual }
    }

    pub(super) fn is_needed(&self) -> bool {
        self.clients > 0
    }
}

impl Fanout {
    /// Adds a client that takes pieces. While there is one, as much is kept as the bounds say that were asked for so far, and
    /// never less than usual.
    pub fn take_pieces(self: &Arc<Self>, bounds: Bounds) -> Pieces {
        let progress = Arc::<Progress>::default();
        progress.offset.store(self.head(), Ordering::Relaxed);
        let mut shared = self.shared.lock();
        shared.had_clients = true;
        shared.keeping.clients += 1;
        shared.keep_at_least(bounds);
        drop(shared);
        Pieces { hub: Arc::clone(self), progress }
    }
}

impl Shared {
    fn keep_at_least(&mut self, bounds: Bounds) {
        let now = self.backlog.bounds();
        let bounds = Bounds { bytes: now.bytes.max(bounds.bytes), age: now.age.max(bounds.age) };
        self.backlog.set_bounds(bounds);
    }
}

impl Pieces {
    /// How far this client is.
    #[must_use]
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Keeps at least so much, as long as anybody takes pieces.
    pub fn keep_at_least(&self, bounds: Bounds) {
        self.hub.shared.lock().keep_at_least(bounds);
    }

    /// Records that so many bytes were sent to this client, the stream up to this offset among them.
    pub fn record_sent(&self, end: u64, bytes: u64) {
        // Not the farthest: who goes back is behind again.
        self.progress.offset.store(end, Ordering::Relaxed);
        self.progress.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records that this client did not ask for all pieces.
    pub fn record_skip(&self) {
        self.progress.skips.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let mut shared = self.hub.shared.lock();
        shared.keeping.clients -= 1;
        if !shared.keeping.is_needed() {
            // What is too much now goes when the next chunk comes.
            let usual = shared.keeping.usual;
            shared.backlog.set_bounds(usual);
        }
    }
}
