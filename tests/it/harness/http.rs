//! A bare and strict HTTP client over a TCP socket: what it forgives, some player would not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use super::LONG;

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection to a proxy, between two requests or before an answer.
pub(crate) struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    buffer: Vec<u8>,
    at: usize,
}

/// Ends a connection by a reset, as a player does that is killed in the middle of its bytes.
pub(crate) fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a live socket");
    drop(socket);
}

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As its framing says: the last chunk, or the whole length. The connection goes on.
    Complete,
    /// The connection was closed: between two chunks, or where there is no framing.
    Closed,
    /// The connection was closed within a chunk, or short of the length.
    Torn,
    /// The connection was reset.
    Reset,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(usize),
    /// Bytes left of the chunk that is being read.
    Chunked {
        left: usize,
        is_first: bool,
    },
    Close,
}

impl Connection {
    pub(crate) fn open(peer: SocketAddr) -> Self {
        Self::of(TcpStream::connect(peer).expect("it listens"), peer)
    }

    /// Over a socket that somebody else has connected.
    pub(crate) fn of(socket: TcpStream, peer: SocketAddr) -> Self {
        socket.set_read_timeout(Some(LONG)).expect("a live socket");
        socket.set_write_timeout(Some(LONG)).expect("a live socket");
        socket.set_nodelay(true).expect("a live socket");
        Self { socket, peer, buffer: Vec::new(), at: 0 }
    }

    /// What is awaited may take so long.
    pub(crate) fn wait_up_to(&mut self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).expect("a live socket");
    }

    /// Where this end of it is: how a log names the client.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a live socket")
    }

    /// Sends this text as it is.
    pub(crate) fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("it reads");
    }

    pub(crate) fn send_get(&mut self, target: &str) {
        self.send_request("GET", target, "");
    }

    /// Sends a request of HTTP/1.1 with these further header lines.
    pub(crate) fn send_request(&mut self, method: &str, target: &str, lines: &str) {
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: test\r\n{lines}\r\n", self.peer);
        self.send(&head);
    }

    /// Sends a GET and reads the head of its answer.
    pub(crate) fn get(mut self, target: &str) -> Reply {
        self.send_get(target);
        self.reply()
    }

    /// Reads the head of an answer.
    pub(crate) fn reply(self) -> Reply {
        Reply::read_head(self, false)
    }

    /// Reads the head of an answer to HEAD, which has no body whatever it says.
    pub(crate) fn reply_to_head(self) -> Reply {
        Reply::read_head(self, true)
    }

    /// Whether nothing comes and nothing ends for so long.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).expect("a live socket");
        let found = self.socket.peek(&mut [0]);
        self.socket.set_read_timeout(Some(LONG)).expect("a live socket");
        // The end of a chunk may lie there unread.
        let unread = &self.buffer[self.at..];
        (unread.is_empty() || unread == b"\r\n")
            && found.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// What comes until the connection ends.
    pub(crate) fn read_to_end(mut self) -> String {
        let mut bytes = Vec::new();
        while let Ok(range) = self.take(usize::MAX) {
            if range.is_empty() {
                break;
            }
            bytes.extend_from_slice(&self.buffer[range]);
        }
        String::from_utf8(bytes).expect("an answer is UTF-8")
    }

    /// Reads more: false at the end of the connection.
    fn fill(&mut self) -> Result<bool, End> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let read = loop {
            match self.socket.read(&mut self.buffer[length..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(End::Reset),
            Err(error) => panic!("nothing comes and nothing ends: {error}"),
        }
    }

    /// A line, without its CRLF; `Closed` if the connection ended before its first byte.
    fn line(&mut self) -> Result<String, End> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line = std::str::from_utf8(&rest[..length]).expect("protocol lines are ASCII");
                let line = line.strip_suffix('\r').expect("a line ends with CR and LF").to_owned();
                assert!(!line.contains('\r'), "a CR within {line:?}");
                self.at += length + 1;
                return Ok(line);
            }
            assert!(rest.len() < 8192, "a line without end");
            let is_empty = rest.is_empty();
            if !self.fill()? {
                return Err(if is_empty { End::Closed } else { End::Torn });
            }
        }
    }

    /// Reads up to the data of the next chunk (RFC 9112 section 7.1) and gives its size; 0 is the last, wholly read.
    fn chunk_size(&mut self, is_first: bool) -> Result<usize, End> {
        let inside = |end| if end == End::Closed { End::Torn } else { end };
        if !is_first {
            assert_eq!(self.line().map_err(inside)?, "", "CRLF behind the data of a chunk");
        }
        let line = self.line()?;
        let is_hex = (1..=16).contains(&line.len()) && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_hex, "{line:?} is no chunk size");
        let size = usize::from_str_radix(&line, 16).expect("hex digits");
        if size == 0 {
            assert_eq!(self.line().map_err(inside)?, "", "an empty line behind the last chunk");
        }
        Ok(size)
    }

    /// Where at most so many bytes lie in the buffer; empty at the end of the connection.
    fn take(&mut self, at_most: usize) -> Result<Range<usize>, End> {
        if self.at == self.buffer.len() {
            self.fill()?;
        }
        let from = self.at;
        self.at += at_most.min(self.buffer.len() - from);
        Ok(from..self.at)
    }
}

/// An answer whose head was read.
pub(crate) struct Reply {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    connection: Connection,
    framing: Framing,
    end: Option<End>,
}

impl Reply {
    fn read_head(mut connection: Connection, is_to_head: bool) -> Self {
        let line = connection.line().expect("a status line");
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().expect("a version").to_owned();
        assert!(version == "HTTP/1.1" || version == "HTTP/1.0", "{line}");
        let code = parts.next().filter(|code| code.len() == 3).expect("a status of three digits");
        let status = code.parse().expect("a status of three digits");
        assert!(parts.next().is_some(), "the blank behind the status is missing: {line}");
        let mut headers = Vec::new();
        loop {
            let line = connection.line().expect("a whole head");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header has a colon");
            assert!(
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
                "{line}"
            );
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let values = |wanted: &str| -> Vec<&str> {
            let found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.as_str()).collect()
        };
        let framing = match (values("Transfer-Encoding").as_slice(), values("Content-Length").as_slice()) {
            _ if is_to_head || status == 204 || status == 304 => Framing::Length(0),
            (["chunked"], []) => {
                assert_eq!(version, "HTTP/1.1", "HTTP/1.0 knows no chunks");
                Framing::Chunked { left: 0, is_first: true }
            }
            ([], [length]) => Framing::Length(length.parse().expect("a length is a number")),
            ([], []) => Framing::Close,
            other => panic!("contradictory framing: {other:?}"),
        };
        Self { version, status, headers, connection, framing, end: None }
    }

    /// The first header of this name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// Some bytes of the body, or its end.
    pub(crate) fn read(&mut self) -> Result<&[u8], End> {
        if let Some(end) = self.end {
            return Err(end);
        }
        match self.next_range() {
            Ok(range) => Ok(&self.connection.buffer[range]),
            Err(end) => {
                self.end = Some(end);
                Err(end)
            }
        }
    }

    fn next_range(&mut self) -> Result<Range<usize>, End> {
        if let Framing::Chunked { left: 0, is_first } = self.framing {
            self.framing = Framing::Chunked { left: self.connection.chunk_size(is_first)?, is_first: false };
        }
        let left = match &mut self.framing {
            Framing::Length(0) | Framing::Chunked { left: 0, .. } => return Err(End::Complete),
            Framing::Length(left) | Framing::Chunked { left, .. } => left,
            Framing::Close => {
                let range = self.connection.take(usize::MAX)?;
                return if range.is_empty() { Err(End::Closed) } else { Ok(range) };
            }
        };
        let range = self.connection.take(*left)?;
        *left -= range.len();
        if range.is_empty() { Err(End::Torn) } else { Ok(range) }
    }

    /// Reads the body to its end.
    pub(crate) fn bytes(&mut self) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            match self.read() {
                Ok(bytes) => body.extend_from_slice(bytes),
                Err(end) => return (body, end),
            }
        }
    }

    /// The whole body as text.
    pub(crate) fn text(&mut self) -> String {
        let (body, end) = self.bytes();
        assert_eq!(end, End::Complete, "the end of a body of {} bytes", body.len());
        String::from_utf8(body).expect("a text is UTF-8")
    }

    /// The whole body as JSON.
    pub(crate) fn json(&mut self) -> Value {
        assert_eq!(self.header("Content-Type"), Some("application/json"));
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The connection, for another request; the answer was read to its end.
    pub(crate) fn into_connection(self) -> Connection {
        let is_read = match self.framing {
            Framing::Length(left) => left == 0,
            _ => self.end == Some(End::Complete),
        };
        assert!(is_read, "the answer is not over: {:?}", self.end);
        self.connection
    }

    /// Whether nothing more comes and nothing ends for so long.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.connection.is_silent_for(time)
    }
}
