//! One client's stream, from its request to its end: the last step in the way of a chunk.
//!
//! It waits for the start without a word to the client, so that a failure still has a status of its own; then it takes
//! the next chunk and writes it, again and again. It knows nothing of engines.
//!
//! A client's stack is most of the memory that it costs. What its thread does before the stream flows, and what it says
//! of it, is kept out of the frames below which it then waits for hours: hence `inline(never)` here and on the way here.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::escape::Escaped;
use crate::id::ContentKey;
use crate::stream::chunk::Chunk;
use crate::stream::client::ClientRecord;
use crate::stream::directory::NoSeat;
use crate::stream::ending::Ending;
use crate::stream::fanout::{Next, Subscription};
use crate::stream::state::Why;
use crate::stream::stream::Seat;
use crate::ts::packet::null_packet;
use crate::wanted::Wanted;

use crate::http::turnstile::Pass;

use super::connections::Registration;
use super::context::Context;
use crate::http::request::{Body, Coding, Request, StreamConnection};
use crate::http::response::{Code, Response};

/// How often a client that waits is looked after: is it still there?
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Null packets to a client of a quiet source follow each other at this distance.
const NULL_INTERVAL: Duration = Duration::from_secs(1);

/// The chunk that ends a chunked body (RFC 9112 section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The headers of a stream.
pub(super) const HEADERS: [(&str, &str); 5] = [
    ("Content-Type", "video/mp2t"),
    ("Cache-Control", "no-store"),
    ("Accept-Ranges", "none"),
    // Else nginx gathers the stream before it passes it on.
    ("X-Accel-Buffering", "no"),
    ("Access-Control-Allow-Origin", "*"),
];

static NULL_CHUNK: LazyLock<Chunk> = LazyLock::new(|| Chunk::inserted(Instant::now(), &null_packet()));

/// Serves a stream to one client until either ends.
pub(super) fn serve(context: &Context, request: Request, key: &ContentKey) {
    match admit(context, &request, key) {
        Ok(admitted) => {
            let subscription = admitted.seat.join();
            ClientStream { context, admitted, subscription }.run(request);
        }
        Err(Turned::Away(response)) => refuse(context, request, response),
        // Nobody reads what it is answered.
        Err(Turned::Gone) => drop(request),
    }
}

/// What a client has for as long as it streams.
struct Admitted<'a> {
    // In the order in which it is given back.
    seat: Seat,
    kept: Registration<'a>,
    _pass: Pass,
    connection: StreamConnection,
}

/// Why a client gets no stream.
enum Turned {
    Away(Response),
    Gone,
}

/// Finds room for a client, and waits until its stream runs.
#[inline(never)]
fn admit<'a>(context: &'a Context, request: &Request, key: &ContentKey) -> Result<Admitted<'a>, Turned> {
    let at_capacity = |detail: &'static str| Turned::Away(Response::error(Code::AtCapacity, &detail));
    // Gone already, or the process runs short of descriptors; a client that is there can ask again.
    let connection = request.hold().map_err(|_| at_capacity("the proxy has no room for this connection"))?;
    let pass = context
        .clients
        .enter()
        .ok_or_else(|| at_capacity("there are as many clients as the configuration allows (max_clients)"))?;
    let user_agent = request.header("User-Agent").map(str::to_owned);
    let record = Arc::new(ClientRecord::new(context.stats.next_client(), request.peer(), user_agent));
    let handle = Arc::clone(connection.handle());
    let kept = context.connections.keep(record.id, record.address.ip(), handle).ok_or_else(|| {
        at_capacity("this address has as many clients as the configuration allows (max_clients_per_address)")
    })?;
    let deadline = Instant::now() + context.start_limit;
    let mut wanted = Wanted::from(key.clone());
    let gone = |wanted: &Wanted| {
        log::info!("Client {} left stream {} before it started", record.id, wanted.key.stream_id());
        Turned::Gone
    };
    loop {
        let seat = context.streams.seat(&wanted, &record, || connection.handle().is_established());
        let seat = seat.map_err(|no_seat| match no_seat {
            NoSeat::Gone => gone(&wanted),
            no_seat => Turned::Away(Response::from(&no_seat)),
        })?;
        match wait_started(&seat, &connection, &kept, deadline) {
            Start::Running => return Ok(Admitted { seat, kept, _pass: pass, connection }),
            Start::SameAs(other) if Instant::now() < deadline => wanted = *other,
            Start::SameAs(_) => return Err(Turned::Away(Response::error(Code::StartTimeout, &LATE))),
            Start::Failed(response) => return Err(Turned::Away(response)),
            Start::Gone => {
                // One that closed its half alone is not to wait for the rest.
                connection.handle().shutdown();
                return Err(gone(&wanted));
            }
        }
    }
}

fn refuse(context: &Context, request: Request, response: Response) {
    if let Some(code) = response.code {
        context.stats.add_refusal(code.name());
    }
    request.respond(response);
}

/// Said when all else failed to say something better in time.
const LATE: &str = "the stream did not start in time";

enum Start {
    Running,
    /// The content is there under this name.
    SameAs(Box<Wanted>),
    Failed(Response),
    Gone,
}

fn wait_started(
    seat: &Seat,
    connection: &StreamConnection,
    kept: &Registration<'_>,
    deadline: Instant,
) -> Start {
    loop {
        let now = Instant::now();
        match seat.wait_started(deadline.min(now + LOOK_INTERVAL)) {
            Some(Ok(())) => return Start::Running,
            Some(Err(Why::SameAs(key))) => return Start::SameAs(key),
            Some(Err(why)) => return Start::Failed(Response::from(&why)),
            None if !connection.handle().is_established() => return Start::Gone,
            None if kept.is_asked_to_leave() => return Start::Failed(Response::from(&Why::Asked)),
            // The stream's own deadlines come first; this one holds whatever becomes of them.
            None if now >= deadline => {
                return Start::Failed(Response::error(Code::StartTimeout, &LATE));
            }
            None => {}
        }
    }
}

struct ClientStream<'a> {
    context: &'a Context,
    subscription: Subscription,
    admitted: Admitted<'a>,
}

/// Why a client's stream is over.
enum Over {
    Ended(Ending),
    Gone,
    Asked,
    /// Asked to leave, in the middle of a chunk: the body cannot be ended.
    Cut,
    Stuck(Duration),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Ending::Complete) => f.write_str("the stream ended"),
            Self::Ended(Ending::Broken) => f.write_str("the stream was lost"),
            Self::Gone => f.write_str("it left"),
            Self::Asked | Self::Cut => f.write_str("disconnected on request"),
            Self::Stuck(limit) => write!(f, "it took nothing for {:.1} s", limit.as_secs_f32()),
        }
    }
}

impl From<io::Error> for Over {
    /// Whatever a write fails with, the client is gone.
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl ClientStream<'_> {
    fn run(&mut self, request: Request) {
        self.log_arrival();
        let began = Instant::now();
        let over = match request.stream(&HEADERS) {
            Ok(mut body) => {
                self.context.stats.add_join();
                let over = self.feed(&mut body);
                if !self.ends_properly(&mut body, &over) {
                    // Before the body is dropped: that could block once more.
                    self.admitted.connection.handle().shutdown();
                }
                over
            }
            Err(_) => Over::Gone,
        };
        self.log_departure(began, &over);
    }

    #[inline(never)]
    fn log_arrival(&self) {
        let (record, id) = (self.admitted.seat.client(), self.admitted.seat.stream().stream_id());
        let agent = record.user_agent.as_deref().unwrap_or("no user agent");
        log::info!(
            "Client {} connected to stream {id} from {} ({})",
            record.id,
            record.address,
            Escaped(agent)
        );
    }

    #[inline(never)]
    fn log_departure(&self, began: Instant, over: &Over) {
        let (record, id) = (self.admitted.seat.client(), self.admitted.seat.stream().stream_id());
        let progress = self.subscription.progress();
        log::info!(
            "Client {} from {} left stream {id} after {} s, {} bytes, {} skips: {over}",
            record.id,
            record.address,
            began.elapsed().as_secs(),
            progress.sent_bytes(),
            progress.skips(),
        );
    }

    /// Sends chunk after chunk until something ends it.
    #[inline(never)]
    fn feed(&mut self, body: &mut Body) -> Over {
        let (mut last_sent, mut skips) = (None, 0);
        loop {
            if self.admitted.kept.is_asked_to_leave() {
                return Over::Asked;
            }
            match self.subscription.next(Instant::now() + LOOK_INTERVAL) {
                Next::Chunk(chunk) => {
                    if let Err(over) = self.send(body, &chunk) {
                        return over;
                    }
                    self.subscription.record_sent(&chunk);
                    self.context.stats.add_bytes_out(chunk.packets().len() as u64);
                    let skips_now = self.subscription.progress().skips();
                    self.context.stats.add_skips(skips_now - skips);
                    skips = skips_now;
                    last_sent = Some((Instant::now(), self.context.keepalive));
                }
                Next::Quiet if !self.admitted.connection.handle().is_established() => return Over::Gone,
                Next::Quiet => {
                    // The head, while nothing comes to go out with it.
                    if let Err(error) = body.flush() {
                        return error.into();
                    }
                    // Never before the first packets: a probe would take null packets for all there is.
                    if let Some((at, Some(quiet))) = last_sent
                        && at.elapsed() >= quiet
                    {
                        if let Err(over) = self.send(body, &NULL_CHUNK) {
                            return over;
                        }
                        last_sent = Some((Instant::now(), Some(NULL_INTERVAL.min(quiet))));
                    }
                }
                Next::End(ending) => return Over::Ended(ending),
            }
        }
    }

    fn send(&self, body: &mut Body, chunk: &Chunk) -> Result<(), Over> {
        let mut bytes = match body.coding() {
            Coding::Chunked => chunk.framed(),
            Coding::Raw => chunk.packets(),
        };
        let mut stuck_since = None;
        while !bytes.is_empty() {
            let written = body.write(bytes)?;
            bytes = &bytes[written..];
            if written > 0 {
                stuck_since = None;
            } else if self.admitted.kept.is_asked_to_leave() {
                return Err(Over::Cut);
            } else if stuck_since.get_or_insert_with(Instant::now).elapsed() >= self.context.write_timeout {
                return Err(Over::Stuck(self.context.write_timeout));
            }
        }
        Ok(())
    }

    /// Ends the body as its coding asks for, if it may be ended; else the connection has to be.
    fn ends_properly(&self, body: &mut Body, over: &Over) -> bool {
        if !matches!(over, Over::Ended(Ending::Complete) | Over::Asked) || body.coding() != Coding::Chunked {
            return false;
        }
        // Whoever has read the end may ask for something else at once.
        self.admitted.connection.release();
        body.write(LAST_CHUNK).is_ok_and(|written| written == LAST_CHUNK.len())
            && body.flush().unwrap_or(false)
    }
}
