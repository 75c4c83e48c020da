//! A client's place: what it holds while it is served, and how it waits for that.
//!
//! It must not know what is served, a stream or a film.

use std::time::{Duration, Instant};

use crate::config;
use crate::escape::Escaped;
use crate::http::request::{Request, StreamConnection};
use crate::http::response::{Code, Response};
use crate::http::turnstile::Pass;
use crate::stream::client::ClientRecord;
use crate::stream::state::Why;
use crate::stream::stream::{Seat, Stream};
use crate::stream::streams::LOOK_INTERVAL;
use crate::wanted::Wanted;

use super::connections::Registration;
use super::context::Context;

/// A start is given up here so long after all its phases should be over: streams end their starts by themselves.
const START_MARGIN: Duration = Duration::from_secs(2);

/// A client that is gone has answered a sign of life by then, unless it was far away: a house is no further than its Wi-Fi.
const SIGN_PAUSE: Duration = Duration::from_millis(50);

/// What a client holds for as long as it streams. Dropping it gives everything back.
pub(super) struct ClientPlace {
    // In the order in which it is given back.
    pub(super) seat: Seat,
    pub(super) registration: Registration,
    pub(super) pass: Pass,
    pub(super) connection: StreamConnection,
}

/// One line for a client that has come; `by` says how it takes the stream, if that is not as most do.
#[inline(never)]
pub(super) fn log_arrival(record: &ClientRecord, stream: &Stream, by: &str) {
    let agent = record.user_agent.as_deref().unwrap_or("no user agent");
    log::info!(
        "Client {} connected to stream {} from {} ({}){by}",
        record.id,
        stream.stream_id(),
        record.address,
        Escaped(agent)
    );
}

/// One line for a client that has gone.
pub(super) fn log_departure(
    record: &ClientRecord,
    stream: &Stream,
    came: Instant,
    bytes: u64,
    skips: u64,
    why: &str,
) {
    log::info!(
        "Client {} from {} left stream {} after {} s, {bytes} bytes, {skips} skips: {why}",
        record.id,
        record.address,
        stream.stream_id(),
        came.elapsed().as_secs(),
    );
}

impl ClientPlace {
    pub(super) fn log_arrival(&self) {
        log_arrival(self.seat.client(), self.seat.stream(), "");
    }

    pub(super) fn log_departure(&self, began: Instant, bytes: u64, skips: u64, why: &str) {
        log_departure(self.seat.client(), self.seat.stream(), began, bytes, skips, why);
    }
}

/// Why a client gets nothing.
pub(super) enum NotAdmitted {
    /// It is told why.
    Refused(Response),
    /// Nobody is there any more who could be told.
    ClientLeft,
}

/// Tells a client why it gets nothing, in the words that `told` makes of it, if it is there still.
pub(super) fn turn_away(
    context: &Context,
    request: Request,
    not_admitted: NotAdmitted,
    told: impl FnOnce(Response) -> Response,
) {
    match not_admitted {
        NotAdmitted::Refused(response) => refuse(context, request, told(response)),
        // Nobody reads what it is answered.
        NotAdmitted::ClientLeft => drop(request),
    }
}

/// Tells a client why it gets nothing.
pub(super) fn refuse(context: &Context, request: Request, response: Response) {
    if let Some(code) = response.code {
        context.stats.add_refusal(code.name());
    }
    // A web player may read why there is no picture.
    request.respond(response.for_every_page());
}

/// Told to a client whose stream has neither started nor said why at the end of all limits.
pub(super) const LATE: &str = "the stream did not start in time";

/// The longest a start may take, all its phases together.
pub(super) fn start_limit(settings: &config::Stream) -> Duration {
    settings.connect_timeout + settings.first_data_timeout + START_MARGIN
}

/// What a client that waits for a start gets to know.
pub(super) enum StartOutcome {
    /// The stream runs.
    Running,
    /// The engine has told that this is the content of another stream, which the client gets in its place.
    SameAs(Box<Wanted>),
    /// There is no stream, and this says why.
    Failed(Response),
    /// The client did not wait for it.
    ClientLeft,
}

/// Waits for the outcome of a start, as long as the client does.
pub(super) fn wait_started(
    seat: &Seat,
    request: &Request,
    connection: &StreamConnection,
    registration: &Registration,
    deadline: Instant,
) -> StartOutcome {
    wait(request, connection, registration, deadline, |until| {
        Some(match seat.wait_started(until)? {
            Ok(()) => StartOutcome::Running,
            Err(Why::SameAs(key)) => StartOutcome::SameAs(key),
            Err(why) => StartOutcome::Failed(Response::from(&why)),
        })
    })
}

/// Waits for an outcome, as long as the client does; `outcome` waits until then.
pub(super) fn wait(
    request: &Request,
    connection: &StreamConnection,
    registration: &Registration,
    deadline: Instant,
    mut outcome: impl FnMut(Instant) -> Option<StartOutcome>,
) -> StartOutcome {
    let mut pause = LOOK_INTERVAL;
    loop {
        let now = Instant::now();
        if let Some(outcome) = outcome(deadline.min(now + pause)) {
            return outcome;
        }
        let signs = request.signs();
        if !request.is_awaited(connection) {
            return StartOutcome::ClientLeft;
        }
        if registration.is_asked_to_leave() {
            return StartOutcome::Failed(Response::from(&Why::Asked));
        }
        // The stream's own deadlines come first; this one holds whatever becomes of them.
        if now >= deadline {
            return StartOutcome::Failed(Response::error(Code::StartTimeout, &LATE));
        }
        pause = if request.signs() == signs { LOOK_INTERVAL } else { SIGN_PAUSE };
    }
}
