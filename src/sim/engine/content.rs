//! What a simulated engine can play, how its bytes leave it, and what goes wrong with it. Values only.

use std::time::Duration;

use super::super::media::Media;
use super::super::media::packet::PACKET_BYTES;
use super::file::FilmFile;
use super::listing::Hls;
use super::script::Script;
use crate::id::Digest;

/// One broadcast or film that the engine knows.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its content id: what `id` and `content_id` look up.
    pub id: Digest,
    /// Its infohash: what `infohash` looks up, and what stands in every URL.
    pub infohash: Digest,
    /// Whether it is a broadcast.
    pub is_live: bool,
    /// The name that `get_media_files` gives.
    pub name: String,
    /// What is in the stream.
    pub media: Media,
    /// How it leaves the engine.
    pub delivery: Delivery,
    /// Whether getstream says that it does not know whether it is a broadcast.
    pub is_untold: bool,
    /// The files that it consists of; `_idx` names the one that is played. None: the media is.
    pub files: Vec<FilmFile>,
    /// The list that its playback is, if it is one.
    pub hls: Option<Hls>,
    /// What is made of each packet, if it is not sent as it is.
    pub dress: Option<Dress>,
    /// What goes wrong with it.
    pub script: Script,
}

/// Makes of a packet, of which it is told the place in the broadcast, what is sent in its stead: several, none, or no packet at
/// all.
pub type Dress = fn(u64, &[u8; PACKET_BYTES], &mut Vec<u8>);

impl Content {
    /// A broadcast.
    #[must_use]
    pub fn live(id: Digest, infohash: Digest, media: Media) -> Self {
        Self {
            id,
            infohash,
            is_live: true,
            name: format!("simulated {infohash}"),
            media,
            delivery: Delivery::default(),
            is_untold: false,
            files: Vec::new(),
            hls: None,
            dress: None,
            script: Script::default(),
        }
    }

    /// A film: every reader begins at its start.
    #[must_use]
    pub fn film(id: Digest, infohash: Digest, media: Media) -> Self {
        let mut content = Self::live(id, infohash, media);
        content.is_live = false;
        content.delivery.begin = Begin::Start;
        content.delivery.skip_bytes = 0;
        content
    }

    /// A film that consists of these files.
    #[must_use]
    pub fn files(id: Digest, infohash: Digest, files: Vec<FilmFile>) -> Self {
        Self { files, ..Self::film(id, infohash, Media::Clip) }
    }

    /// Whether it is a broadcast is not told.
    #[must_use]
    pub fn untold(mut self) -> Self {
        self.is_untold = true;
        self
    }

    /// With another delivery.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// As an HLS list.
    #[must_use]
    pub fn hls(mut self, hls: Hls) -> Self {
        self.hls = Some(hls);
        self
    }

    /// In another dress.
    #[must_use]
    pub fn dress(mut self, dress: Dress) -> Self {
        self.dress = Some(dress);
        self
    }

    /// With a script of faults.
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }
}

/// What frees the download of a content that is stuck ([`SimEngine::stick`](super::SimEngine::stick)). Another engine has
/// a download of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// A getstream or playback that comes when nobody has had a body of the content open for so long;
    /// `Duration::MAX` is never.
    pub quiet: Duration,
    /// A getstream with `force_session_restart=1`.
    pub is_freed_by_restart: bool,
}

impl Stuck {
    /// Only so long a silence helps.
    #[must_use]
    pub fn until_quiet(quiet: Duration) -> Self {
        Self { quiet, is_freed_by_restart: false }
    }

    /// Only a restart helps.
    #[must_use]
    pub fn until_restart() -> Self {
        Self { quiet: Duration::MAX, is_freed_by_restart: true }
    }
}

/// How a content's bytes leave the engine.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// From getstream until data can flow; `/ace/r` holds that long.
    pub prebuffer: Duration,
    /// What comes at once, from the engine's cache.
    pub burst: Burst,
    /// How fast the rest comes.
    pub pace: Pace,
    /// Where in the stream a reader begins.
    pub begin: Begin,
    /// How the end of the body is told.
    pub framing: Framing,
    /// Sizes of the writes, taken in turn. None of them need divide by 188; but a packet that is cut in two
    /// seems late to the [`Checker`](crate::sim::Checker), so whoever measures times takes multiples.
    pub write_bytes: Vec<usize>,
    /// Bytes of the first packet that are left out: a body need not begin on a packet.
    pub skip_bytes: usize,
    /// The Content-Type of the body; none was ever recorded, so nobody may depend on it.
    pub content_type: Option<String>,
}

impl Default for Delivery {
    /// Quick to start, in all else as awkward as an engine: odd writes, a body that begins in mid-packet.
    fn default() -> Self {
        Self {
            prebuffer: Duration::from_millis(20),
            burst: Burst::Time(Duration::from_secs(1)),
            pace: Pace::RealTime,
            begin: Begin::Live,
            framing: Framing::Close,
            write_bytes: vec![1391, 8191, 211, 4099],
            skip_bytes: 71,
            content_type: Some("application/octet-stream".to_owned()),
        }
    }
}

impl Delivery {
    /// How much of the stream's own time is sent ahead of it.
    pub(super) fn ahead(&self, media: &Media) -> Duration {
        match self.burst {
            Burst::Time(time) => time,
            Burst::Bytes(bytes) => media.due(bytes / PACKET_BYTES as u64),
        }
    }

    /// Whole packets from the first one on, as fast as the reader takes them, in large writes.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            pace: Pace::Unlimited,
            begin: Begin::Start,
            write_bytes: vec![64 * 1024],
            skip_bytes: 0,
            ..Self::default()
        }
    }
}

/// What a new reader gets at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burst {
    /// So many bytes.
    Bytes(u64),
    /// So much of the stream's own time.
    Time(Duration),
}

/// How fast a body is sent after the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As the stream's own clock says.
    RealTime,
    /// As fast as the reader takes it.
    Unlimited,
}

/// Where a new reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the broadcast's present place, on whatever packet that is. The broadcast runs since it was added to
    /// the engine; a reader who comes back gets the burst's worth again.
    Live,
    /// So long before that, and as fast as the reader takes it up to the present: an engine that keeps its live
    /// buffer, and sends who comes back what it was sent before.
    Behind(Duration),
    /// At the first packet.
    Start,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By closing the connection.
    Close,
    /// Chunked coding, a chunk a write.
    Chunked,
    /// A Content-Length of so many bytes, whatever the stream holds.
    Length(u64),
}
