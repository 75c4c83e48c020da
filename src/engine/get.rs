//! One GET to an engine, with its redirects, up to a body.
//!
//! It must not know what the body is.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::header::LOCATION;
use ureq::{Body, BodyReader};

use super::agent::{Bounded, Line};
use super::answer::excerpt;
use super::api::Api;
use super::error::{EngineError, classify_body};
use super::file::{Head, Span};
use super::pulse::Pulse;
use super::url::Target;

/// An engine makes two (engine-contract.md section 1.3).
const MAX_REDIRECTS: usize = 5;

/// As much of an error's body as is worth reading.
const MAX_ERROR_BYTES: u64 = 4096;

/// Asks one engine on a line of its own; every answer is a sign of the engine's life.
pub(super) struct Getter {
    line: Arc<Line>,
    pulse: Arc<Pulse>,
}

/// A success, and where it was found.
pub(super) struct Found {
    pub(super) status: u16,
    /// What the answer says of the body.
    pub(super) head: Head,
    /// Where the redirects have led.
    pub(super) target: Target,
    pub(super) body: BodyReader<'static>,
}

impl Getter {
    pub(super) fn new(api: &Api) -> Self {
        Self { line: Arc::new(Line::new(api.host())), pulse: Arc::clone(api.pulse()) }
    }

    /// The line that it asks on.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The engine's signs of life.
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Asks for a target, or for a part of it, and follows the engine's redirects until there is a body. Its
    /// head has to come before `deadline`.
    ///
    /// # Errors
    ///
    /// When there is no success status until `deadline`, when the engine redirects in circles or to a place outside
    /// playback, and when the line was cut.
    pub(super) fn get(
        &self,
        mut target: Target,
        part: Option<Span>,
        deadline: Instant,
        bounded: Bounded,
    ) -> Result<Found, EngineError> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.line.get_part(&target, part, deadline, bounded)?;
            self.pulse.answer(Instant::now());
            let status = response.status();
            if status.is_redirection() {
                // The body is dropped unread, and the connection with it: it has neither length nor end.
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                target = Target::rebase(location.ok_or(EngineError::NoAnswer("a redirect to nowhere"))?)?;
                continue;
            }
            let head = Head::read(response.headers());
            let body = response.into_body();
            if !status.is_success() {
                return Err(EngineError::Status(status.as_u16(), error_text(body)));
            }
            return Ok(Found { status: status.as_u16(), head, target, body: body.into_reader() });
        }
        Err(EngineError::TooManyRedirects)
    }
}

/// The text of an error answer, if its length is known: one without a length may never end.
fn error_text(body: Body) -> String {
    if body.content_length().is_none_or(|length| length > MAX_ERROR_BYTES) {
        return String::new();
    }
    let mut text = Vec::new();
    match body.into_reader().take(MAX_ERROR_BYTES).read_to_end(&mut text) {
        Ok(_) => excerpt(&String::from_utf8_lossy(&text)),
        Err(_) => String::new(),
    }
}

/// Why the reading of a body that may take so long failed.
pub(super) fn body_error(error: io::Error, limit: Duration) -> EngineError {
    classify_body(error.into(), limit)
}
