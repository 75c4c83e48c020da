//! Reading a stream off an engine: its body, or the HLS list that the body turns out to be, and how another thread ends
//! the reading.
//!
//! This is where the way of a chunk begins. It knows HTTP towards the engine; it does not know what the bytes
//! mean.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use ureq::BodyReader;

use super::agent::{Bounded, Line};
use super::api::{Api, EngineSession, Liveness};
use super::error::EngineError;
use super::file::{File, Head, Span, TELLING_BYTES};
use super::get::{Found, Getter};
use super::hls::Follower;
use super::m3u8;
use super::pulse::Pulse;
use super::url::Target;

/// As much of a body is read to tell a list from a stream, if it is there.
const LOOK_BYTES: usize = 1024;

/// Plays one session; a connection and an [`Interrupter`] of its own.
pub struct Player {
    getter: Getter,
}

/// Ends the reading of one [`Player`] from another thread: a connect, the wait for a header or a read in
/// progress returns at once, and no further one begins. (A connect in progress ends by its own limit.)
#[derive(Clone)]
pub struct Interrupter {
    line: Arc<Line>,
}

impl Interrupter {
    /// Ends the reading, now and for good. Does not block.
    pub fn interrupt(&self) {
        self.line.cut();
    }
}

impl Player {
    /// A player at this engine that has not asked for anything yet.
    #[must_use]
    pub fn new(api: &Api) -> Self {
        Self { getter: Getter::new(api) }
    }

    /// What ends this player's reading.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter { line: Arc::clone(self.getter.line()) }
    }

    /// Asks for the stream of a session and follows the engine's redirects, until the engine answers with a
    /// body.
    ///
    /// # Errors
    ///
    /// When the session has no playback URL, when there is no success status until `deadline`, when the engine redirects in circles or to a place
    /// outside playback, and when the [`Interrupter`] was used.
    pub fn play(self, session: &EngineSession, deadline: Instant) -> Result<Playback, EngineError> {
        let Self { getter } = self;
        // A file is asked for as players do it: only then it tells whether it has parts.
        let part = (session.liveness == Liveness::Vod).then_some(Span::WHOLE);
        let Found { status, head, target, body } =
            getter.get(session.playback.clone()?, part, deadline, Bounded::Head)?;
        let pulse = Arc::clone(getter.pulse());
        let source = Source::Unseen(Some(Box::new(Unseen { body, getter, target })));
        Ok(Playback { status, head, source, pulse })
    }

    /// Asks for a part of the file that is played there.
    ///
    /// # Errors
    ///
    /// The same, and when another part comes.
    pub fn play_part(
        &self,
        playback: &Target,
        span: Span,
        deadline: Instant,
    ) -> Result<Playback, EngineError> {
        let Found { status, head, target: _, body } =
            self.getter.get(playback.clone(), Some(span), deadline, Bounded::Head)?;
        // Who does not know parts sends all of it.
        if head.part.map_or(0, |(from, _)| from) != span.from {
            return Err(EngineError::NoAnswer("it sends another part of the film than was asked for"));
        }
        let pulse = Arc::clone(self.getter.pulse());
        let source = Source::Stream { begin: io::Cursor::new(Vec::new()), body };
        Ok(Playback { status, head, source, pulse })
    }

    /// Waits until then, or until the [`Interrupter`] was used: whether it was.
    #[must_use]
    pub fn wait_until(&self, deadline: Instant) -> bool {
        self.getter.line().wait_until(deadline)
    }
}

/// The body of a playback request, without chunked coding; if it is an HLS list, the segments of that, one after the
/// other, for as long as the list goes on. Dropping it closes the connection.
pub struct Playback {
    status: u16,
    head: Head,
    source: Source,
    pulse: Arc<Pulse>,
}

enum Source {
    /// What it is is not known yet; nothing if it failed while it was looked at.
    Unseen(Option<Box<Unseen>>),
    /// The stream itself; first what was read to tell.
    Stream { begin: io::Cursor<Vec<u8>>, body: BodyReader<'static> },
    /// An HLS list.
    List(Box<Follower>),
}

struct Unseen {
    body: BodyReader<'static>,
    getter: Getter,
    target: Target,
}

impl Playback {
    /// The engine's success status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether what the last read gave does not go on where the one before it ended, as the list says that it is read from.
    #[must_use]
    pub fn has_jumped(&self) -> bool {
        matches!(&self.source, Source::List(follower) if follower.has_jumped())
    }

    /// The file that this is the begin of; `None` if it is none, but a broadcast or a list.
    ///
    /// # Errors
    ///
    /// When it cannot be read, as for [`Read::read`].
    pub fn file(&mut self, liveness: Liveness) -> io::Result<Option<File>> {
        if liveness == Liveness::Live {
            return Ok(None);
        }
        self.look(TELLING_BYTES)?;
        let Source::Stream { begin, .. } = &self.source else {
            return Ok(None);
        };
        let begin = begin.get_ref();
        // What ends before it has begun is none of anything.
        let is_file = !begin.is_empty() && (liveness == Liveness::Vod || self.head.is_files(begin));
        Ok(is_file.then(|| self.head.file(begin)))
    }

    /// Reads until it can be told what this is, and so many bytes if there are.
    fn look(&mut self, wanted: usize) -> io::Result<()> {
        let Source::Unseen(unseen) = &mut self.source else {
            return Ok(());
        };
        let unseen = unseen.take().ok_or(io::ErrorKind::NotConnected)?;
        let Unseen { mut body, getter, target } = *unseen;
        let (mut begin, mut buffer) = (Vec::new(), [0; LOOK_BYTES]);
        let is_list = loop {
            let read = match body.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            begin.extend_from_slice(&buffer[..read]);
            match m3u8::is_list(&begin) {
                Some(true) => break true,
                Some(false) if begin.len() >= wanted => break false,
                _ if read == 0 => break false,
                _ => {}
            }
        };
        self.source = if is_list {
            Source::List(Box::new(Follower::begin(getter, target, begin, body)?))
        } else {
            Source::Stream { begin: io::Cursor::new(begin), body }
        };
        Ok(())
    }
}

impl Read for Playback {
    /// Reads what there is, at most as much as fits; blocks until there is something. `Ok(0)` is the end of the
    /// body, or an [`Interrupter`]'s work. Of an error [`EngineError::of_body`] tells more.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.look(0)?;
        let read = match &mut self.source {
            Source::Stream { begin, body } => match begin.read(buffer)? {
                0 => body.read(buffer),
                read => Ok(read),
            },
            Source::List(follower) => follower.read(buffer),
            Source::Unseen(_) => Err(io::ErrorKind::NotConnected.into()),
        }?;
        if read > 0 {
            self.pulse.record_packets(Instant::now());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::engine::api::Opening;
    use crate::id::{ContentKey, ContentName, Digest, EngineParams};
    use crate::sim::{Content, Counts, Entry, Hls, Media, Numbered, PlaybackStep as Play, Script, SimEngine};
    use crate::threads::{SMALL_STACK_BYTES, Threads};

    const ID: Digest = Digest::new([0x1d; 20]);
    const SOON: Duration = Duration::from_secs(20);

    /// A channel.
    fn content() -> Content {
        Content::live(ID, Digest::new([0x2d; 20]), Media::Numbered(Numbered::default()))
    }

    /// A channel that behaves so.
    fn playing(playback: Play) -> Content {
        content().script(Script::new().playback(playback))
    }

    /// An engine with this channel, and a session of it.
    fn opened(content: Content) -> (SimEngine, Api, EngineSession) {
        let engine = SimEngine::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        engine.add(content);
        let api = Api::new(&engine.addr().to_string());
        let key = ContentKey { name: ContentName::Id(ID), params: EngineParams::default() };
        let session = api.open(&key, Opening::Plain, Instant::now() + SOON).expect("a session");
        (engine, api, session)
    }

    /// How long the work goes on after it was interrupted, at best of several times: a busy machine is slow to wake
    /// anybody.
    fn interrupted_within(
        content: &Content,
        is_blocked: fn(&Counts) -> bool,
        work: fn(Player, &EngineSession),
    ) -> Duration {
        let once = || {
            let (engine, api, session) = opened(content.clone());
            let player = Player::new(&api);
            let interrupter = player.interrupter();
            let (tell, told) = crossbeam_channel::bounded(1);
            let threads = Threads::new();
            let body = move || {
                work(player, &session);
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
        let took = interrupted_within(&playing(Play::never_a_byte()), is_playing, |player, session| {
            // On a very busy machine the head may still be under way when the interruption comes.
            if let Ok(mut playback) = player.play(session, Instant::now() + SOON) {
                assert!(!matches!(playback.read(&mut [0; 1000]), Ok(1..)));
            }
        });
        assert!(took < Duration::from_millis(10), "{took:?}");
    }

    #[test]
    fn the_wait_for_a_list_is_interrupted_at_once() {
        let listed = content().hls(Hls { window: 1, ..Hls::of(SOON) });
        let has_read_all = |counts: &Counts| counts.segments == 1;
        let took = interrupted_within(&listed, has_read_all, |player, session| {
            let playback = player.play(session, Instant::now() + SOON);
            let mut playback = playback.expect("it plays");
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(1..) = playback.read(&mut buffer) {}
        });
        assert!(took < Duration::from_millis(10), "{took:?}");
    }

    #[test]
    fn the_wait_for_a_head_is_interrupted_at_once() {
        let is_asked = |counts: &Counts| counts.playback_requests == 1;
        let took = interrupted_within(&playing(Play::entry(Entry::Never)), is_asked, |player, session| {
            assert!(player.play(session, Instant::now() + SOON).is_err());
        });
        assert!(took < Duration::from_millis(10), "{took:?}");
    }

    #[test]
    fn an_interrupted_player_does_not_begin() {
        let (engine, api, session) = opened(playing(Play::normal()));
        let player = Player::new(&api);
        player.interrupter().interrupt();
        assert!(player.play(&session, Instant::now() + SOON).is_err());
        assert_eq!(engine.counts().playback_requests, 0);
    }

    #[test]
    fn a_redirect_is_followed_on_a_connection_of_its_own() {
        let (engine, api, session) = opened(playing(Play::normal()));
        let mut playback = Player::new(&api).play(&session, Instant::now() + SOON).expect("it plays");
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
