//! `tiny_http`, contained: a thread per request, requests and answers in our own types, and nothing a peer does ends it.
//!
//! No other file names `tiny_http`. What it does when a peer or the system misbehaves, and what is done about it here:
//! an announced body makes it read or allocate for as long as the peer likes, so such a connection is shut down before
//! the request is let go; after one failed `accept` it never accepts again, so it is built anew on the same listener; of
//! connections that come in a burst it leaves some unread until another one ends, so each burst is followed by
//! connections of our own, which end at once.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::threads::{SMALL_STACK_BYTES, Threads};

use super::front::Turnstile;
use super::response::{Code, Response};
use super::socket::{self, Handle};

/// Bodies up to this size were read before the request was handed out; larger ones were not.
const MAX_BODY_BYTES: usize = 1024;

/// Dropping a request whose body was announced larger than this makes `tiny_http` allocate as much in one piece, which
/// can abort the process; such a request is never dropped.
const MAX_DROPPABLE_BODY_BYTES: usize = 64 * 1024 * 1024;

/// How often the server asks itself for an answer. An `accept` that waits longer than the sockets' read timeout fails,
/// so this must stay well below it.
const SELF_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// From a request to the self-check that follows it: a burst is checked after a moment, not at each of its requests.
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// What the self-check asks for.
const SELF_CHECK_TARGET: &str = "/healthz";

/// Longer than a healthy server ever needs for its own small answer.
const SELF_CHECK_LIMIT: Duration = Duration::from_secs(5);

/// Requests beside streams that may be in work at once: status pages, playlists, probes.
const SPARE_REQUESTS: usize = 64;

/// Replaced servers whose keep-alive connections are still listened to.
const MAX_RETIRED: usize = 16;

/// What is done with each request, on a thread of its own.
pub type Handler = dyn Fn(Request) + Send + Sync;

/// A listening server.
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    listener: TcpListener,
    address: SocketAddr,
    is_stopping: AtomicBool,
    requests: Turnstile,
    next_request: AtomicU64,
    /// Full while a request came after the last self-check.
    came: (Sender<()>, Receiver<()>),
    threads: Threads,
    handler: Box<Handler>,
}

impl Server {
    /// Serves this listener: one thread of `service_threads` takes the requests, and each is handled on one of
    /// `request_threads`. At most `max_streams` and a few more are handled at once.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or descriptor.
    pub fn start(
        listener: TcpListener,
        max_streams: usize,
        service_threads: &Threads,
        request_threads: Threads,
        handler: Box<Handler>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            address,
            listener,
            is_stopping: AtomicBool::new(false),
            requests: Turnstile::new(max_streams + SPARE_REQUESTS),
            next_request: AtomicU64::new(0),
            came: crossbeam_channel::bounded(1),
            threads: request_threads,
            handler,
        });
        let server = shared.build()?;
        let serving = Arc::clone(&shared);
        service_threads.spawn("http", SMALL_STACK_BYTES, move || serving.serve(server))?;
        Ok(Self { shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Takes no connections and no requests any more. Requests in work go on.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        socket::close_listener(&self.shared.listener);
    }

    /// Asks itself for `/healthz` every second, and a moment after every request, until `stop` is closed, and logs when
    /// it gets no answer. The steady stream of connections also keeps `accept` from timing out; and the end of each
    /// frees one connection that was left unread in a burst, whose request brings on the next.
    pub fn check_itself(&self, stop: &Receiver<()>) {
        let target = socket::loopback_of(self.shared.address);
        let mut failed_since = None;
        loop {
            crossbeam_channel::select! {
                recv(stop) -> _ => return,
                recv(self.shared.came.1) -> _ => {
                    if stop.recv_timeout(BURST_PAUSE).is_err_and(|error| error.is_disconnected()) {
                        return;
                    }
                }
                default(SELF_CHECK_INTERVAL) => {}
            }
            match ask_health(target) {
                Ok(()) => {
                    if let Some(since) = failed_since.take() {
                        let since: Instant = since;
                        log::info!("The server answers again after {} s", since.elapsed().as_secs());
                    }
                }
                Err(error) if failed_since.is_none() => {
                    failed_since = Some(Instant::now());
                    log::error!("The server does not answer on its own port: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

fn ask_health(target: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, SELF_CHECK_LIMIT)?;
    stream.set_read_timeout(Some(SELF_CHECK_LIMIT))?;
    stream.set_write_timeout(Some(SELF_CHECK_LIMIT))?;
    stream.write_all(
        format!("GET {SELF_CHECK_TARGET} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if &head == b"HTTP/1.1 200" { Ok(()) } else { Err(io::Error::other("it says that it is not well")) }
}

impl Shared {
    fn build(&self) -> io::Result<tiny_http::Server> {
        let listener = self.listener.try_clone()?;
        tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)
    }

    fn serve(self: &Arc<Self>, mut server: tiny_http::Server) {
        let mut retired: Vec<tiny_http::Server> = Vec::new();
        while !self.is_stopping.load(Ordering::Acquire) {
            match server.recv_timeout(SELF_CHECK_INTERVAL) {
                Ok(Some(request)) => self.dispatch(request),
                Ok(None) => {}
                Err(_) if self.is_stopping.load(Ordering::Acquire) => break,
                Err(error) => {
                    log::debug!("accept failed ({error}); listening again");
                    match self.build() {
                        Ok(new) => retired.push(mem::replace(&mut server, new)),
                        // Without a descriptor to spare; the next turn tries again.
                        Err(error) => log::warn!("The port cannot be listened to again yet: {error}"),
                    }
                    if retired.len() > MAX_RETIRED {
                        // Its drop would connect to the port and might hang; its accept thread has ended.
                        mem::forget(retired.remove(0));
                    }
                }
            }
            // Connections that a replaced server had accepted still send requests through it.
            for old in &retired {
                while let Ok(Some(request)) = old.try_recv() {
                    self.dispatch(request);
                }
            }
        }
        // The listener is closed: the connect in the drop of a server is refused at once.
    }

    fn dispatch(self: &Arc<Self>, request: tiny_http::Request) {
        let Some(peer) = request.remote_addr().copied() else {
            return;
        };
        if request.url() != SELF_CHECK_TARGET {
            // Full means that a check is due already.
            let _due = self.came.0.try_send(());
        }
        let request = Request { inner: request, peer, local_port: self.address.port() };
        let Some(request) = request.without_body() else {
            return;
        };
        let Some(pass) = self.requests.enter() else {
            request.respond(Response::error(Code::AtCapacity, &"there are too many requests at once"));
            return;
        };
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(self);
        // The request waits in a channel, so that it can be answered here when there is no thread.
        let (give, take) = crossbeam_channel::bounded::<Request>(1);
        let body = move || {
            let _pass = pass;
            if let Ok(request) = take.recv() {
                (shared.handler)(request);
            }
        };
        match self.threads.spawn(&format!("client-{number}"), SMALL_STACK_BYTES, body) {
            Ok(()) => drop(give.send(request)),
            Err(error) => {
                log::warn!("No thread for a request: {error}");
                request
                    .respond(Response::error(Code::AtCapacity, &"the system has no thread for this request"));
            }
        }
    }
}

/// A request's method, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// Any other.
    Other,
}

/// A request without a body.
pub struct Request {
    inner: tiny_http::Request,
    peer: SocketAddr,
    local_port: u16,
}

impl Request {
    /// Ends requests with a body that does not belong there, before `tiny_http` can be held up by it.
    fn without_body(self) -> Option<Self> {
        if self.header("Transfer-Encoding").is_some() {
            // Its length is anybody's guess, so nothing behind it can be trusted to be a request.
            self.refuse(&Response::error(Code::BadRequest, &"a request here has no body"));
            return None;
        }
        match self.inner.body_length() {
            Some(length) if length > MAX_BODY_BYTES => {
                if let Ok(handle) = self.connection() {
                    handle.shutdown();
                }
                if length > MAX_DROPPABLE_BODY_BYTES {
                    mem::forget(self);
                }
                None
            }
            Some(length) if length > 0 => {
                self.respond(Response::error(Code::BadRequest, &"a request here has no body"));
                None
            }
            _ => Some(self),
        }
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> Method {
        match self.inner.method() {
            tiny_http::Method::Get => Method::Get,
            tiny_http::Method::Head => Method::Head,
            tiny_http::Method::Options => Method::Options,
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
        let matches = |header: &&tiny_http::Header| header.field.as_str().as_str().eq_ignore_ascii_case(name);
        self.inner.headers().iter().find(matches).map(|header| header.value.as_str())
    }

    /// Where it comes from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// A handle on its connection.
    ///
    /// # Errors
    ///
    /// When the connection is gone, or there is no descriptor left.
    pub fn connection(&self) -> io::Result<Handle> {
        Handle::find(self.peer, self.local_port)
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
        }
    }

    /// Answers and ends the connection, whatever else the peer has sent on it.
    fn refuse(self, response: &Response) {
        let connection = self.connection();
        let reason = tiny_http::StatusCode(response.status).default_reason_phrase();
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", response.status);
        for (name, value) in &response.headers {
            text.extend([name, ": ", value.as_str(), "\r\n"]);
        }
        text.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", response.body.len()));
        let mut writer = self.inner.into_writer();
        let written = writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(&response.body));
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
