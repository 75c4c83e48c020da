//! Answers that are no streams, and the kinds of errors that they tell.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::body::ResponseBody;

/// When a client may come back after a 503: engines are asked every few seconds, and somebody may have left by then.
const RETRY_AFTER_S: &str = "5";

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers; the values are ours, never a client's.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: ResponseBody,
    /// What went wrong, if something did.
    pub code: Option<Code>,
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: ResponseBody::Bytes(Vec::new()), code: None }
    }

    /// Plain text.
    #[must_use]
    pub fn text(status: u16, text: &str) -> Self {
        let body = text.as_bytes().to_vec();
        Self::empty(status).with("Content-Type", "text/plain; charset=utf-8").with_body(body)
    }

    /// JSON.
    ///
    /// # Panics
    ///
    /// Never: our own plain structures always have a JSON form.
    #[must_use]
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        let mut body = serde_json::to_vec(value).expect("plain structures have a JSON form");
        body.push(b'\n');
        Self::empty(status)
            .with("Content-Type", "application/json")
            .with("Cache-Control", "no-store")
            .with_body(body)
    }

    /// The JSON of an error.
    #[must_use]
    pub fn error(code: Code, detail: &impl fmt::Display) -> Self {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            detail: String,
        }
        let body = Body { error: code.name(), detail: detail.to_string() };
        let response = Self { code: Some(code), ..Self::json(code.status(), &body) };
        match code.status() {
            // RFC 9110 section 15.5.2: a 401 says what to present.
            401 => response.with("WWW-Authenticate", "Bearer"),
            503 => response.with("Retry-After", RETRY_AFTER_S),
            _ => response,
        }
    }

    /// This answer with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// This answer, its body of this type.
    #[must_use]
    pub fn with_type(mut self, content_type: &'static str) -> Self {
        self.headers.retain(|(name, _)| *name != "Content-Type");
        self.with("Content-Type", content_type)
    }

    /// This answer, for a page of any site to read.
    #[must_use]
    pub fn for_every_page(self) -> Self {
        const NAME: &str = "Access-Control-Allow-Origin";
        if self.headers.iter().any(|(name, _)| *name == NAME) { self } else { self.with(NAME, "*") }
    }

    /// This answer with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<ResponseBody>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends this answer; of one to HEAD all but the body (RFC 9110 section 9.3.2). Parts of a body may be taken
    /// slowly, with pauses up to `limit`.
    ///
    /// # Errors
    ///
    /// When the peer is gone, or takes nothing.
    pub(super) fn send(
        &self,
        writer: &mut dyn Write,
        version: &str,
        is_to_head: bool,
        limit: Duration,
    ) -> io::Result<()> {
        let head = self.head(version);
        if is_to_head {
            ResponseBody::Bytes(Vec::new()).send(head, writer, limit)
        } else {
            self.body.send(head, writer, limit)
        }
    }

    fn head(&self, version: &str) -> Vec<u8> {
        // Length-delimited, whatever the size: every client understands that. RFC 9110 section 8.6: a 204 has no
        // length.
        // A 304 would have the length of what it stands for.
        let length = (self.status != 204 && self.status != 304).then(|| self.body.length().to_string());
        let length = length.iter().map(|length| ("Content-Length", length.as_str()));
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        head(version, self.status, headers.chain(length)).into_bytes()
    }
}

/// The head of an answer, to its empty line.
pub(super) fn head<'a>(
    version: &str,
    status: u16,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let reason = reason(status);
    let mut head = format!("{version} {status} {reason}\r\nServer: acerelay\r\nDate: {date}\r\n");
    for (name, value) in headers {
        debug_assert!(!value.contains(['\r', '\n']), "a header value with a line end");
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head
}

/// The phrases of RFC 9110 section 15, and of RFC 5842 for 508, for what is answered here.
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        416 => "Range Not Satisfiable",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        508 => "Loop Detected",
        _ => "",
    }
}

/// The kinds of errors that clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong.
    BadRequest,
    /// Without the admin token.
    Unauthorized,
    /// Not from there.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// There was, and is to be no more.
    Gone,
    /// There is no such part.
    RangeNotSatisfiable,
    /// The engine failed.
    EngineError,
    /// No engine is up.
    NoEngine,
    /// Something is full.
    AtCapacity,
    /// There is no guide yet.
    GuideAwaited,
    /// The proxy ends.
    ShuttingDown,
    /// The stream did not start in time.
    StartTimeout,
}

impl Code {
    /// The status and the name of a code.
    const fn row(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "bad_request"),
            Self::Unauthorized => (401, "unauthorized"),
            Self::Forbidden => (403, "forbidden"),
            Self::NotFound => (404, "not_found"),
            Self::MethodNotAllowed => (405, "method_not_allowed"),
            Self::Gone => (410, "gone"),
            Self::RangeNotSatisfiable => (416, "range_not_satisfiable"),
            Self::EngineError => (502, "engine_error"),
            Self::NoEngine => (503, "no_engine"),
            Self::AtCapacity => (503, "at_capacity"),
            Self::GuideAwaited => (503, "no_guide"),
            Self::ShuttingDown => (503, "shutting_down"),
            Self::StartTimeout => (504, "start_timeout"),
        }
    }

    /// Its HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }
}

/// The answer to an error that knows its code.
impl<'a, E: fmt::Display> From<&'a E> for Response
where
    Code: From<&'a E>,
{
    fn from(error: &'a E) -> Self {
        Self::error(Code::from(error), error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::body::Part;
    use super::*;

    fn text(response: &Response, version: &str, is_to_head: bool) -> String {
        let mut bytes = Vec::new();
        response.send(&mut bytes, version, is_to_head, Duration::ZERO).expect("there is room");
        let text = String::from_utf8(bytes).expect("text");
        let date = text.find("Date: ").expect("a date");
        // IMF-fixdate (RFC 9110 section 5.6.7) has one length.
        assert!(
            text[date..].find(" GMT\r\n").is_some_and(|end| end == "Date: Sun, 06 Nov 1994 08:49:37".len())
        );
        text
    }

    #[test]
    fn an_answer_has_its_length_and_to_head_no_body() {
        let response = Response::text(200, "ok\n").with("Cache-Control", "no-store");
        let whole = text(&response, "HTTP/1.1", false);
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\nServer: acerelay\r\n"), "{whole}");
        assert!(whole.ends_with("\r\nCache-Control: no-store\r\nContent-Length: 3\r\n\r\nok\n"), "{whole}");
        let head = text(&response, "HTTP/1.0", true);
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.ends_with("\r\nContent-Length: 3\r\n\r\n"), "{head}");
    }

    #[test]
    fn an_answer_in_parts_is_one_with_a_length_too() {
        let part = Part::new(Arc::new(*b"ok, or not"), 0..2).expect("it is there");
        let response = Response::empty(200).with_body(vec![part; 3]);
        let whole = text(&response, "HTTP/1.1", false);
        assert!(whole.ends_with("\r\nContent-Length: 6\r\n\r\nokokok"), "{whole}");
        let head = text(&response, "HTTP/1.1", true);
        assert!(head.ends_with("\r\nContent-Length: 6\r\n\r\n"), "{head}");
    }

    #[test]
    fn no_content_has_no_length() {
        let text = text(&Response::empty(204), "HTTP/1.1", false);
        assert!(text.starts_with("HTTP/1.1 204 No Content\r\n"), "{text}");
        assert!(!text.contains("Content-Length") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn every_code_has_its_phrase() {
        for status in [200, 204, 206, 302, 304, 400, 401, 403, 404, 405, 410, 416, 500, 502, 503, 504, 508] {
            assert_ne!(reason(status), "", "{status}");
        }
    }
}
