//! A bare HTTP client, and the contents that the tests play.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{Checker, Content, Delivery, Media, Numbered, Report, Script, Settings, SimEngine};
use crate::id::Digest;

/// Far longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(30);

pub(super) const ID: Digest = Digest::new([0x11; 20]);
pub(super) const INFOHASH: Digest = Digest::new([0x22; 20]);
pub(super) const OTHER_ID: Digest = Digest::new([0x33; 20]);
pub(super) const OTHER_INFOHASH: Digest = Digest::new([0x44; 20]);

/// An engine with these settings and no content.
pub(super) fn empty(settings: Settings) -> SimEngine {
    SimEngine::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), settings).expect("an engine")
}

/// An engine with two endless contents that come as fast as they are read.
pub(super) fn engine() -> SimEngine {
    let engine = empty(Settings::default());
    engine.add(content(ID, INFOHASH));
    engine.add(content(OTHER_ID, OTHER_INFOHASH));
    engine
}

/// The same, with a script for the first content.
pub(super) fn scripted(script: Script) -> SimEngine {
    let engine = engine();
    engine.set_script(ID, script);
    engine
}

pub(super) fn content(id: Digest, infohash: Digest) -> Content {
    let media = Media::Numbered(Numbered::default());
    Content::live(id, infohash, media)
        .delivery(Delivery { write_bytes: vec![1391, 8191, 211, 4099], ..Delivery::unlimited() })
}

/// A connection with an answer's head read off it.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    socket: TcpStream,
    rest: Vec<u8>,
}

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Clean,
    Reset,
}

pub(super) fn connect(engine: &SimEngine) -> TcpStream {
    let socket = TcpStream::connect(engine.addr()).expect("it listens");
    socket.set_read_timeout(Some(LONG)).expect("a live socket");
    socket
}

/// Sends a GET, without waiting for anything.
pub(super) fn send(engine: &SimEngine, target: &str) -> TcpStream {
    let mut socket = connect(engine);
    let head = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", engine.addr());
    socket.write_all(head.as_bytes()).expect("it reads");
    socket
}

/// GETs a path, or a URL of the engine's.
pub(super) fn get(engine: &SimEngine, target: &str) -> Answer {
    let target = target.strip_prefix(&engine.url()).unwrap_or(target);
    Answer::read(send(engine, target))
}

/// Sends these bytes.
pub(super) fn raw(engine: &SimEngine, request: &str) -> Answer {
    let mut socket = connect(engine);
    socket.write_all(request.as_bytes()).expect("it reads");
    Answer::read(socket)
}

impl Answer {
    pub(super) fn read(mut socket: TcpStream) -> Self {
        let mut rest = Vec::new();
        let mut byte = [0];
        while !rest.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).expect("a whole head");
            rest.push(byte[0]);
        }
        let head = String::from_utf8(rest).expect("heads are ASCII");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self { status: status.expect("a status line"), head, socket, rest: Vec::new() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The body by its Content-Length.
    pub(super) fn text(&mut self) -> String {
        let length = self.header("Content-Length").expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        self.socket.read_exact(&mut body).expect("a whole body");
        String::from_utf8(body).expect("UTF-8")
    }

    pub(super) fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).expect("JSON")
    }

    /// Exactly so many bytes of the body.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut body = vec![0; bytes];
        self.socket.read_exact(&mut body).expect("enough bytes");
        body
    }

    /// Everything up to the end, and how that came.
    pub(super) fn read_to_end(&mut self) -> (Vec<u8>, End) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return (std::mem::take(&mut self.rest), End::Clean),
                Ok(count) => self.rest.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return (std::mem::take(&mut self.rest), End::Reset);
                }
                Err(error) => panic!("no end after {} bytes: {error}", self.rest.len()),
            }
        }
    }

    /// Reads on until nothing comes any more.
    pub(super) fn fall_silent(&mut self) {
        let deadline = Instant::now() + LONG;
        while !self.is_silent() {
            assert!(Instant::now() < deadline, "it goes on");
        }
    }

    /// Whether nothing comes and nothing ends for a moment. It can only miss a fault, not see a false one.
    pub(super) fn is_silent(&mut self) -> bool {
        let moment = Some(Duration::from_millis(60));
        self.socket.set_read_timeout(moment).expect("a live socket");
        let found = self.socket.read(&mut [0; 16 * 1024]);
        self.socket.set_read_timeout(Some(LONG)).expect("a live socket");
        found.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

/// A started session: the answer's fields.
pub(super) struct Started(pub(super) Value);

impl Started {
    pub(super) fn url(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.0))
    }

    /// Opens the playback URL and follows its redirect.
    pub(super) fn play(&self, engine: &SimEngine) -> Answer {
        follow(engine, self.url("playback_url"))
    }

    pub(super) fn stop(&self, engine: &SimEngine) -> String {
        get(engine, &format!("{}?method=stop", self.url("command_url"))).text()
    }
}

/// Follows a redirect to its body.
pub(super) fn follow(engine: &SimEngine, url: &str) -> Answer {
    let redirect = get(engine, url);
    assert_eq!(redirect.status, 302, "{}", redirect.head);
    get(engine, redirect.header("Location").expect("a Location"))
}

/// Starts a session with this query.
pub(super) fn start(engine: &SimEngine, query: &str) -> Started {
    let mut answer = get(engine, &format!("/ace/getstream?format=json&{query}"));
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert!(json["error"].is_null(), "{json}");
    Started(json["response"].clone())
}

/// Starts the first content as player `pid`.
pub(super) fn start_as(engine: &SimEngine, pid: &str) -> Started {
    start(engine, &format!("id={ID}&pid={pid}"))
}

/// Starts the first content and opens its body.
pub(super) fn play(engine: &SimEngine) -> Answer {
    start_as(engine, "1").play(engine)
}

pub(super) fn check(bytes: &[u8]) -> Report {
    let mut checker = Checker::new();
    checker.feed(bytes);
    checker.finish()
}
