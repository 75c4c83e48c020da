//! Which streams there are, which content each plays, and who gives way when there is no room.
//!
//! Fetchers ask it while they start; [`super::streams`] adds to it and takes away. It must not know how a stream is
//! started or how it ends, and it starts no thread.
//!
//! Lock rule: the directory's lock is the first to be taken and held for look-ups only; streams may be asked for a seat
//! under it. Streams are stopped, and dropped, outside it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::choose::Unavailable;
use crate::id::{ContentKey, ContentName, Digest};
use crate::sync::Mutex;
use crate::wanted::{StreamKey, Wanted};

use super::client::ClientRecord;
use super::state::{Event, State, Why};
use super::stream::{Seat, Stream};

/// Ended streams are listed for so long ...
const ENDED_LISTED_FOR: Duration = Duration::from_secs(60);

/// ... and at most so many.
const MAX_ENDED: usize = 50;

/// Who asks again for what has just failed is told so at once, for so long: an impatient player must not keep an engine
/// busy with a channel that is offline.
const FAILURE_REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// Failures and names that are remembered at most; the requests of a house stay far below.
const MAX_REMEMBERED: usize = 256;

/// All streams of the process.
#[derive(Default)]
pub(super) struct Directory {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: HashMap<StreamKey, Arc<Stream>>,
    /// Newest first, with the time of its end.
    ended: VecDeque<(Instant, Arc<Stream>)>,
    /// Starts that failed lately.
    failed: HashMap<StreamKey, FailedStart>,
    /// Which infohash is behind a content id, oldest first.
    infohashes: VecDeque<(Digest, Digest)>,
    is_closed: bool,
}

/// A start that failed.
struct FailedStart {
    at: Instant,
    why: Why,
    /// Which engines were asked.
    tried: Vec<String>,
}

impl FailedStart {
    /// Whether the next start would fail as well: not if there is an engine `at_hand` that was not asked.
    fn is_valid(&self, at_hand: &[String], now: Instant) -> bool {
        now.saturating_duration_since(self.at) < FAILURE_REMEMBERED_FOR
            && at_hand.iter().all(|engine| self.tried.contains(engine))
    }
}

/// What there is of a stream that somebody asks for.
pub(super) enum Found {
    /// It runs or starts, and this is the seat.
    Seat(Seat),
    /// There was none: this is the first seat on a new one, which has to be started.
    New(Seat),
    /// It is on its way out, and has to be gone first.
    Closing(Arc<Stream>),
    /// There is room for a new one only if this one, which nobody watches, gives way.
    Full(Arc<Stream>),
}

/// Why a request got no seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// There are as many streams as there may be.
    AtCapacity,
    /// The proxy shuts down.
    ShuttingDown,
    /// The stream's previous engine session was not stopped in time.
    StillStopping,
    /// It failed to start a moment ago.
    Failed(Why),
    /// Who asked has left meanwhile.
    Gone,
}

impl fmt::Display for NoSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtCapacity => {
                f.write_str("there are as many streams as the configuration allows (max_streams)")
            }
            Self::ShuttingDown => f.write_str("the proxy is shutting down"),
            Self::StillStopping => f.write_str("the previous session of this stream is still being stopped"),
            Self::Failed(why) => fmt::Display::fmt(why, f),
            Self::Gone => f.write_str("the client has left"),
        }
    }
}

impl Table {
    /// The stream that this is about: of this key, or of the same content under whichever of its names.
    fn find(&self, wanted: &Wanted) -> Option<&Arc<Stream>> {
        self.live.get(&wanted.key).or_else(|| match &wanted.key {
            StreamKey::Content(content) => self.live.values().find(|stream| self.plays(stream, content)),
            StreamKey::Channel(_) => self.live.values().find(|stream| {
                stream.state().is_open() && wanted.sources().iter().any(|content| self.plays(stream, content))
            }),
        })
    }

    /// Whether a stream plays this content, as far as that is known.
    fn plays(&self, stream: &Stream, content: &ContentKey) -> bool {
        let current = stream.content();
        current.params == content.params
            && (current.name == content.name
                || self
                    .infohash_of(&content.name)
                    .is_some_and(|infohash| stream.infohash() == Some(infohash)))
    }

    fn infohash_of(&self, name: &ContentName) -> Option<Digest> {
        match name {
            ContentName::Infohash(infohash) => Some(*infohash),
            ContentName::Id(id) => {
                self.infohashes.iter().find(|(of, _)| of == id).map(|(_, infohash)| *infohash)
            }
        }
    }

    fn remember(&mut self, name: ContentName, infohash: Digest) {
        let ContentName::Id(id) = name else { return };
        if self.infohash_of(&name) == Some(infohash) {
            return;
        }
        self.infohashes.retain(|(of, _)| *of != id);
        if self.infohashes.len() >= MAX_REMEMBERED {
            self.infohashes.pop_front();
        }
        self.infohashes.push_back((id, infohash));
    }
}

impl Directory {
    /// A seat on the stream that is wanted; where there is none and fewer than `max_streams` are open, on the one that
    /// `begin` makes. `at_hand` are the engines that could be asked.
    ///
    /// # Errors
    ///
    /// When it failed a moment ago, when there is no room, or when the proxy shuts down.
    pub(super) fn seat(
        &self,
        wanted: &Wanted,
        client: &Arc<ClientRecord>,
        at_hand: &[String],
        max_streams: usize,
        begin: impl FnOnce() -> Seat,
    ) -> Result<Found, NoSeat> {
        let mut table = self.table.lock();
        if table.is_closed {
            return Err(NoSeat::ShuttingDown);
        }
        if let Some(stream) = table.find(wanted) {
            return Ok(match stream.take_seat(Arc::clone(client)) {
                Ok(seat) => {
                    stream.join_channel(wanted);
                    Found::Seat(seat)
                }
                Err(_closing) => Found::Closing(Arc::clone(stream)),
            });
        }
        if let Some(failed) = table.failed.get(&wanted.key)
            && failed.is_valid(at_hand, Instant::now())
        {
            return Err(NoSeat::Failed(failed.why.clone()));
        }
        // A stream that is being stopped takes no room.
        let open = table.live.values().filter(|stream| stream.state().takes_room()).count();
        if open >= max_streams {
            return unwatched(table.live.values()).map(Found::Full).ok_or(NoSeat::AtCapacity);
        }
        let seat = begin();
        let stream = Arc::clone(seat.stream());
        if let Some(infohash) = table.infohash_of(&stream.content().name) {
            stream.record_infohash(infohash);
        }
        table.live.insert(wanted.key.clone(), stream);
        Ok(Found::New(seat))
    }

    /// Has a stream that nobody watches give way to one that found no place on an engine, and gives it. Only where that helps:
    /// what stands on an engine that is not `usable` takes nobody's place.
    pub(super) fn displace(
        &self,
        by: &Stream,
        unavailable: Unavailable,
        is_usable: impl Fn(&str) -> bool,
    ) -> Option<Arc<Stream>> {
        let is_other = |stream: &&Arc<Stream>| stream.stream_id() != by.stream_id();
        let helps = |stream: &&Arc<Stream>| stream.engine_name().is_some_and(|name| is_usable(&name));
        let is_candidate = |stream: &&Arc<Stream>| match unavailable {
            Unavailable::AllDown | Unavailable::AllTried => false,
            Unavailable::AllFull => true,
            Unavailable::AllStarting => matches!(stream.state(), State::Starting { .. }),
            Unavailable::OtherVariant => stream.infohash() == by.infohash(),
        };
        let displaced = {
            let table = self.table.lock();
            unwatched(table.live.values().filter(is_other).filter(helps).filter(is_candidate))?
        };
        displaced.apply(&Event::GiveWay);
        (!displaced.state().takes_room()).then_some(displaced)
    }

    /// The infohash behind this name, if it is known.
    pub(super) fn infohash_of(&self, name: &ContentName) -> Option<Digest> {
        self.table.lock().infohash_of(name)
    }

    /// Whether another stream plays this content, as far as that is known.
    pub(super) fn is_taken(&self, content: &ContentKey, by: &Arc<Stream>) -> bool {
        let table = self.table.lock();
        let is_other = |other: &&Arc<Stream>| !Arc::ptr_eq(other, by) && other.state().is_open();
        table.live.values().filter(is_other).any(|other| table.plays(other, content))
    }

    /// Whether a stream is being stopped, so that room is to be expected.
    pub(super) fn expects_room(&self) -> bool {
        self.table.lock().live.values().any(|stream| matches!(stream.state(), State::Stopping(_)))
    }

    /// Ends the starts on this engine that nobody waits for, since another stream wants to start there.
    pub(super) fn cut_abandoned(&self, engine: &str, by: &Stream) {
        for stream in self.live() {
            let is_abandoned = stream.state().abandoned_until().is_some();
            let is_other = stream.stream_id() != by.stream_id();
            if is_abandoned && is_other && stream.engine_name().as_deref() == Some(engine) {
                stream.apply(&Event::GiveWay);
            }
        }
    }

    /// Whether it is worth asking an engine for the infohash behind an id: only if there is a stream it could be.
    pub(super) fn wants_infohash(&self, stream: &Stream) -> Option<Digest> {
        let ContentName::Id(id) = stream.content().name else {
            return None;
        };
        let table = self.table.lock();
        let is_other = |other: &Arc<Stream>| other.stream_id() != stream.stream_id();
        let has_others = table.live.values().any(|other| is_other(other) && other.state().is_open());
        (has_others && table.infohash_of(&stream.content().name).is_none()).then_some(id)
    }

    /// Remembers which infohash is behind the stream's name, and makes it the stream of that content, unless there is one
    /// already: then it gives that one. Of two that start together one has the content, never both, never none.
    pub(super) fn claim(&self, stream: &Arc<Stream>, infohash: Digest) -> Option<Arc<Stream>> {
        let mut table = self.table.lock();
        table.remember(stream.content().name, infohash);
        let has_it = |other: &&Arc<Stream>| {
            !Arc::ptr_eq(other, stream)
                && other.content().params == stream.content().params
                && other.infohash() == Some(infohash)
                && other.state().is_open()
        };
        let holder = table.live.values().find(has_it).cloned();
        match &holder {
            None => stream.record_infohash(infohash),
            // Whoever watches it as a channel goes on with the channel's other sources, too.
            Some(holder) => holder.join_channel(stream.wanted()),
        }
        holder
    }

    /// The streams of the same content with other parameters.
    pub(super) fn variants(&self, stream: &Stream) -> Vec<Arc<Stream>> {
        let table = self.table.lock();
        let is_variant = |other: &&Arc<Stream>| {
            other.content().params != stream.content().params && other.infohash() == stream.infohash()
        };
        table.live.values().filter(is_variant).cloned().collect()
    }

    /// Takes a stream that is over off the table of the live ones; only this very one, never a newer one of its key.
    pub(super) fn retire(&self, stream: &Arc<Stream>) {
        let mut table = self.table.lock();
        if !table.live.get(stream.key()).is_some_and(|live| Arc::ptr_eq(live, stream)) {
            return;
        }
        table.live.remove(stream.key());
        if let State::Stopped(outcome) = stream.state()
            && !outcome.had_started
            && outcome.why.will_last()
            && table.failed.len() < MAX_REMEMBERED
        {
            let (at, tried) = (Instant::now(), stream.engines_tried());
            table.failed.insert(stream.key().clone(), FailedStart { at, why: outcome.why, tried });
        }
        table.ended.push_front((Instant::now(), Arc::clone(stream)));
        let listed = MAX_ENDED.min(table.ended.len());
        let dropped_later = table.ended.split_off(listed);
        drop(table);
        drop(dropped_later);
    }

    /// Forgets what ended or failed long ago.
    pub(super) fn forget_old(&self, now: Instant) {
        let mut table = self.table.lock();
        table.failed.retain(|_, failed| failed.is_valid(&[], now));
        let listed =
            table.ended.partition_point(|(at, _)| now.saturating_duration_since(*at) < ENDED_LISTED_FOR);
        let dropped_later = table.ended.split_off(listed);
        drop(table);
        drop(dropped_later);
    }

    /// The streams that have not ended, in no order.
    #[must_use]
    pub(super) fn live(&self) -> Vec<Arc<Stream>> {
        self.table.lock().live.values().cloned().collect()
    }

    /// Live ones first, newest first, then those that ended lately.
    #[must_use]
    pub(super) fn list(&self) -> Vec<Arc<Stream>> {
        let (mut streams, ended): (Vec<_>, Vec<_>) = {
            let table = self.table.lock();
            let ended = table.ended.iter().map(|(_, stream)| Arc::clone(stream));
            (table.live.values().cloned().collect(), ended.collect())
        };
        streams.sort_by_key(|stream| std::cmp::Reverse(stream.created()));
        streams.extend(ended);
        streams
    }

    /// Takes no new streams any more; gives all there are.
    pub(super) fn close(&self) -> Vec<Arc<Stream>> {
        let mut table = self.table.lock();
        table.is_closed = true;
        table.live.values().cloned().collect()
    }

    /// Whether [`Directory::close`] was called.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.table.lock().is_closed
    }
}

/// Of these streams the one that is missed least: a start that everybody left, else the one that lingers longest.
fn unwatched<'a>(streams: impl Iterator<Item = &'a Arc<Stream>>) -> Option<Arc<Stream>> {
    let since = |stream: &Arc<Stream>| match stream.state() {
        State::Lingering { until } => Some((true, until)),
        state => state.abandoned_until().map(|at| (false, at)),
    };
    streams
        .filter_map(|stream| Some((since(stream)?, stream)))
        .min_by_key(|(since, _)| *since)
        .map(|(_, stream)| Arc::clone(stream))
}
