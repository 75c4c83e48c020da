//! One client's stream, from its request to its end: the last step in the way of a chunk.
//!
//! It waits for the start without a word to the client, so that a failure still has a status of its own; then it takes
//! the next chunk and writes it, again and again. It knows nothing of engines.
//!
//! A client's stack is most of the memory that it costs: its thread waits for hours in [`serve`], and every frame that
//! lies below holds what its function ever needed. So what is done once, before the stream flows or after, is a
//! function that is not inlined into one of those frames: hence `inline(never)` here, and in `routes`, `request` and
//! `incoming`, which lead here.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::request::{Body, Coding, Request};
use crate::http::response::{Code, Response};
use crate::http::socket::Presence;
use crate::stream::chunk::Chunk;
use crate::stream::client::{ClientRecord, Protocol};
use crate::stream::directory::NoSeat;
use crate::stream::ending::Ending;
use crate::stream::fanout::{Next, Subscription};
use crate::stream::state::Why;
use crate::stream::stream::Seat;
use crate::stream::streams::LOOK_INTERVAL;
use crate::ts::packet::null_packet;
use crate::wanted::Wanted;

use super::context::Context;
use super::film;
use super::place::{
    ClientPlace, LATE, NotAdmitted, StartOutcome, refuse, start_limit, turn_away, wait_started,
};

/// Null packets to a client of a quiet source follow each other at this distance.
const NULL_INTERVAL: Duration = Duration::from_secs(1);

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

/// Answers who asks for the head of a stream alone. Nothing is started for it: what is a film is known while it plays, and for
/// as long as it is listed after that.
pub(super) fn head(context: &Context, request: Request, wanted: &Wanted) {
    match film::known(context, wanted) {
        Some(file) => film::send_head(request, &file),
        None => request.stream_head(&HEADERS, None),
    }
}

/// Serves a stream or a part of a film to one client, until either ends. What it has to hold meanwhile `begin` gives once its
/// stream runs; it is let go while the client still has its seat. Where there is nothing to hold, there is no stream. `told` makes
/// of a refusal what it is told.
pub(super) fn serve<T>(
    context: &Context,
    request: Request,
    wanted: Wanted,
    begin: impl FnOnce(&Seat) -> Option<T>,
    told: impl FnOnce(Response) -> Response,
) {
    match admit(context, &request, wanted, Protocol::Ts) {
        Ok(place) => {
            let Some(held) = begin(&place.seat) else {
                drop(place);
                return refuse(context, request, told(Response::from(&Why::Asked)));
            };
            if place.seat.stream().is_film() {
                return film::serve(context, request, place, held, told);
            }
            let subscription = place.seat.join();
            let keepalive = context.stream.get().keepalive;
            let write_timeout = context.server.get().write_timeout;
            let mut client = ClientStream { context, place, subscription, keepalive, write_timeout };
            client.run(request);
            drop(held);
        }
        Err(not_admitted) => turn_away(context, request, not_admitted, told),
    }
}

/// Finds room for a client, and waits until its stream runs.
#[inline(never)]
pub(super) fn admit(
    context: &Context,
    request: &Request,
    mut wanted: Wanted,
    protocol: Protocol,
) -> Result<ClientPlace, NotAdmitted> {
    let server = context.server.get();
    let at_capacity = |detail: &'static str| NotAdmitted::Refused(Response::error(Code::AtCapacity, &detail));
    // This fails when the client has left, or when the process runs short of descriptors: a client that is still there
    // can ask again.
    let connection = request.hold().map_err(|_| at_capacity("the proxy has no room for this connection"))?;
    let pass = context
        .clients
        .enter(server.max_clients)
        .ok_or_else(|| at_capacity("there are as many clients as the configuration allows (max_clients)"))?;
    let user_agent = request.header("User-Agent").map(str::to_owned);
    let record =
        Arc::new(ClientRecord::new(context.stats.next_client(), protocol, request.peer(), user_agent));
    let handle = Arc::clone(connection.handle());
    let (address, max_per_address) = (record.address.ip(), server.max_clients_per_address);
    let registration =
        context.connections.keep(record.id, address, handle, max_per_address).ok_or_else(|| {
            at_capacity(
                "this address has as many clients as the configuration allows (max_clients_per_address)",
            )
        })?;
    let deadline = Instant::now() + start_limit(&context.stream.get());
    let client_left = |wanted: &Wanted| {
        log::info!("Client {} left stream {} before it started", record.id, wanted.key.stream_id());
        NotAdmitted::ClientLeft
    };
    loop {
        let seat = context.streams.seat(&wanted, &record, || request.is_awaited(&connection));
        let seat = seat.map_err(|no_seat| match no_seat {
            NoSeat::Gone => client_left(&wanted),
            no_seat => NotAdmitted::Refused(Response::from(&no_seat)),
        })?;
        match wait_started(&seat, request, &connection, &registration, deadline) {
            StartOutcome::Running => {
                return Ok(ClientPlace { seat, registration, pass, connection });
            }
            StartOutcome::SameAs(other) if Instant::now() < deadline => wanted = *other,
            StartOutcome::SameAs(_) => {
                return Err(NotAdmitted::Refused(Response::error(Code::StartTimeout, &LATE)));
            }
            StartOutcome::Failed(response) => return Err(NotAdmitted::Refused(response)),
            StartOutcome::ClientLeft => {
                // A client that has closed only its own half would else wait for us to close ours.
                connection.handle().shutdown();
                return Err(client_left(&wanted));
            }
        }
    }
}

struct ClientStream<'a> {
    context: &'a Context,
    subscription: Subscription,
    place: ClientPlace,
    /// Quiet time after which it is sent null packets, as it was configured when the client came.
    keepalive: Option<Duration>,
    /// Taking no byte for so long closes it, as it was configured when the client came.
    write_timeout: Duration,
}

/// Why a client is sent nothing more.
enum Departure {
    /// Its stream is over.
    StreamEnded(Ending),
    /// It closed its connection.
    ClientLeft,
    /// Somebody asked for it by a DELETE.
    Disconnected,
    /// The same, in the middle of a chunk: the body cannot be ended.
    DisconnectedInChunk,
    /// It took nothing for so long.
    Stuck(Duration),
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StreamEnded(Ending::Complete) => f.write_str("the stream ended"),
            Self::StreamEnded(Ending::Broken) => f.write_str("the stream was lost"),
            Self::ClientLeft => f.write_str("it left"),
            Self::Disconnected | Self::DisconnectedInChunk => f.write_str("disconnected on request"),
            Self::Stuck(limit) => write!(f, "it took nothing for {:.1} s", limit.as_secs_f32()),
        }
    }
}

impl From<io::Error> for Departure {
    /// Whatever a write fails with, the client is gone.
    fn from(_: io::Error) -> Self {
        Self::ClientLeft
    }
}

impl ClientStream<'_> {
    fn run(&mut self, request: Request) {
        self.place.log_arrival();
        let began = Instant::now();
        let departure = match request.stream(&HEADERS) {
            Ok(mut body) => {
                self.context.stats.add_join();
                let departure = self.feed(&mut body);
                if !self.ends_properly(&mut body, &departure) {
                    // Before the body is dropped: that could block once more.
                    self.place.connection.handle().shutdown();
                }
                departure
            }
            Err(_) => Departure::ClientLeft,
        };
        self.log_departure(began, &departure);
    }

    #[inline(never)]
    fn log_departure(&self, began: Instant, departure: &Departure) {
        let progress = self.subscription.progress();
        let state = self.place.seat.stream().state();
        let why = match (departure, state.why()) {
            (Departure::StreamEnded(Ending::Broken), Some(Why::Shutdown)) => Why::Shutdown.to_string(),
            _ => departure.to_string(),
        };
        self.place.log_departure(began, progress.sent_bytes(), progress.skips(), &why);
    }

    /// Sends chunk after chunk until something ends it.
    #[inline(never)]
    fn feed(&mut self, body: &mut Body) -> Departure {
        let (mut last_sent, mut skips): (Option<(Instant, _)>, _) = (None, 0);
        loop {
            if self.place.registration.is_asked_to_leave() {
                return Departure::Disconnected;
            }
            match self.subscription.next(Instant::now() + LOOK_INTERVAL) {
                Next::Chunk(chunk) => {
                    if let Err(departure) = self.send(body, &chunk) {
                        return departure;
                    }
                    if last_sent.is_none() {
                        // It has its head and its first bytes, and the backlog comes next, a megabyte. Of many who join at
                        // once the others wait for theirs, and go first.
                        thread::yield_now();
                    }
                    self.subscription.record_sent(&chunk);
                    self.context.stats.add_bytes_out(chunk.packets().len() as u64);
                    let skips_now = self.subscription.progress().skips();
                    self.context.stats.add_skips(skips_now - skips);
                    skips = skips_now;
                    last_sent = Some((Instant::now(), self.keepalive));
                }
                Next::Quiet => {
                    let presence = self.place.connection.handle().presence();
                    if presence == Presence::Gone {
                        return Departure::ClientLeft;
                    }
                    // The head waits to go out with the first chunk; while none comes, it goes alone.
                    if let Err(error) = body.flush() {
                        return error.into();
                    }
                    // Never before the first packets: a player that probes the stream would take it for empty. To one that
                    // says nothing more they are sent at each look, since only a write tells whether it has left.
                    if let Some((at, keepalive)) = last_sent
                        && let Some(quiet) =
                            if presence == Presence::Mute { Some(LOOK_INTERVAL) } else { keepalive }
                        && at.elapsed() >= quiet
                    {
                        if let Err(departure) = self.send(body, &NULL_CHUNK) {
                            return departure;
                        }
                        last_sent = Some((Instant::now(), keepalive.map(|quiet| NULL_INTERVAL.min(quiet))));
                    }
                }
                Next::End(ending) => return Departure::StreamEnded(ending),
            }
        }
    }

    fn send(&self, body: &mut Body, chunk: &Chunk) -> Result<(), Departure> {
        let mut bytes = match body.coding() {
            Coding::Chunked => chunk.framed(),
            Coding::Raw | Coding::Length => chunk.packets(),
        };
        let mut stuck_since = None;
        while !bytes.is_empty() {
            let written = body.write(bytes)?;
            bytes = &bytes[written..];
            if written > 0 {
                stuck_since = None;
            } else if self.place.registration.is_asked_to_leave() {
                return Err(Departure::DisconnectedInChunk);
            } else if stuck_since.get_or_insert_with(Instant::now).elapsed() >= self.write_timeout {
                return Err(Departure::Stuck(self.write_timeout));
            }
        }
        Ok(())
    }

    /// Ends the body as its coding asks for, if it may be ended; else the connection has to be.
    fn ends_properly(&self, body: &mut Body, departure: &Departure) -> bool {
        let is_whole =
            matches!(departure, Departure::StreamEnded(Ending::Complete) | Departure::Disconnected);
        if !is_whole || body.coding() != Coding::Chunked {
            return false;
        }
        // Before the last chunk goes out: a client that has read it may ask for something else at once.
        self.place.connection.release();
        body.end()
    }
}
