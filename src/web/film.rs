//! One client's part of a film, from its request to its end.
//!
//! Each request is passed on to the engine, on a connection of its own, once the stream has started: from where it asks to
//! where it asks. What the engine gives is written as it comes; a client that takes nothing, since its player is paused, holds
//! the engine back by TCP alone. A part that breaks off ends without its end, so that the player asks for the rest of it; that
//! request finds the film in the same engine session, or has the stream look for another. It must not know how.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::error::EngineError;
use crate::engine::file::{File, Span};
use crate::http::range::Asked;
use crate::http::request::{Body, Coding, Request};
use crate::http::response::{Code, Response};
use crate::http::socket::Presence;
use crate::stream::film::{FilmNext, NoReading, Reading};
use crate::stream::state::Why;
use crate::stream::streams::LOOK_INTERVAL;
use crate::wanted::Wanted;

use super::context::Context;
use super::place::{self, ClientPlace, NotAdmitted, StartOutcome};

/// A paused film is kept so long: longer than any pause of which the viewer has not forgotten that he made it. Who comes back
/// later asks again, from where he was. One whose device is gone is found out by the system, within a quarter of an hour.
const MAX_PAUSE: Duration = Duration::from_secs(2 * 3600);

/// A client that has ended its half of the connection is gone, as a rule: it has looked for another place in the film. Only a
/// write would tell, and while the engine loads there is nothing to write.
const MUTE_PATIENCE: Duration = Duration::from_secs(2);

/// Sources that one request may find lost before it is told so.
const MAX_LOSSES: u32 = 4;

/// The file that is wanted, if it is known to be one.
pub(super) fn known(context: &Context, wanted: &Wanted) -> Option<File> {
    let streams = context.streams.list();
    let mut named = streams
        .iter()
        .filter(|stream| *stream.key() == wanted.key || wanted.sources().contains(&stream.content()));
    named.find_map(|stream| stream.file())
}

/// Sends the head of all of a file.
pub(super) fn send_head(request: Request, file: &File) {
    let answer = Answer { status: 200, span: Span::WHOLE, length: file.length };
    request.stream_head(&as_headers(&answer.headers(file)), file.length);
}

/// What a client is answered.
struct Answer {
    status: u16,
    span: Span,
    /// Of the body.
    length: Option<u64>,
}

impl Answer {
    /// The answer to this request for this file.
    fn to(request: &Request, file: &File) -> Result<Self, Response> {
        let whole = Self { status: 200, span: Span::WHOLE, length: file.length };
        let Some(length) = file.length.filter(|_| file.has_parts) else {
            return Ok(whole);
        };
        // RFC 9110 section 13.1.5: of another file than the one that was asked for before, all is wanted.
        let is_same = |tag: &str| file.etag.as_deref() == Some(tag) && !tag.starts_with("W/");
        let range = request.header("Range").filter(|_| request.header("If-Range").is_none_or(is_same));
        match Asked::of(range, length) {
            Asked::Whole => Ok(whole),
            Asked::Part(from, to) => {
                let span = Span { from, to: Some(to) };
                Ok(Self { status: 206, span, length: Some(to - from) })
            }
            Asked::Nothing => {
                let detail = format!("the film has {length} bytes, and none of them was asked for");
                let response = Response::error(Code::RangeNotSatisfiable, &detail);
                Err(response.with("Content-Range", format!("bytes */{length}")))
            }
        }
    }

    fn headers(&self, file: &File) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("Content-Type", file.content_type.clone()),
            ("Cache-Control", "no-store".to_owned()),
            ("X-Accel-Buffering", "no".to_owned()),
            ("Access-Control-Allow-Origin", "*".to_owned()),
            (
                "Access-Control-Expose-Headers",
                "Accept-Ranges, Content-Length, Content-Range, ETag".to_owned(),
            ),
        ];
        if file.has_parts {
            headers.push(("Accept-Ranges", "bytes".to_owned()));
        }
        headers.extend(file.etag.clone().map(|tag| ("ETag", tag)));
        if let (206, Some(to), Some(length)) = (self.status, self.span.to, file.length) {
            let range = format!("bytes {}-{}/{length}", self.span.from, to.saturating_sub(1));
            headers.push(("Content-Range", range));
        }
        headers
    }
}

fn as_headers<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Serves a part of a film to one client, who holds this meanwhile, and for no longer than its seat. `told` makes of a refusal
/// what it is told.
#[inline(never)]
pub(super) fn serve<T>(
    context: &Context,
    request: Request,
    mut place: ClientPlace,
    held: T,
    told: impl FnOnce(Response) -> Response,
) {
    match open(context, &request, &mut place) {
        Ok((answer, reading)) => {
            let client = FilmClient { context, place, reading };
            client.run(request, &answer);
            drop(held);
        }
        Err(not_admitted) => {
            // Before it is answered: a client that has read the answer may ask for something else at once.
            drop(place);
            place::turn_away(context, request, not_admitted, told);
        }
    }
}

/// Opens the part that is asked for, in whichever engine session has it.
#[inline(never)]
fn open(
    context: &Context,
    request: &Request,
    place: &mut ClientPlace,
) -> Result<(Answer, Reading), NotAdmitted> {
    let deadline = Instant::now() + place::start_limit(&context.stream.get());
    let at_capacity = |detail: &'static str| NotAdmitted::Refused(Response::error(Code::AtCapacity, &detail));
    let mut losses = 0;
    loop {
        let stream = Arc::clone(place.seat.stream());
        if let Some(film) = stream.film() {
            let answer = Answer::to(request, film.file()).map_err(NotAdmitted::Refused)?;
            match film.read(answer.span, deadline) {
                Ok(reading) => match wait_opened(&reading, request, place, deadline)? {
                    None => return Ok((answer, reading)),
                    Some(error) if error.is_loss_of_session() && losses < MAX_LOSSES => {
                        stream.lose_film(&film, error);
                    }
                    Some(error) => return Err(NotAdmitted::Refused(Response::from(&Why::of_body(error)))),
                },
                Err(NoReading::Over) => {}
                Err(NoReading::TooMany) => {
                    return Err(at_capacity("this film is read over as many connections as it may be"));
                }
                Err(NoReading::NoThread) => {
                    return Err(at_capacity("the system has no thread for this film"));
                }
            }
        }
        losses += 1;
        if losses > MAX_LOSSES {
            let detail = "the film was lost as often as it was found";
            return Err(NotAdmitted::Refused(Response::error(Code::EngineError, &detail)));
        }
        wait_found(context, request, place, deadline)?;
    }
}

/// Waits until the stream has found the film again, or a new one has that takes its place.
fn wait_found(
    context: &Context,
    request: &Request,
    place: &mut ClientPlace,
    deadline: Instant,
) -> Result<(), NotAdmitted> {
    place.seat.wait_anew();
    loop {
        let ClientPlace { seat, registration, connection, .. } = &*place;
        let wanted = match place::wait_started(seat, request, connection, registration, deadline) {
            StartOutcome::Running => return Ok(()),
            StartOutcome::SameAs(other) => *other,
            // It is not the film that failed, but the stream, which did not look any further.
            StartOutcome::Failed(_) if has_lost_film(place) => seat.stream().wanted().clone(),
            StartOutcome::Failed(response) => return Err(NotAdmitted::Refused(response)),
            StartOutcome::ClientLeft => return Err(client_left(place)),
        };
        let is_there = || request.is_awaited(&place.connection);
        let seat = context.streams.seat(&wanted, place.seat.client(), is_there);
        place.seat = seat.map_err(|no_seat| NotAdmitted::Refused(Response::from(&no_seat)))?;
    }
}

/// Whether the stream has ended since the film was lost: one that had started.
fn has_lost_film(place: &ClientPlace) -> bool {
    let stream = place.seat.stream();
    stream.is_film() && stream.state().why().is_some_and(Why::is_trouble)
}

fn client_left(place: &ClientPlace) -> NotAdmitted {
    // A client that has closed only its own half would else wait for us to close ours.
    place.connection.handle().shutdown();
    let (record, id) = (place.seat.client(), place.seat.stream().stream_id());
    log::info!("Client {} left stream {id} before its part came", record.id);
    NotAdmitted::ClientLeft
}

/// Waits until the engine gives the part, or says why it does not.
fn wait_opened(
    reading: &Reading,
    request: &Request,
    place: &ClientPlace,
    deadline: Instant,
) -> Result<Option<EngineError>, NotAdmitted> {
    let mut failure = None;
    let outcome = |until| match reading.wait_opened(until)? {
        Ok(()) => Some(StartOutcome::Running),
        Err(error) => {
            failure = Some(error);
            Some(StartOutcome::Running)
        }
    };
    match place::wait(request, &place.connection, &place.registration, deadline, outcome) {
        StartOutcome::Running | StartOutcome::SameAs(_) => Ok(failure),
        StartOutcome::Failed(response) => Err(NotAdmitted::Refused(response)),
        StartOutcome::ClientLeft => Err(client_left(place)),
    }
}

struct FilmClient<'a> {
    context: &'a Context,
    // First, so that the engine's connection goes before the seat.
    reading: Reading,
    place: ClientPlace,
}

/// Why a client is sent nothing more.
enum Departure {
    /// It has all that it asked for.
    Complete,
    /// The engine broke off.
    Broken(EngineError),
    /// The stream is over.
    StreamEnded,
    /// It closed its connection.
    ClientLeft,
    /// Somebody asked for it by a DELETE.
    Disconnected,
    /// It took nothing for so long.
    Stuck(Duration),
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("it has all that it asked for"),
            Self::Broken(error) => fmt::Display::fmt(error, f),
            Self::StreamEnded => f.write_str("the film was lost"),
            Self::ClientLeft => f.write_str("it left"),
            Self::Disconnected => f.write_str("disconnected on request"),
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

impl FilmClient<'_> {
    fn run(&self, request: Request, answer: &Answer) {
        self.place.log_arrival();
        let began = Instant::now();
        self.place.seat.client().begin_film(answer.span.from);
        let departure = match self.begin(request, answer) {
            Ok(mut body) => {
                self.context.stats.add_join();
                let departure = self.feed(&mut body, answer.length);
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
    fn begin(&self, request: Request, answer: &Answer) -> io::Result<Body> {
        let headers = answer.headers(self.reading.film().file());
        let headers = as_headers(&headers);
        match answer.length {
            Some(length) => request.stream_of_length(answer.status, &headers, length),
            None => request.stream(&headers),
        }
    }

    /// Sends piece after piece until something ends it.
    #[inline(never)]
    fn feed(&self, body: &mut Body, length: Option<u64>) -> Departure {
        let seat = &self.place.seat;
        let mut left = length;
        let mut mute_since = None;
        loop {
            if self.place.registration.is_asked_to_leave() {
                return Departure::Disconnected;
            }
            match self.reading.next(Instant::now() + LOOK_INTERVAL) {
                FilmNext::Piece(piece) => {
                    let bytes = piece.len() as u64;
                    seat.stream().record_film_bytes(bytes);
                    left = left.map(|left| left.saturating_sub(bytes));
                    if left == Some(0) {
                        // Before the last bytes go out: a client that has read them may ask for something else at once.
                        self.place.connection.release();
                    }
                    if let Err(departure) = self.send(body, &piece) {
                        return departure;
                    }
                    self.reading.give_back(piece);
                    mute_since = None;
                }
                FilmNext::Quiet => {
                    // The head waits to go out with the first piece; while none comes, it goes alone.
                    if let Err(error) = body.flush() {
                        return error.into();
                    }
                    match self.place.connection.handle().presence() {
                        Presence::There => mute_since = None,
                        Presence::Mute => {
                            if mute_since.get_or_insert_with(Instant::now).elapsed() >= MUTE_PATIENCE {
                                return Departure::ClientLeft;
                            }
                        }
                        Presence::Gone => return Departure::ClientLeft,
                    }
                }
                FilmNext::End => return Departure::Complete,
                FilmNext::Broken(_) if self.reading.film().is_over() => return Departure::StreamEnded,
                FilmNext::Broken(error) => {
                    // If the session is lost, it is well that this is known before the player comes back.
                    seat.stream().ask_about_it();
                    return Departure::Broken(error);
                }
            }
        }
    }

    fn send(&self, body: &mut Body, piece: &[u8]) -> Result<(), Departure> {
        if body.coding() != Coding::Chunked {
            return self.send_all(body, piece, true);
        }
        let head = format!("{:x}\r\n", piece.len());
        self.send_all(body, head.as_bytes(), false)?;
        self.send_all(body, piece, true)?;
        self.send_all(body, b"\r\n", false)
    }

    fn send_all(&self, body: &mut Body, mut bytes: &[u8], is_film: bool) -> Result<(), Departure> {
        let mut paused_since = None;
        while !bytes.is_empty() {
            let written = body.write(bytes)?;
            bytes = &bytes[written..];
            if written > 0 {
                paused_since = None;
                if is_film {
                    self.place.seat.client().record_film_sent(written as u64);
                    self.context.stats.add_bytes_out(written as u64);
                }
            } else if self.place.registration.is_asked_to_leave() {
                return Err(Departure::Disconnected);
            } else if self.reading.film().is_over() {
                return Err(Departure::StreamEnded);
            } else if paused_since.get_or_insert_with(Instant::now).elapsed() >= self.max_pause() {
                return Err(Departure::Stuck(self.max_pause()));
            }
        }
        Ok(())
    }

    fn max_pause(&self) -> Duration {
        MAX_PAUSE.max(self.context.server.get().write_timeout)
    }

    /// Ends the body as its coding asks for, if all of it was sent; else the connection has to be.
    fn ends_properly(&self, body: &mut Body, departure: &Departure) -> bool {
        if !matches!(departure, Departure::Complete) {
            return false;
        }
        self.place.connection.release();
        body.end()
    }

    #[inline(never)]
    fn log_departure(&self, began: Instant, departure: &Departure) {
        let state = self.place.seat.stream().state();
        let why = match (departure, state.why()) {
            (Departure::StreamEnded, Some(why)) => why.to_string(),
            _ => departure.to_string(),
        };
        let sent = self.place.seat.client().film().map_or(0, |film| film.sent_bytes());
        self.place.log_departure(began, sent, 0, &why);
    }
}
