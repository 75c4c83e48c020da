//! One exchange: a request that may be answered, and its answer.
//!
//! It knows what was asked and how an answer is written, not what is answered. The head was judged before
//! (`incoming`), and of `tiny_http` there is nothing left here but the other half of the connection, whose turns
//! it orders.

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{self, Live};

use super::body::is_timeout;
use super::descriptors::Reserve;
use super::guard::{Guard, Job};
use super::response::{self, Response};
use super::socket::{Handle, Options, Presence};

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
    /// POST.
    Post,
    /// Any other.
    Other,
}

/// What is known of a server's connections, and what it takes to find and end one.
pub(super) struct ConnectionControl {
    pub(super) guard: Guard<Job>,
    pub(super) reserve: Reserve,
    pub(super) local_port: u16,
    /// Descriptors from this number on are not for streams.
    pub(super) stream_ceiling: u64,
    /// How many may stream, and how long a client may take nothing.
    pub(super) settings: Arc<Live<config::Server>>,
}

impl ConnectionControl {
    pub(super) fn find(&self, peer: SocketAddr) -> io::Result<Handle> {
        self.reserve.lend(|| Handle::find(peer, self.local_port))
    }

    /// Sets the options of the connection from this peer.
    ///
    /// # Errors
    ///
    /// When it is gone, or there is no descriptor to do it with.
    pub(super) fn prepare(&self, peer: SocketAddr, options: Options) -> io::Result<()> {
        self.find(peer)?.set(options)
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

/// What was asked.
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) is_http_1_0: bool,
    pub(super) headers: Vec<(String, String)>,
    /// Its connection ends behind the answer, whatever the client wishes.
    pub(super) is_last: bool,
}

/// The pause from one sign of life to the next, to a client that says nothing more; it doubles.
const FIRST_SIGN_PAUSE: Duration = Duration::from_millis(500);

/// An answer that has not begun, or hardly.
struct Answer {
    /// Until it is answered.
    writer: Option<Box<dyn Write + Send>>,
    /// So many bytes of it have been sent as signs of life.
    sent: usize,
    next_sign: Option<Instant>,
    pause: Duration,
}

/// A request without a body. Dropped without an answer, it is answered with 500.
pub struct Request {
    head: RequestHead,
    peer: SocketAddr,
    control: Arc<ConnectionControl>,
    answer: RefCell<Answer>,
}

impl Request {
    pub(super) fn new(
        head: RequestHead,
        peer: SocketAddr,
        control: Arc<ConnectionControl>,
        writer: Box<dyn Write + Send>,
    ) -> Self {
        let answer = Answer { writer: Some(writer), sent: 0, next_sign: None, pause: FIRST_SIGN_PAUSE };
        Self { head, peer, control, answer: RefCell::new(answer) }
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.head.method
    }

    /// Its target as it came: path and query, or a whole URL.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.head.target
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.headers.iter();
        headers.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Where it comes from, as a person writes it: one of IPv4 that came through a port of IPv6 is one of IPv4.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer.ip().to_canonical(), self.peer.port())
    }

    /// Takes hold of its connection, for a stream: another request on it, from now until the stream is over, ends it.
    ///
    /// # Errors
    ///
    /// When the connection is gone, something waits behind this request, or the process runs short of descriptors.
    pub fn hold(&self) -> io::Result<StreamConnection> {
        let handle = Arc::new(self.control.find(self.peer)?);
        if handle.number() >= self.control.stream_ceiling {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let held = StreamConnection { control: Arc::clone(&self.control), peer: self.peer, handle };
        if !self.control.guard.begin_stream(self.peer, &held.handle) {
            held.handle.shutdown();
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(held)
    }

    /// Whether its client still waits for an answer, as far as is known now.
    ///
    /// One that has ended its own half of the connection may have closed the other, too. It is sent what every answer
    /// begins with, a byte at a time and less and less often; if it is gone, that comes back as a reset, and the next
    /// question finds it so.
    #[must_use]
    pub fn is_awaited(&self, connection: &StreamConnection) -> bool {
        match connection.handle.presence() {
            Presence::There => true,
            Presence::Mute => self.send_sign(Instant::now()).is_ok(),
            Presence::Gone => false,
        }
    }

    /// Signs of life that were sent so far. One that has just been sent is answered soon by a client that is gone.
    #[must_use]
    pub fn signs(&self) -> usize {
        self.answer.borrow().sent
    }

    fn send_sign(&self, now: Instant) -> io::Result<()> {
        let mut answer = self.answer.borrow_mut();
        let Answer { writer, sent, next_sign, pause } = &mut *answer;
        if next_sign.is_some_and(|at| now < at) {
            return Ok(());
        }
        if let (Some(writer), Some(byte)) = (writer, self.version().as_bytes().get(*sent)) {
            writer.write_all(&[*byte])?;
            *sent += 1;
            *next_sign = Some(now + *pause);
            *pause *= 2;
            writer.flush()?;
        }
        Ok(())
    }

    /// What a whole answer says of the connection; `tiny_http` ends or keeps it by the same rule.
    fn connection(&self) -> Option<&'static str> {
        let wishes = self.header("Connection").unwrap_or_default().to_ascii_lowercase();
        let is_last = self.head.is_last || wishes.contains("close") || wishes.contains("upgrade");
        match self.head.is_http_1_0 {
            _ if is_last => Some("close"),
            true if wishes.contains("keep-alive") => Some("keep-alive"),
            true => Some("close"),
            false => None,
        }
    }

    fn version(&self) -> &'static str {
        if self.head.is_http_1_0 { "HTTP/1.0" } else { "HTTP/1.1" }
    }

    /// Answers. A client that is gone is nobody's trouble.
    pub fn respond(mut self, response: Response) {
        self.answer(response);
    }

    /// Answers, and tells whether all of it went out.
    pub fn deliver(mut self, response: Response) -> bool {
        self.answer(response)
    }

    fn answer(&mut self, response: Response) -> bool {
        let Answer { writer, sent, .. } = self.answer.get_mut();
        let Some(writer) = writer.take() else { return false };
        let mut writer = Remainder { writer, to_skip: *sent };
        let response = match self.connection() {
            Some(connection) => response.with("Connection", connection),
            None => response,
        };
        let is_to_head = self.head.method == Method::Head;
        let limit = self.control.settings.get().write_timeout;
        let outcome = response.send(&mut writer, self.version(), is_to_head, limit);
        if let Err(error) = &outcome {
            log::debug!("An answer to {} did not get through: {error}", self.peer);
            // A part of it may have got through, and the client would take the next answer for the rest.
            if !is_gone(error)
                && let Err(error) = self.control.abort(self.peer)
            {
                log::debug!("The connection from {} cannot be ended: {error}", self.peer);
            }
        }
        // Before the writer is dropped: that lets `tiny_http` answer what it may have read behind this request.
        if self.head.is_last
            && let Ok(handle) = self.control.find(self.peer)
        {
            handle.shutdown();
        }
        outcome.is_ok()
    }

    /// Begins an endless body. Its head goes out with the first bytes, or when it is flushed.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    // Not inlined: a stream goes on for hours in the frames below, whose stack holds what this needs once.
    #[inline(never)]
    pub fn stream(self, headers: &[(&str, &str)]) -> io::Result<Body> {
        self.begin(200, headers, None)
    }

    /// Begins a body of so many bytes, all of which have to follow. Its head goes out as that of a stream.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    #[inline(never)]
    pub fn stream_of_length(self, status: u16, headers: &[(&str, &str)], length: u64) -> io::Result<Body> {
        self.begin(status, headers, Some(length))
    }

    fn begin(mut self, status: u16, headers: &[(&str, &str)], length: Option<u64>) -> io::Result<Body> {
        let is_last = self.head.is_last;
        let Answer { writer, sent, .. } = self.answer.get_mut();
        let (writer, sent) = (writer.take().ok_or(io::ErrorKind::NotConnected)?, *sent);
        // A client of HTTP/1.0 knows no chunks: only the end of the connection tells it the end of the body, also when
        // it asked to keep the connection.
        let (coding, transfer, connection) = if length.is_some() {
            (Coding::Length, None, self.connection())
        } else if self.head.is_http_1_0 {
            (Coding::Raw, None, Some("close"))
        } else {
            (Coding::Chunked, Some("chunked"), self.connection())
        };
        let headers = headers.iter().copied();
        let length = length.map(|length| length.to_string());
        let headers = headers.chain(length.as_deref().map(|value| ("Content-Length", value)));
        let headers = headers.chain(transfer.map(|value| ("Transfer-Encoding", value)));
        let headers = headers.chain(connection.map(|value| ("Connection", value)));
        let mut head = response::head(self.version(), status, headers).into_bytes();
        head.drain(..sent);
        Ok(Body { writer, coding, head, is_unflushed: false, is_last })
    }

    /// Sends the head of an endless body, or of one so long, to one who asked for no more than that.
    pub fn stream_head(self, headers: &[(&str, &str)], length: Option<u64>) {
        let (control, peer) = (Arc::clone(&self.control), self.peer);
        let outcome =
            self.begin(200, headers, length).and_then(|mut body| body.flush().map(|_| body.goes_on_behind()));
        let is_over = !matches!(outcome, Ok(true));
        if let Err(error) = &outcome {
            log::debug!("{peer} left while it was answered: {error}");
        }
        // The head has said `Connection: close`.
        if is_over && let Ok(handle) = control.find(peer) {
            handle.shutdown();
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.answer(Response::empty(500));
    }
}

/// The connection of a stream. Dropping it lets the next request on the connection have its turn.
pub struct StreamConnection {
    control: Arc<ConnectionControl>,
    peer: SocketAddr,
    handle: Arc<Handle>,
}

impl StreamConnection {
    /// What ends the connection.
    #[must_use]
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// The stream is over but for its last bytes; after those a client may ask for something else.
    pub fn release(&self) {
        self.control.guard.end_stream(self.peer);
    }
}

impl Drop for StreamConnection {
    fn drop(&mut self) {
        self.release();
    }
}

/// The chunk that ends a chunked body (RFC 9112 section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// By the chunked coding, for HTTP/1.1.
    Chunked,
    /// By the end of the connection, for HTTP/1.0.
    Raw,
    /// By its length.
    Length,
}

/// The body of a stream. Each call writes as much as the client takes within one slice of time.
pub struct Body {
    writer: Box<dyn Write + Send>,
    coding: Coding,
    /// What of the answer's head has not gone out; it goes in one packet with the first bytes.
    head: Vec<u8>,
    /// Something lies in the buffer of `tiny_http`'s writer, which keeps small writes until it is flushed.
    is_unflushed: bool,
    /// The connection ends behind it.
    is_last: bool,
}

impl Body {
    /// How it is delimited.
    #[must_use]
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Whether a client may ask for something else once it has read all of it.
    fn goes_on_behind(&self) -> bool {
        self.coding != Coding::Raw && !self.is_last
    }

    /// Ends it as its coding asks for, once all of it was written. Tells whether its client knows that it is whole and may ask
    /// for something else; if not, the connection has to be ended.
    pub fn end(&mut self) -> bool {
        let is_ended = match self.coding {
            Coding::Raw => false,
            Coding::Length => true,
            Coding::Chunked => self.write(LAST_CHUNK).is_ok_and(|written| written == LAST_CHUNK.len()),
        };
        is_ended && self.flush().unwrap_or(false) && self.goes_on_behind()
    }

    /// Writes some of these bytes and tells how many; zero when the client took nothing for a slice of time.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            return self.write_now(bytes);
        }
        let head_bytes = self.head.len();
        self.head.extend_from_slice(bytes);
        let mut all = mem::take(&mut self.head);
        let written = self.write_now(&all)?;
        if written < head_bytes {
            all.truncate(head_bytes);
            self.head = all.split_off(written);
        }
        Ok(written.saturating_sub(head_bytes))
    }

    fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_unflushed && !self.flush_writer()? {
            return Ok(0);
        }
        match self.writer.write(bytes) {
            Ok(written) => self.flush_writer().map(|_| written),
            Err(error) if is_timeout(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends what is kept back as far as the client takes it; tells whether nothing is left.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn flush(&mut self) -> io::Result<bool> {
        if !self.head.is_empty() {
            self.write(&[])?;
        }
        Ok(self.head.is_empty() && self.flush_writer()?)
    }

    fn flush_writer(&mut self) -> io::Result<bool> {
        self.is_unflushed = match self.writer.flush() {
            Ok(()) => false,
            Err(error) if is_timeout(&error) => true,
            Err(error) => return Err(error),
        };
        Ok(!self.is_unflushed)
    }
}

/// What is left of an answer whose first bytes were sent before.
struct Remainder {
    writer: Box<dyn Write + Send>,
    to_skip: usize,
}

impl Write for Remainder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.to_skip.min(bytes.len());
        if skipped == bytes.len() {
            self.to_skip -= skipped;
            return Ok(skipped);
        }
        let written = self.writer.write(&bytes[skipped..])?;
        self.to_skip = 0;
        Ok(skipped + written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether the connection has ended by itself.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes a few bytes at a time, and nothing every other time.
    #[derive(Default)]
    struct Slow {
        taken: Arc<parking_lot::Mutex<Vec<u8>>>,
        at_once: usize,
        is_full: bool,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.is_full = !self.is_full;
            if self.is_full {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = self.at_once.min(bytes.len());
            self.taken.lock().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn the_head_goes_before_the_first_bytes_however_slowly(
            head in 0_usize..40, body in 0_usize..40, at_once in 1_usize..100, is_flushed: bool,
        ) {
            let slow = Slow { at_once, ..Slow::default() };
            let taken = Arc::clone(&slow.taken);
            let mut writer =
                Body { writer: Box::new(slow), coding: Coding::Raw, head: vec![b'h'; head], is_unflushed: false, is_last: false };
            while is_flushed && !writer.flush().expect("it goes on") {}
            let bytes = vec![b'b'; body];
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                rest = &rest[writer.write(rest).expect("it goes on")..];
            }
            let head = if is_flushed || body > 0 { head } else { 0 };
            prop_assert_eq!(&*taken.lock(), &[vec![b'h'; head], bytes].concat());
        }
    }
}
