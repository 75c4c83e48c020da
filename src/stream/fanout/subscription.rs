//! One client's side of a stream: what it sends next.
//!
//! It knows its hub and its own place in the stream; nothing of the other clients, nor of how chunks reach a player.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError};

use crate::sync::atomic::Ordering;

use super::super::chunk::Chunk;
use super::super::ending::Ending;
use super::{Fanout, JoinAt, Progress};

/// What a client is told next.
#[derive(Debug)]
pub enum Next {
    /// A chunk to send.
    Chunk(Arc<Chunk>),
    /// Nothing until the deadline.
    Quiet,
    /// Everything was handed out and nothing more will come.
    End(Ending),
}

/// One client's place in a stream. Dropping it is leaving.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Fanout>,
    progress: Arc<Progress>,
    /// Set until it is on the list of clients.
    pub(super) joining: Option<JoinAt>,
    /// What comes before the queue: the tables, and the rest of a chunk that it begins in the middle of.
    pub(super) ahead: VecDeque<Arc<Chunk>>,
    pub(super) queue: Receiver<Arc<Chunk>>,
}

impl Subscription {
    pub(super) fn new(hub: Arc<Fanout>, at: JoinAt) -> Self {
        Self {
            hub,
            progress: Arc::default(),
            joining: Some(at),
            ahead: VecDeque::new(),
            queue: crossbeam_channel::never(),
        }
    }

    /// How far this client is.
    #[must_use]
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The next chunk, or the end, or nothing until the deadline.
    pub fn next(&mut self, deadline: Instant) -> Next {
        loop {
            let seen = self.hub.ticker.current();
            if let Some(at) = self.joining
                && let Err(until) = self.attach(at, Instant::now())
            {
                if !self.hub.ticker.wait(seen, until.min(deadline)) && until > deadline {
                    return Next::Quiet;
                }
                continue;
            }
            if let Some(chunk) = self.ahead.pop_front() {
                return Next::Chunk(chunk);
            }
            match self.queue.try_recv() {
                Ok(chunk) => return Next::Chunk(chunk),
                Err(TryRecvError::Empty) => {
                    if !self.hub.ticker.wait(seen, deadline) {
                        return Next::Quiet;
                    }
                }
                Err(TryRecvError::Disconnected)
                    if self.progress.is_left_behind.swap(false, Ordering::Acquire) =>
                {
                    self.progress.skips.fetch_add(1, Ordering::Relaxed);
                    self.joining = Some(JoinAt::AheadOf(self.progress.offset()));
                }
                Err(TryRecvError::Disconnected) => {
                    // Only closing drops the senders of clients that kept up.
                    return Next::End(self.hub.ending().unwrap_or(Ending::Broken));
                }
            }
        }
    }

    /// Records that a chunk was written to the client.
    pub fn record_sent(&self, chunk: &Chunk) {
        self.progress.offset.fetch_max(chunk.end, Ordering::Relaxed);
        self.progress.sent_bytes.fetch_add(chunk.packets().len() as u64, Ordering::Relaxed);
    }

    /// Takes its place, or tells until when it is worth waiting for a better one.
    pub(super) fn attach(&mut self, at: JoinAt, now: Instant) -> Result<(), Instant> {
        let joined = self.hub.attach(&self.progress, at, now)?;
        self.joining = None;
        self.queue = joined.queue;
        self.ahead.extend(joined.place.prefix);
        // The copy of a part, if one is needed, is made here, outside the lock.
        self.ahead.extend(joined.first.map(|chunk| Chunk::rest(&chunk, joined.place.offset)));
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.leave(&self.progress);
    }
}
