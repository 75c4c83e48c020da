//! What is known of a client, whichever stream it has a seat on.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::sync::atomic::{AtomicU64, Ordering};

use super::fanout::Progress;

/// What a client calls itself is kept up to so many characters: the longest that players and browsers send have about 200, a
/// hostile one could have 16 KiB, and every status repeats them all.
const MAX_USER_AGENT_CHARACTERS: usize = 256;

/// How a client takes its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MPEG-TS without an end, over one connection.
    Ts,
    /// Lists and segments (RFC 8216), each with a request of its own.
    Hls,
    /// Parts of a file.
    Film,
}

impl Protocol {
    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ts => "ts",
            Self::Hls => "hls",
            Self::Film => "film",
        }
    }
}

/// What is known of a client.
#[derive(Debug)]
pub struct ClientRecord {
    /// Its number, unique in the process.
    pub id: u64,
    /// How it takes the stream.
    pub protocol: Protocol,
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it calls itself, as it came but for what is too long: to be escaped when shown.
    pub user_agent: Option<String>,
    /// When it asked.
    pub connected_at: SystemTime,
    /// Set once it streams.
    pub(super) progress: OnceLock<Arc<Progress>>,
    /// Set once it reads a film.
    pub(super) film: OnceLock<FilmProgress>,
}

/// How far a client of a film is.
#[derive(Debug)]
pub struct FilmProgress {
    /// Where in the file it began.
    from: u64,
    sent_bytes: AtomicU64,
}

impl FilmProgress {
    /// Bytes sent to it.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Where in the file it is.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.from + self.sent_bytes()
    }
}

impl ClientRecord {
    /// A client that has just asked.
    #[must_use]
    pub fn new(id: u64, protocol: Protocol, address: SocketAddr, user_agent: Option<String>) -> Self {
        // Made anew, so that nothing of the rest is kept.
        let user_agent = user_agent.map(|text| text.chars().take(MAX_USER_AGENT_CHARACTERS).collect());
        Self {
            id,
            protocol,
            address,
            user_agent,
            connected_at: SystemTime::now(),
            progress: OnceLock::new(),
            film: OnceLock::new(),
        }
    }

    /// It begins to read a film, here.
    pub fn begin_film(&self, from: u64) {
        let _begun = self.film.set(FilmProgress { from, sent_bytes: AtomicU64::new(0) });
    }

    /// So many more bytes of the film were sent to it.
    pub fn record_film_sent(&self, bytes: u64) {
        if let Some(film) = self.film.get() {
            film.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// How far in a film it is, if it reads one.
    #[must_use]
    pub fn film(&self) -> Option<&FilmProgress> {
        self.film.get()
    }

    /// Bytes sent to it, of whatever it takes; `None` while it waits.
    pub(super) fn sent_bytes(&self) -> Option<u64> {
        let film = || self.film.get().map(FilmProgress::sent_bytes);
        self.progress.get().map(|progress| progress.sent_bytes()).or_else(film)
    }
}
