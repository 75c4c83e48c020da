//! Reading a stream off an engine: the redirects, the body, and how another thread ends the reading.
//!
//! This is where the way of a chunk begins. It knows HTTP towards the engine; it does not know what the bytes
//! mean.

use std::io::{self, Read};
use std::time::Instant;

use ureq::Agent;
use ureq::http::header::LOCATION;

use super::agent::base_config;
use super::answer::excerpt;
use super::api::EngineSession;
use super::error::{EngineError, classify};
use super::url::Target;

/// An engine makes two (engine-contract.md section 1.3).
const MAX_REDIRECTS: usize = 5;

/// As much of an error's body as is worth reading.
const MAX_ERROR_BYTES: u64 = 4096;

/// Plays one session; a connection and an [`Interrupter`] of its own.
pub struct Player {
    agent: Agent,
}

/// Ends the reading of one [`Player`] from another thread: a connect, the wait for a header or a read in
/// progress returns at once, and no further one begins. (A name look-up or connect in progress ends by its own
/// limit.)
#[derive(Clone)]
pub struct Interrupter {
    agent: Agent,
}

impl Interrupter {
    /// Ends the reading, now and for good. Does not block.
    pub fn interrupt(&self) {
        self.agent.clone().shutdown();
    }
}

impl Player {
    /// A player that has not asked for anything yet.
    #[must_use]
    pub fn new() -> Self {
        // No limit on the body: every one that ureq offers is a total, and a broadcast has no end.
        Self { agent: base_config().build().new_agent() }
    }

    /// What ends this player's reading.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter { agent: self.agent.clone() }
    }

    /// Asks for the stream of a session and follows the engine's redirects, until the engine answers with a
    /// body.
    ///
    /// # Errors
    ///
    /// When the session has no playback URL, when there is no success status until `deadline`, when the engine redirects in circles or to a place
    /// outside playback, and when the [`Interrupter`] was used.
    pub fn play(
        self,
        authority: &str,
        session: &EngineSession,
        deadline: Instant,
    ) -> Result<Playback, EngineError> {
        let mut target = session.playback.clone()?;
        for _ in 0..=MAX_REDIRECTS {
            let limit = deadline.saturating_duration_since(Instant::now());
            let request =
                self.agent.get(target.on(authority)).config().timeout_recv_response(Some(limit)).build();
            let response = request.call().map_err(|error| classify(error, limit))?;
            let status = response.status();
            if status.is_redirection() {
                // The body is dropped unread, and the connection with it: it has neither length nor end.
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                target = Target::rebase(location.ok_or(EngineError::NoAnswer("a redirect to nowhere"))?)?;
                continue;
            }
            let body = response.into_body();
            if !status.is_success() {
                return Err(EngineError::Status(status.as_u16(), error_text(body)));
            }
            return Ok(Playback { status: status.as_u16(), body: body.into_reader() });
        }
        Err(EngineError::TooManyRedirects)
    }
}

/// The text of an error answer, if its length is known: one without a length may never end.
fn error_text(body: ureq::Body) -> String {
    if body.content_length().is_none_or(|length| length > MAX_ERROR_BYTES) {
        return String::new();
    }
    let mut text = Vec::new();
    match body.into_reader().take(MAX_ERROR_BYTES).read_to_end(&mut text) {
        Ok(_) => excerpt(&String::from_utf8_lossy(&text)),
        Err(_) => String::new(),
    }
}

impl Default for Player {
    fn default() -> Self {
        Self::new()
    }
}

/// The body of a playback request, without chunked coding. Dropping it closes the connection.
pub struct Playback {
    status: u16,
    body: ureq::BodyReader<'static>,
}

impl Playback {
    /// The engine's success status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }
}

impl Read for Playback {
    /// Reads what there is, at most as much as fits; blocks until there is something. `Ok(0)` is the end of the
    /// body, or an [`Interrupter`]'s work.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::engine::api::Api;
    use crate::id::{ContentKey, ContentName, Digest, EngineParams};
    use crate::sim::{Content, Counts, Entry, Media, Numbered, PlaybackStep as Play, Script, SimEngine};
    use crate::threads::{SMALL_STACK_BYTES, Threads};

    const ID: Digest = Digest::new([0x1d; 20]);
    const SOON: Duration = Duration::from_secs(20);

    /// An engine whose only channel behaves so, and a session of it.
    fn opened(playback: Play) -> (SimEngine, Api, EngineSession) {
        let engine = SimEngine::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let media = Media::Numbered(Numbered::default());
        let content = Content::live(ID, Digest::new([0x2d; 20]), media);
        engine.add(content.script(Script::new().playback(playback)));
        let api = Api::new(engine.addr().to_string());
        let key = ContentKey { name: ContentName::Id(ID), params: EngineParams::default() };
        let session = api.open(&key, Instant::now() + SOON).expect("a session");
        (engine, api, session)
    }

    /// How long the work goes on after it was interrupted, at best of several times: a busy machine is slow to wake
    /// anybody.
    fn interrupted_within(
        playback: &Play,
        is_blocked: fn(&Counts) -> bool,
        work: fn(Player, &Api, &EngineSession),
    ) -> Duration {
        let once = || {
            let (engine, api, session) = opened(playback.clone());
            let player = Player::new();
            let interrupter = player.interrupter();
            let (tell, told) = crossbeam_channel::bounded(1);
            let threads = Threads::new();
            let body = move || {
                work(player, &api, &session);
                tell.send(Instant::now()).expect("the test waits");
            };
            threads.spawn("reader", SMALL_STACK_BYTES, body).expect("a thread");
            assert!(engine.wait_for(SOON, is_blocked));
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it is blocked");
            let began = Instant::now();
            interrupter.interrupt();
            told.recv_timeout(SOON).expect("it ends").saturating_duration_since(began)
        };
        (0..5).map(|_| once()).min().expect("five times")
    }

    #[test]
    fn a_blocked_read_is_interrupted_at_once() {
        let is_playing = |counts: &Counts| counts.playbacks == 1;
        let took = interrupted_within(&Play::never_a_byte(), is_playing, |player, api, session| {
            // On a very busy machine the head may still be under way when the interruption comes.
            if let Ok(mut playback) = player.play(api.authority(), session, Instant::now() + SOON) {
                assert!(!matches!(playback.read(&mut [0; 1000]), Ok(1..)));
            }
        });
        assert!(took < Duration::from_millis(10), "{took:?}");
    }

    #[test]
    fn the_wait_for_a_head_is_interrupted_at_once() {
        let is_asked = |counts: &Counts| counts.playback_requests == 1;
        let took = interrupted_within(&Play::entry(Entry::Never), is_asked, |player, api, session| {
            assert!(player.play(api.authority(), session, Instant::now() + SOON).is_err());
        });
        assert!(took < Duration::from_millis(10), "{took:?}");
    }

    #[test]
    fn an_interrupted_player_does_not_begin() {
        let (engine, api, session) = opened(Play::normal());
        let player = Player::new();
        player.interrupter().interrupt();
        assert!(player.play(api.authority(), &session, Instant::now() + SOON).is_err());
        assert_eq!(engine.counts().playback_requests, 0);
    }

    #[test]
    fn a_redirect_is_followed_on_a_connection_of_its_own() {
        let (engine, api, session) = opened(Play::normal());
        let mut playback =
            Player::new().play(api.authority(), &session, Instant::now() + SOON).expect("it plays");
        assert!(matches!(playback.read(&mut [0; 1000]), Ok(1..)));
        let counts = engine.counts();
        assert_eq!((counts.playback_requests, counts.playbacks, counts.after_redirect), (1, 1, 0));
        let requests = engine.requests();
        let played: Vec<_> = requests
            .iter()
            .filter(|request| request.path.contains("/r/") || request.path.starts_with("/content"))
            .collect();
        assert_eq!(played.len(), 2);
        for request in played {
            assert_eq!(request.header("User-Agent"), Some("VLC/3.0.21 LibVLC/3.0.21"));
            assert_eq!(request.header("Accept"), Some("*/*"));
            assert_eq!(request.header("Accept-Encoding"), Some("identity"));
            assert_eq!(request.header("Range"), None);
        }
    }
}
