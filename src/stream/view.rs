//! A stream as it is at one moment: plain values for status and log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::api::Liveness;
use crate::engine::file::File;
use crate::engine::stat::Stat;
use crate::id::{ContentKey, Digest};
use crate::ts::media::Media;
use crate::wanted::Slug;

use super::client::ClientRecord;
use super::state::State;

/// What is known of a stream beyond its state.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The engine's name, host and port.
    pub engine: Option<(String, String, u16)>,
    /// The content's infohash, as the engine tells it.
    pub infohash: Option<Digest>,
    /// The engine's name for its session.
    pub playback_session_id: Option<String>,
    /// Live or not.
    pub liveness: Liveness,
    /// When it was asked for.
    pub created_at: SystemTime,
    /// When its first packets came.
    pub started_at: Option<SystemTime>,
    /// When it was over.
    pub ended_at: Option<SystemTime>,
    /// First request to first packets.
    pub first_data_after: Option<Duration>,
    /// What it consists of, once its tables came.
    pub media: Option<Arc<Media>>,
    /// The file that it is, if it is a film.
    pub film: Option<File>,
    /// The names of the files that the content consists of, in the engine's order, if it is a film.
    pub files: Arc<[String]>,
    /// First packets to its end, whatever was done to the clock on the wall meanwhile.
    pub ran_for: Option<Duration>,
}

/// A stream as it is at one moment, for status and metrics.
#[derive(Debug)]
pub struct StreamView {
    /// What it plays, or tries to.
    pub content: ContentKey,
    /// The channel that it plays, if somebody asks for it as one.
    pub channel: Option<Slug>,
    /// Its name in paths.
    pub stream_id: Arc<str>,
    /// Its state.
    pub state: State,
    /// How often the source was lost and found again.
    pub restarts: u32,
    /// The engine's last word on its session.
    pub swarm: Option<Arc<Stat>>,
    /// What else is known.
    pub facts: Arc<Facts>,
    /// Its streaming clients.
    pub clients: Vec<ClientView>,
    /// Clients that wait for the start.
    pub waiting: usize,
    /// Since the last client left; zero while there is one.
    pub idle_for: Duration,
    /// Bytes read off the engine.
    pub bytes_in: u64,
    /// Bytes of packets sent to clients, those that left included.
    pub bytes_out: u64,
    /// Of the last seconds.
    pub bitrate_bps: u64,
    /// For how long the sound has come without the picture; `None` where no picture that moves was there.
    pub picture_missing: Option<Duration>,
    /// Between the last two keyframes.
    pub keyframe_interval: Option<Duration>,
}

/// A streaming client at one moment.
#[derive(Debug)]
pub struct ClientView {
    /// Who it is.
    pub record: Arc<ClientRecord>,
    /// Bytes of packets sent to it.
    pub sent_bytes: u64,
    /// Age by arrival of its next unsent chunk.
    pub lag: Duration,
    /// How often it was moved ahead.
    pub skips: u64,
    /// Where in the film it is, if it is one.
    pub film: Option<FilmView>,
}

/// Where in a film a client is at one moment.
#[derive(Clone, Copy, Debug)]
pub struct FilmView {
    /// In bytes from its begin.
    pub offset: u64,
    /// How long it is, if that is known.
    pub length: Option<u64>,
}
