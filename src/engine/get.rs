//! One GET to an engine, with its redirects, up to a body.
//!
//! It must not know what the body is.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::header::{LOCATION, RANGE};
use ureq::{Agent, Body, BodyReader, Timeout};

use super::answer::excerpt;
use super::error::{EngineError, classify};
use super::url::Target;

/// An engine makes two (engine-contract.md section 1.3).
const MAX_REDIRECTS: usize = 5;

/// As much of an error's body as is worth reading.
const MAX_ERROR_BYTES: u64 = 4096;

/// Asks one engine.
#[derive(Clone, Debug)]
pub(super) struct Getter {
    agent: Agent,
    authority: String,
}

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// As long as it likes: a broadcast has no end, and its silence is for others to judge.
    Endless,
    /// So long without a byte.
    Silence(Duration),
    /// So long in all.
    Total(Duration),
}

/// A success, and where it was found.
pub(super) struct Found {
    pub(super) status: u16,
    /// Where the redirects have led.
    pub(super) target: Target,
    pub(super) body: BodyReader<'static>,
}

impl Getter {
    /// Asks the engine at this `host:port`.
    pub(super) fn new(agent: Agent, authority: &str) -> Self {
        Self { agent, authority: authority.to_owned() }
    }

    /// Asks for a target, or for the part `from..to` of it, and follows the engine's redirects until there is a body. Its
    /// head has to come before `deadline`.
    pub(super) fn get(
        &self,
        mut target: Target,
        part: Option<(u64, u64)>,
        deadline: Instant,
        patience: Patience,
    ) -> Result<Found, EngineError> {
        for _ in 0..=MAX_REDIRECTS {
            let limit = deadline.saturating_duration_since(Instant::now());
            let mut request = self.agent.get(target.on(&self.authority));
            if let Some((from, to)) = part {
                request = request.header(RANGE, format!("bytes={from}-{}", to.saturating_sub(1)));
            }
            let config = request.config().timeout_recv_response(Some(limit));
            let config = match patience {
                Patience::Endless => config,
                Patience::Silence(limit) => config.timeout_per_read(Some(limit)),
                Patience::Total(limit) => config.timeout_recv_body(Some(limit)),
            };
            let response = config.build().call().map_err(|error| classify(error, limit))?;
            let status = response.status();
            if status.is_redirection() {
                // The body is dropped unread, and the connection with it: it has neither length nor end.
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                target = Target::rebase(location.ok_or(EngineError::NoAnswer("a redirect to nowhere"))?)?;
                continue;
            }
            let body = response.into_body();
            if !status.is_success() {
                return Err(EngineError::Status(status.as_u16(), error_text(body)));
            }
            return Ok(Found { status: status.as_u16(), target, body: body.into_reader() });
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
pub(super) fn body_error(error: &io::Error, limit: Duration) -> EngineError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
    let is_late = matches!(cause, Some(ureq::Error::Timeout(Timeout::PerRead | Timeout::RecvBody)));
    if is_late || error.kind() == io::ErrorKind::TimedOut {
        EngineError::Silent(limit)
    } else {
        EngineError::Lost(error.to_string())
    }
}
