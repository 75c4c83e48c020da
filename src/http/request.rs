//! One exchange: a request as `tiny_http` read it, judged before anything is done with it, and its answer.
//!
//! An announced body makes `tiny_http` read or allocate for as long as the peer likes, when the request is answered,
//! turned into a writer or dropped. So every request has a `Verdict` by its head alone, before any of these.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use super::guard::Guard;
use super::response::Response;
use super::socket::{Handle, Reserve};

/// Bodies up to this size were read before the request was handed out; larger ones were not.
const MAX_BODY_BYTES: usize = 1024;

/// Dropping a request whose body was announced larger than this makes `tiny_http` allocate as much in one piece, which
/// can abort the process; such a request is never dropped.
const MAX_DROPPABLE_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Heads above this are refused; browsers and players stay below 4 KiB, cookies of other services on the host included.
pub(super) const MAX_HEAD_BYTES: u64 = 16 * 1024;

/// More headers than this are refused.
const MAX_HEADERS: usize = 100;

/// What a header line has beside name and value: colon, blank and line end.
const LINE_BYTES: usize = 4;

/// A request's method, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// DELETE.
    Delete,
    /// Any other.
    Other,
}

/// What keeps the connections of a server in check.
pub(super) struct Keeper {
    pub(super) guard: Guard<Job>,
    pub(super) reserve: Reserve,
    pub(super) local_port: u16,
    /// Descriptors from this number on are not for streams.
    pub(super) stream_ceiling: u64,
}

impl Keeper {
    fn find(&self, peer: SocketAddr) -> io::Result<Handle> {
        self.reserve.lend(|| Handle::find(peer, self.local_port))
    }

    /// Breaks the connection from this peer off, if it is still there.
    pub(super) fn abort(&self, peer: SocketAddr) -> io::Result<()> {
        match self.find(peer) {
            Ok(handle) => handle.abort(),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A request, and what is to become of it.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) verdict: Verdict,
}

/// What is to become of a request, by its head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Answer,
    /// It is wrong, and whole: the connection goes on.
    Decline(&'static str),
    /// It is wrong, and nothing behind it can be trusted to be a request.
    Refuse(&'static str),
    /// A body is to come: `tiny_http` would read it to its end, so the connection has to end first.
    Cut,
    /// The same, but the request can never be dropped.
    Forget,
}

/// A request without a body.
pub struct Request {
    inner: tiny_http::Request,
    peer: SocketAddr,
    keeper: Arc<Keeper>,
}

const NO_BODY: &str = "a request here has no body";
const TOO_LARGE: &str = "the head of the request is too large";
const MALFORMED: &str = "the head of the request is malformed";

impl Request {
    /// `None` for one that did not come from an IP address.
    pub(super) fn new(inner: tiny_http::Request, keeper: &Arc<Keeper>) -> Option<Self> {
        let peer = *inner.remote_addr()?;
        Some(Self { inner, peer, keeper: Arc::clone(keeper) })
    }

    /// What is to become of it.
    pub(super) fn verdict(&self) -> Verdict {
        let length = self.inner.body_length().unwrap_or(0);
        if length > MAX_DROPPABLE_BODY_BYTES {
            return Verdict::Forget;
        }
        if length > MAX_BODY_BYTES {
            return Verdict::Cut;
        }
        let headers = self.inner.headers();
        let sizes =
            headers.iter().map(|header| header.field.as_str().len() + header.value.len() + LINE_BYTES);
        let head_bytes = self.inner.url().len() + sizes.sum::<usize>();
        if head_bytes as u64 > MAX_HEAD_BYTES || headers.len() > MAX_HEADERS {
            return Verdict::Refuse(TOO_LARGE);
        }
        // A single CR is let through to here, and would end the line for somebody else (CVE-2026-66753).
        let is_clean = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let has_bad_length = match self.values("Content-Length").collect::<Vec<_>>()[..] {
            [] => false,
            [text] => !is_digits(text) || self.inner.body_length().is_none(),
            _ => true,
        };
        if self.header("Transfer-Encoding").is_some() || has_bad_length {
            // Its length is anybody's guess (CVE-2026-66752).
            return Verdict::Refuse(NO_BODY);
        }
        let is_all_clean =
            is_clean(self.target()) && headers.iter().all(|header| is_clean(header.value.as_str()));
        if !is_all_clean || self.values("Host").count() > 1 {
            return Verdict::Refuse(MALFORMED);
        }
        match (length, self.header("Expect")) {
            (0, _) => Verdict::Answer,
            (_, None) => Verdict::Decline(NO_BODY),
            // It waits to be asked for its body.
            (_, Some(_)) => Verdict::Refuse(NO_BODY),
        }
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> Method {
        match self.inner.method() {
            tiny_http::Method::Get => Method::Get,
            tiny_http::Method::Head => Method::Head,
            tiny_http::Method::Options => Method::Options,
            tiny_http::Method::Delete => Method::Delete,
            _ => Method::Other,
        }
    }

    /// Its target as it came: path and query, or a whole URL.
    #[must_use]
    pub fn target(&self) -> &str {
        self.inner.url()
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let matches =
            move |header: &&tiny_http::Header| header.field.as_str().as_str().eq_ignore_ascii_case(name);
        self.inner.headers().iter().filter(matches).map(|header| header.value.as_str())
    }

    /// Where it comes from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Takes hold of its connection, for a stream: whatever else comes on it from now on ends it.
    ///
    /// # Errors
    ///
    /// When the connection is gone, something waits behind this request, or the process runs short of descriptors.
    pub fn hold(&self) -> io::Result<Held> {
        let handle = Arc::new(self.keeper.find(self.peer)?);
        if handle.number() >= self.keeper.stream_ceiling {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let held = Held { keeper: Arc::clone(&self.keeper), peer: self.peer, handle };
        if !self.keeper.guard.begin_stream(self.peer, &held.handle) {
            held.handle.shutdown();
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(held)
    }

    fn is_http_1_0(&self) -> bool {
        *self.inner.http_version() < tiny_http::HTTPVersion(1, 1)
    }

    /// Answers. A client that is gone is nobody's trouble.
    pub fn respond(self, response: Response) {
        let mut answer = tiny_http::Response::from_data(response.body)
            .with_status_code(response.status)
            // Length-delimited, whatever the size: every client understands that.
            .with_chunked_threshold(usize::MAX);
        for (name, value) in response.headers {
            debug_assert!(!value.contains(['\r', '\n']), "a header value with a line end");
            match tiny_http::Header::from_bytes(name, value) {
                Ok(header) => answer.add_header(header),
                Err(()) => log::error!("the header {name} has a value that is not ASCII"),
            }
        }
        if let Err(error) = self.inner.respond(answer) {
            log::debug!("An answer to {} did not get through: {error}", self.peer);
            // A part of it may have, so that nothing behind it would be understood.
            if let Err(error) = self.keeper.abort(self.peer) {
                log::debug!("The connection from {} cannot be ended: {error}", self.peer);
            }
        }
    }

    /// Whether it can be answered without waiting for its peer.
    pub(super) fn is_whole(&self) -> bool {
        self.inner.body_length().is_none_or(|length| length == 0)
    }

    /// Answers and ends the connection, whatever else the peer has sent on it.
    pub(super) fn refuse(self, response: &Response) {
        let connection = self.keeper.find(self.peer);
        if let (false, Ok(connection)) = (self.is_whole(), &connection) {
            // Else the rest of the body is waited for as soon as the writer is asked for.
            connection.shutdown_read();
        }
        let reason = tiny_http::StatusCode(response.status).default_reason_phrase();
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", response.status);
        for (name, value) in &response.headers {
            text.extend([name, ": ", value.as_str(), "\r\n"]);
        }
        text.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", response.body.len()));
        // RFC 9110 section 9.3.2.
        let body: &[u8] = if self.method() == Method::Head { &[] } else { &response.body };
        let mut writer = self.inner.into_writer();
        let written = writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(body));
        if let Err(error) = written.and_then(|()| writer.flush()) {
            log::debug!("A refusal to {} did not get through: {error}", self.peer);
        }
        // Before the writer is let go: with it goes the turn to write, and `tiny_http` may have read more.
        if let Ok(connection) = connection {
            connection.shutdown();
        }
    }

    /// Sends the head of an endless body and gives what writes it. For HEAD the body has no bytes and is over at once.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn stream(self, headers: &[(&str, &str)]) -> io::Result<Body> {
        let is_http_1_0 = self.is_http_1_0();
        let wants_close =
            self.header("Connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
        let mut head = String::from(if is_http_1_0 { "HTTP/1.0 200 OK\r\n" } else { "HTTP/1.1 200 OK\r\n" });
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let coding = if is_http_1_0 { Coding::Raw } else { Coding::Chunked };
        if coding == Coding::Chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        }
        if is_http_1_0 || wants_close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut writer = self.inner.into_writer();
        writer.write_all(head.as_bytes())?;
        writer.flush()?;
        Ok(Body { writer, coding, is_unflushed: false })
    }

    /// Sends the head of an endless body to one who asked for no more than that.
    pub fn stream_head(self, headers: &[(&str, &str)]) {
        let (keeper, peer) = (Arc::clone(&self.keeper), self.peer);
        let outcome = self.stream(headers);
        let is_over = outcome.as_ref().map_or(true, |body| body.coding == Coding::Raw);
        if let Err(error) = &outcome {
            log::debug!("{peer} left while it was answered: {error}");
        }
        // `Connection: close` was said, so it is done.
        if is_over && let Ok(handle) = keeper.find(peer) {
            handle.shutdown();
        }
    }
}

/// The connection of a stream. Dropping it lets the next request on the connection have its turn.
pub struct Held {
    keeper: Arc<Keeper>,
    peer: SocketAddr,
    handle: Arc<Handle>,
}

impl Held {
    /// What ends the connection.
    #[must_use]
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// The stream is over but for its last bytes; after those a client may ask for something else.
    pub fn release(&self) {
        self.keeper.guard.end_stream(self.peer);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// By the chunked coding, for HTTP/1.1.
    Chunked,
    /// By the end of the connection, for HTTP/1.0.
    Raw,
}

/// The body of a stream. Each call writes as much as the client takes within one slice of time.
pub struct Body {
    writer: Box<dyn Write + Send>,
    coding: Coding,
    /// Small writes stop in the buffer of `tiny_http`, and may be stuck there.
    is_unflushed: bool,
}

impl Body {
    /// How it is delimited.
    #[must_use]
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Writes some of these bytes and tells how many; zero when the client took nothing for a slice of time.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_unflushed && !self.flush()? {
            return Ok(0);
        }
        match self.writer.write(bytes) {
            Ok(written) => self.flush().map(|_| written),
            Err(error) if is_timeout(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Empties the buffer as far as the client takes it; tells whether it is empty.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.is_unflushed = match self.writer.flush() {
            Ok(()) => false,
            Err(error) if is_timeout(&error) => true,
            Err(error) => return Err(error),
        };
        Ok(!self.is_unflushed)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
