//! A request as `tiny_http` read it, judged by its head before anything is done with it.
//!
//! An announced body makes `tiny_http` read or allocate for as long as the peer likes, when the request is answered,
//! turned into a writer or dropped. So every request has a [`Verdict`] by its head alone, before any of these. What is
//! to be answered leaves `tiny_http` here: it goes on as a [`Request`] of our own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announced;
use super::request::{ConnectionControl, Method, Request, RequestHead};
use super::response::{Code, Response};

/// Bodies up to this size were read before the request was handed out; larger ones were not.
const MAX_BODY_BYTES: usize = 1024;

/// Heads above this are refused; browsers and players stay below 4 KiB, cookies of other services on the host included.
pub(super) const MAX_HEAD_BYTES: u64 = 16 * 1024;

/// More headers than this are refused.
const MAX_HEADERS: usize = 100;

/// The end of an empty body follows its head at once; who takes longer than a packet that is sent again has something else
/// to say.
const EMPTY_BODY_LIMIT: Duration = Duration::from_secs(1);

/// What a header line has beside name and value: colon, blank and line end.
const LINE_BYTES: usize = 4;

/// What is done with each request that may be answered, on a thread of its connection's own.
pub(super) type Handler = dyn Fn(Request) + Send + Sync;

const NO_BODY: &str = "a request here has no body";
const NO_CODING: &str = "a request here has no body; if a proxy in front of acerelay adds Transfer-Encoding to requests, \
                         tell it not to";
const TOO_LARGE: &str = "the head of the request is too large";
const MALFORMED: &str = "the head of the request is malformed";

/// What is to become of a request, by its head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Answer,
    /// It is answered if its body, whose length is not announced, turns out to be empty, and its connection ends behind
    /// that: some proxies send every GET so.
    AnswerIfEmpty,
    /// It is wrong, and whole: the connection goes on.
    Decline(&'static str),
    /// It is wrong, and nothing behind it can be trusted to be a request.
    Refuse(&'static str),
    /// A body is to come, which `tiny_http` reads to its end when the request is dropped: its connection has to end
    /// first.
    Cut,
}

/// A request that has just come.
pub(super) struct Incoming {
    /// In a box, so that a [`PendingRequest`] is small: it lies on the stacks of threads that serve streams for hours.
    inner: Box<tiny_http::Request>,
    peer: SocketAddr,
}

impl Incoming {
    /// `None` for one that did not come from an IP address.
    pub(super) fn new(inner: tiny_http::Request) -> Option<Self> {
        let peer = *inner.remote_addr()?;
        Some(Self { inner: Box::new(inner), peer })
    }

    /// Where it comes from.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What is to become of it.
    pub(super) fn verdict(&self) -> Verdict {
        let length = self.inner.body_length().unwrap_or(0);
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
        // `tiny_http` lets a single CR through, which ends the line for a proxy in front of us (CVE-2026-66753).
        let is_clean = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let has_bad_length = match self.values("Content-Length").collect::<Vec<_>>()[..] {
            [] => false,
            [text] => !is_digits(text) || self.inner.body_length().is_none(),
            _ => true,
        };
        let codings: Vec<_> = self.values("Transfer-Encoding").collect();
        if has_bad_length {
            // `tiny_http` and a proxy in front of us may read another length from this (CVE-2026-66752).
            return Verdict::Refuse(NO_BODY);
        }
        let is_plain = |coding: &str| coding.trim().eq_ignore_ascii_case("chunked");
        let may_be_empty = match codings[..] {
            [] => false,
            [coding] => {
                let has_length = self.values("Content-Length").next().is_some();
                let is_new = *self.inner.http_version() >= tiny_http::HTTPVersion(1, 1);
                let is_question = matches!(method_of(&self.inner), Method::Get | Method::Head);
                let is_unexpected = self.values("Expect").next().is_none();
                is_plain(coding) && is_new && is_question && is_unexpected && !has_length
            }
            _ => false,
        };
        if !codings.is_empty() && !may_be_empty {
            // The same.
            return Verdict::Refuse(NO_CODING);
        }
        let is_all_clean =
            is_clean(self.inner.url()) && headers.iter().all(|header| is_clean(header.value.as_str()));
        if !is_all_clean || self.values("Host").count() > 1 {
            return Verdict::Refuse(MALFORMED);
        }
        match (length, self.values("Expect").next()) {
            _ if may_be_empty => Verdict::AnswerIfEmpty,
            (0, _) => Verdict::Answer,
            (_, None) => Verdict::Decline(NO_BODY),
            // Its sender waits to be told that it may send the body, and never will be.
            (_, Some(_)) => Verdict::Refuse(NO_BODY),
        }
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let headers = self.inner.headers().iter();
        headers.filter(move |header| header.field.equiv(name)).map(|header| header.value.as_str())
    }

    /// The same request by what is to become of it, to wait for its connection's turn.
    pub(super) fn into_pending(self, verdict: Verdict, control: &Arc<ConnectionControl>) -> PendingRequest {
        match verdict {
            Verdict::Answer => PendingRequest::Answer(self.into_request(control, false)),
            Verdict::AnswerIfEmpty => {
                PendingRequest::Read(UnreadRequest { incoming: self, control: Arc::clone(control) })
            }
            Verdict::Decline(why) => PendingRequest::Decline(self.into_request(control, false), why),
            Verdict::Refuse(why) => {
                PendingRequest::Refuse(RefusedRequest { incoming: self, control: Arc::clone(control), why })
            }
            Verdict::Cut => {
                PendingRequest::LetGo(CutRequest { incoming: Some(self), control: Arc::clone(control) })
            }
        }
    }

    /// Takes over the connection's other half. Only for one whose body, if there is any, was read.
    fn into_request(self, control: &Arc<ConnectionControl>, is_last: bool) -> Request {
        let Self { inner, peer } = self;
        let text = |header: &tiny_http::Header| (header.field.to_string(), header.value.to_string());
        let head = RequestHead {
            method: method_of(&inner),
            target: inner.url().to_owned(),
            is_http_1_0: *inner.http_version() < tiny_http::HTTPVersion(1, 1),
            headers: inner.headers().iter().map(text).collect(),
            is_last,
        };
        Request::new(head, peer, Arc::clone(control), inner.into_writer())
    }
}

fn method_of(request: &tiny_http::Request) -> Method {
    match request.method() {
        tiny_http::Method::Get => Method::Get,
        tiny_http::Method::Head => Method::Head,
        tiny_http::Method::Options => Method::Options,
        tiny_http::Method::Delete => Method::Delete,
        tiny_http::Method::Post => Method::Post,
        _ => Method::Other,
    }
}

/// A request that waits for its connection's turn, by what is to be done with it then.
pub(super) enum PendingRequest {
    /// It is answered.
    Answer(Request),
    /// Its body is read first.
    Read(UnreadRequest),
    /// It is told what is wrong with it.
    Decline(Request, &'static str),
    /// The same, and its connection ends.
    Refuse(RefusedRequest),
    /// Its connection has ended: dropping it waits for nothing now.
    LetGo(CutRequest),
}

impl PendingRequest {
    /// Does it: what may be answered goes to `handler`, everybody else is told what is wrong, where that is possible.
    /// Not inlined, for the stack of streams: see [`Request::stream`].
    #[inline(never)]
    pub(super) fn serve(self, handler: &Handler) {
        match self {
            Self::Answer(request) => handler(request),
            Self::Read(unread) => unread.serve(handler),
            Self::Decline(request, why) => request.respond(Response::error(Code::BadRequest, &why)),
            Self::Refuse(refused) => refused.answer(),
            Self::LetGo(request) => drop(request),
        }
    }

    /// Whether there is room for an answer of ours in its place.
    pub(super) fn is_answerable(&self) -> bool {
        matches!(self, Self::Answer(_) | Self::Decline(..))
    }

    /// Answers that there is no room; who cannot be answered is dropped.
    pub(super) fn turn_away(self, why: &'static str) {
        if let Self::Answer(request) | Self::Decline(request, _) = self {
            request.respond(Response::error(Code::AtCapacity, &why));
        }
    }
}

/// A request whose body never comes, since its connection has ended. Dropping it costs nothing, or is left undone.
pub(super) struct CutRequest {
    incoming: Option<Incoming>,
    control: Arc<ConnectionControl>,
}

impl Drop for CutRequest {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        let (address, bytes) = (incoming.peer.ip(), incoming.inner.body_length().unwrap_or(0));
        if !announced::drop_or_forget(incoming, bytes) {
            self.control.guard.parked().add_forgotten(address);
        }
    }
}

/// A request whose body may be empty.
pub(super) struct UnreadRequest {
    incoming: Incoming,
    control: Arc<ConnectionControl>,
}

impl UnreadRequest {
    /// Reads the body, and has the request answered if there is nothing in it. The guard ends a connection that takes too
    /// long for that.
    fn serve(mut self, handler: &Handler) {
        let peer = self.incoming.peer;
        if let Ok(connection) = self.control.find(peer) {
            connection.set_read_limit(EMPTY_BODY_LIMIT);
        }
        self.control.guard.begin_reading(peer, Instant::now());
        let read = self.incoming.inner.as_reader().read(&mut [0]);
        self.control.guard.end_reading(peer);
        let Self { incoming, control } = self;
        match read {
            Ok(0) => handler(incoming.into_request(&control, true)),
            Ok(_) | Err(_) => RefusedRequest { incoming, control, why: NO_CODING }.answer(),
        }
    }
}

/// A request that is wrong, behind which there may be anything.
pub(super) struct RefusedRequest {
    incoming: Incoming,
    control: Arc<ConnectionControl>,
    why: &'static str,
}

impl RefusedRequest {
    /// Answers and ends the connection, whatever else the peer has sent on it.
    pub(super) fn answer(self) {
        let Self { incoming: Incoming { inner, peer }, control, why } = self;
        let connection = control.find(peer);
        if let (1.., Ok(connection)) = (inner.body_length().unwrap_or(0), &connection) {
            // `tiny_http` reads the rest of the body before it gives the writer; so nothing more is to come.
            connection.shutdown_read();
        }
        let response = Response::error(Code::BadRequest, &why).with("Connection", "close");
        let (is_to_head, limit) = (method_of(&inner) == Method::Head, Duration::ZERO);
        let mut writer = inner.into_writer();
        if let Err(error) = response.send(&mut writer, "HTTP/1.1", is_to_head, limit) {
            log::debug!("A refusal to {peer} did not get through: {error}");
        }
        // Before the writer is dropped: its drop gives the turn to write to the next request, which `tiny_http` may
        // have read behind this one.
        if let Ok(connection) = connection {
            connection.shutdown();
        }
    }
}
