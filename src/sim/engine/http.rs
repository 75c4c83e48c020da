//! One connection of the simulated engine: heads in, answers out, exactly as Python's `BaseHTTPServer` words
//! them. Knows no paths and no sessions.
//!
//! Raw on purpose: an engine sends redirects without a length, two status lines, resets and silence, which no
//! HTTP library would.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use socket2::SockRef;

use super::counts::RequestRecord;

/// `BaseHTTPServer` refuses longer lines; a whole head within it is ample for any player.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// How long a blocked write sleeps in the kernel before it looks whether it should go on.
const WRITE_SLICE: Duration = Duration::from_millis(100);
/// The `Server` header of engine 3.1.75 (engine-contract.md 1.3).
const SERVER: &str = "BaseHTTP/0.6 Python/3.8.16";

/// A connection and what was read of it but not used yet.
pub(super) struct Connection {
    socket: Arc<TcpStream>,
    input: Vec<u8>,
}

impl Connection {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(WRITE_SLICE))?;
        Ok(Self { socket: Arc::new(socket), input: Vec::new() })
    }

    /// The socket, for those who may have to shut it down.
    pub(super) fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Reads the next head. `None` at the end, and for what is no HTTP (which is answered with 400).
    pub(super) fn read_request(&mut self, at: Duration) -> io::Result<Option<RequestRecord>> {
        loop {
            match parse_head(&self.input, at) {
                Ok(Some((record, head_bytes))) => {
                    self.input.drain(..head_bytes);
                    return Ok(Some(record));
                }
                Ok(None) if self.input.len() < MAX_HEAD_BYTES => {}
                Ok(None) | Err(_) => {
                    self.send(&Answer::error(400, "Bad request syntax"))?;
                    return Ok(None);
                }
            }
            let mut buffer = [0; 4096];
            match (&*self.socket).read(&mut buffer)? {
                0 => return Ok(None),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Throws a request's body away.
    pub(super) fn skip_body(&mut self, mut length: usize) -> io::Result<()> {
        loop {
            let take = length.min(self.input.len());
            self.input.drain(..take);
            length -= take;
            if length == 0 {
                return Ok(());
            }
            let mut buffer = [0; 4096];
            match (&*self.socket).read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }

    pub(super) fn send(&self, answer: &Answer) -> io::Result<()> {
        self.write_all(&answer.bytes(), || true)
    }

    /// Writes everything, however slow the peer, as long as `goes_on`.
    pub(super) fn write_all(&self, mut bytes: &[u8], mut goes_on: impl FnMut() -> bool) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&*self.socket).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    if !goes_on() {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the peer closes, or says something, which it should not: whether it did.
    pub(super) fn wait_for_end(&mut self) -> bool {
        let mut buffer = [0; 64];
        let spoke = self.input.is_empty() && matches!((&*self.socket).read(&mut buffer), Ok(1..));
        spoke || !self.input.is_empty()
    }

    /// Makes the coming close a reset (RST).
    pub(super) fn reset_on_close(&self) {
        // It fails only for a socket that is dead already.
        let _ = SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO));
    }

    /// Says that nothing more comes.
    pub(super) fn end_cleanly(&self) {
        // It fails only if the peer has gone.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// Whether the peer of this socket has closed it, or it is dead.
pub(super) fn is_gone(socket: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit(); 1];
    let peeked = SockRef::from(socket).recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    match peeked {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

fn parse_head(input: &[u8], at: Duration) -> Result<Option<(RequestRecord, usize)>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(input)? else {
        return Ok(None);
    };
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let record = RequestRecord {
        at,
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: request
            .headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value).into_owned();
                (header.name.to_owned(), value)
            })
            .collect(),
        minor_version: request.version.unwrap_or(0),
    };
    Ok(Some((record, head_bytes)))
}

/// An answer with a body of known length, or a redirect with neither body nor length.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    content_type: &'static str,
    body: Option<String>,
    location: Option<String>,
    closes: bool,
}

impl Answer {
    /// An envelope as Python's `json.dumps` writes it: a value under `key`, then the error if there is to be
    /// one. The order is that of all recorded answers.
    pub(super) fn json(key: &str, value: &Value, error: Option<&Value>) -> Self {
        Self::text(200, "application/json", envelope(key, value, error))
    }

    pub(super) fn text(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, body: Some(body.into()), location: None, closes: false }
    }

    /// A short reason in plain text (engine-contract.md 1.3).
    pub(super) fn plain(status: u16, reason: &str) -> Self {
        Self::text(status, "text/plain", reason)
    }

    /// What `BaseHTTPRequestHandler.send_error` sends: HTML, and the connection closes.
    pub(super) fn error(status: u16, reason: &str) -> Self {
        let body = format!("<html><body><h1>Error response</h1><p>{status}: {reason}</p></body></html>\n");
        Self { closes: true, ..Self::text(status, "text/html;charset=utf-8", body) }
    }

    /// A redirect as real engines send it: no Content-Length, no Transfer-Encoding, no `Connection: close`.
    pub(super) fn redirect(location: String) -> Self {
        Self { status: 302, content_type: "", body: None, location: Some(location), closes: false }
    }

    /// Without its body, as an answer to HEAD.
    pub(super) fn without_body(mut self) -> Self {
        self.body = None;
        self
    }

    pub(super) fn is_redirect(&self) -> bool {
        self.location.is_some()
    }

    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = AnswerHead::new(self.status);
        if let Some(location) = &self.location {
            head = head.with("Location", location);
        } else {
            head = head.with("Content-Type", self.content_type);
        }
        if self.closes {
            head = head.with("Connection", "close");
        }
        if let Some(body) = &self.body {
            head = head.with("Content-Length", &body.len().to_string());
        }
        let body = self.body.as_deref().unwrap_or_default();
        [head.finish().as_slice(), body.as_bytes()].concat()
    }
}

/// The head of an answer, line by line.
pub(super) struct AnswerHead(String);

impl AnswerHead {
    /// Status line, `Server`, `Date` and the CORS header that engines send with everything.
    pub(super) fn new(status: u16) -> Self {
        let line = status_line(status);
        let date = httpdate::fmt_http_date(SystemTime::now());
        Self(format!("{line}Server: {SERVER}\r\nDate: {date}\r\nAccess-Control-Allow-Origin: *\r\n"))
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.extend([name, ": ", value, "\r\n"]);
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push_str("\r\n");
        self.0.into_bytes()
    }
}

pub(super) fn status_line(status: u16) -> String {
    let reason = match status {
        200 => "OK",
        206 => "Partial Content",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Requested Range Not Satisfiable",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Status",
    };
    format!("HTTP/1.1 {status} {reason}\r\n")
}

/// The text of [`Answer::json`].
pub(super) fn envelope(key: &str, value: &Value, error: Option<&Value>) -> String {
    let error = error.map_or(String::new(), |error| format!(", \"error\": {}", python_json(error)));
    format!("{{\"{key}\": {}{error}}}", python_json(value))
}

/// JSON with the spaces that Python puts in: some clients match its text.
fn python_json(value: &Value) -> String {
    struct Python;
    impl Formatter for Python {
        fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut text = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut text, Python))
        .expect("a JSON value in memory can be written");
    String::from_utf8(text).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_spaced_as_python_spaces_it() {
        let value = json!({"a": [1, "x"], "b": -1});
        let text = envelope("response", &value, Some(&Value::Null));
        assert_eq!(text, r#"{"response": {"a": [1, "x"], "b": -1}, "error": null}"#);
        assert_eq!(envelope("result", &json!("ok"), None), r#"{"result": "ok"}"#);
    }

    #[test]
    fn a_redirect_has_no_length() {
        let text = String::from_utf8(Answer::redirect("http://x/".to_owned()).bytes()).expect("UTF-8");
        assert!(text.starts_with("HTTP/1.1 302 Found\r\nServer: BaseHTTP/0.6 Python/3.8.16\r\nDate: "));
        assert!(text.contains("\r\nLocation: http://x/\r\n") && text.ends_with("\r\n\r\n"));
        for absent in ["Content-Length", "Transfer-Encoding", "Connection"] {
            assert!(!text.contains(absent), "{text}");
        }
    }
}
