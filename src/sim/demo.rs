//! The simulated engine of `--demo`: a few channels and a film to try the proxy with, on a machine that has no engine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::engine::{BodyEvent, Content, Delivery, FilmFile, Getstream, PlaybackStep, Script, SimEngine};
use super::guide;
use super::media::{FileBytes, Media};
use crate::id::Digest;

/// A channel of the demo.
struct Channel {
    id: Digest,
    infohash: Digest,
    what: &'static str,
}

impl Channel {
    /// The id is made of one repeated byte, so that a person can tell channels apart; the infohash is another, as in
    /// real engines.
    const fn new(byte: u8, what: &'static str) -> Self {
        Self { id: Digest::new([byte; 20]), infohash: Digest::new([!byte; 20]), what }
    }
}

/// The playable clip is the first.
const CHANNELS: [Channel; 3] = [
    Channel::new(0x11, "test picture with a clock and a tone"),
    Channel::new(0x22, "the same after a cold start of 8 seconds"),
    Channel::new(0x33, "a channel that is offline: the player is told so"),
];

/// A film of three minutes.
const FILM: Channel = Channel::new(
    0x88,
    "a film to seek in; what lies ahead loads slowly, as if few had it (the file is an MP4)",
);

/// So much of the film is there from the beginning, and each further piece of 16 KiB takes so long: a seek takes a moment,
/// and playing never waits.
const FILM_DOWNLOADED_BYTES: u64 = 64 * 1024;
const FILM_PIECE: Duration = Duration::from_millis(700);

/// Contents of the channel list beside those: three that play, one that dies after a while, and one that is not there.
const SECOND: Digest = Digest::new([0x44; 20]);
const SPARE: Digest = Digest::new([0x55; 20]);
const HEIR: Digest = Digest::new([0x12; 20]);
const MORTAL: Digest = Digest::new([0x66; 20]);
const DEAD: Digest = Digest::new([0x77; 20]);

/// So long lives [`MORTAL`], and so many bytes has the clip in a second.
const LIFE: Duration = Duration::from_secs(20);
const CLIP_BYTES_PER_SECOND: u64 = 62_393;

/// A channel of the list: its name, its group, and what plays it in order of preference.
pub type Listed = (&'static str, &'static str, &'static [Digest]);

/// The channel list: one with a dead first source, one whose first source dies, one cold, one offline, two good.
pub const LIST: [Listed; 6] = [
    ("Test Picture", "Good", &[CHANNELS[0].id]),
    ("Second Picture", "Good", &[SECOND]),
    ("Dead First Source", "Trouble", &[DEAD, SPARE]),
    ("Source Dies After 20 Seconds", "Trouble", &[MORTAL, HEIR]),
    ("Cold Start", "Trouble", &[CHANNELS[1].id]),
    ("Offline", "Trouble", &[CHANNELS[2].id]),
];

/// Where the engine's port has the guide, too, so that it takes the way of every other guide.
const GUIDE_PATH: &str = "/guide.xml";

const COLD_START: Duration = Duration::from_secs(8);

/// A running demo engine.
pub struct Demo {
    engine: SimEngine,
}

impl Demo {
    /// Starts the engine on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// When there is no port or no thread to be had.
    pub fn start() -> io::Result<Self> {
        let engine = SimEngine::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let [picture, cold, offline] =
            CHANNELS.map(|channel| Content::live(channel.id, channel.infohash, Media::Clip));
        engine.add(picture);
        engine.add(cold.delivery(Delivery { prebuffer: COLD_START, ..Delivery::default() }));
        let no_content = Getstream::Error("failed to load content".to_owned());
        engine.add(offline.script(Script::new().getstream(no_content.clone())));
        let further = |id: Digest, byte: u8| Content::live(id, Digest::new([!byte; 20]), Media::Clip);
        engine.add(further(SECOND, 0x44));
        engine.add(further(SPARE, 0x55));
        engine.add(further(HEIR, 0x12));
        let dies = PlaybackStep::after(LIFE.as_secs() * CLIP_BYTES_PER_SECOND, BodyEvent::End);
        engine.add(further(MORTAL, 0x66).script(Script::new().playback(dies)));
        engine.add(further(DEAD, 0x77).script(Script::new().getstream(no_content)));
        let file = FilmFile {
            downloaded: FILM_DOWNLOADED_BYTES,
            piece: FILM_PIECE,
            ..FilmFile::new("test film.mp4", FileBytes::Film)
        };
        engine.add(Content::files(FILM.id, FILM.infohash, vec![file]));
        engine.serve(GUIDE_PATH, || guide::make(&LIST.map(|(name, group, _)| (name, group))));
        Ok(Self { engine })
    }

    /// Where the engine listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.engine.addr()
    }

    /// Where the guide of its channels is fetched from.
    #[must_use]
    pub fn guide_url(&self) -> String {
        format!("{}{GUIDE_PATH}", self.engine.url())
    }

    /// The stream URLs to paste into a player, at the proxy's address.
    #[must_use]
    pub fn invitation(&self, proxy: SocketAddr) -> String {
        let mut text = String::from("\nOpen one of these in a player (VLC: Media, Open Network Stream):\n");
        for Channel { id, what, .. } in CHANNELS.iter().chain([&FILM]) {
            text.push_str(&format!("  http://{proxy}/ace/getstream?id={id}\n      {what}\n"));
        }
        text.push_str(&format!(
            "\nOr all six channels of its list at once, and what is on (TiviMate, Kodi, VLC):\n  \
             http://{proxy}/playlist.m3u\n  http://{proxy}/epg.xml\n\
             \nOr as a tuner, a HDHomeRun at this address (Plex, Jellyfin, Emby):\n  {proxy}\n"
        ));
        text.push_str(&format!("\nWhat goes on: http://{proxy}/ (for programs: /proxy/status, /metrics)\n"));
        text
    }
}
