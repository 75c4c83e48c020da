//! The simulated engine of `--demo`: a few channels to try the proxy with, on a machine that has no engine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::engine::{Content, Delivery, Getstream, Script, SimEngine};
use super::media::Media;
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
        engine.add(offline.script(Script::new().getstream(no_content)));
        Ok(Self { engine })
    }

    /// Where the engine listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.engine.addr()
    }

    /// The stream URLs to paste into a player, at the proxy's address.
    #[must_use]
    pub fn invitation(&self, proxy: SocketAddr) -> String {
        let mut text = String::from("\nOpen one of these in a player (VLC: Media, Open Network Stream):\n");
        for Channel { id, what, .. } in &CHANNELS {
            text.push_str(&format!("  http://{proxy}/ace/getstream?id={id}\n      {what}\n"));
        }
        text.push_str(&format!("\nWhat goes on: http://{proxy}/ (for programs: /proxy/status, /metrics)\n"));
        text
    }
}
