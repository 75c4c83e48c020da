//! Hands every chunk to every client, and never waits for one.
//!
//! Four operations: [`Fanout::publish`], [`Fanout::join`], leaving (dropping a [`Subscription`], or being left behind)
//! and [`Fanout::close`]; two more, [`Fanout::outline`] and [`Fanout::cut`], only
//! read, for those who take the stream in [`Pieces`]. Each other client has a crossbeam channel of its own. The channels have no bound of their own, since
//! a bounded one allocates all its places at once; the bound is the client's offset: who is further behind the head
//! than the backlog is long, or twice as long by time, is left behind, its queue is emptied, and it joins again when it
//! comes back. What the slowest client's queue keeps beyond the backlog is counted with it: chunks are shared, so it is all
//! that queues keep.
//!
//! Lock rule: the one lock guards backlog and list of clients; it is held for copying `Arc`s only. What is evicted is
//! dropped after it. Whoever changes something ticks after releasing it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::backlog::{Backlog, Bounds, Place, RECENT};
use super::budget::Budget;
use super::chunk::{Chunk, ChunkSlice};
use super::ending::Ending;
use super::marks::Mark;
use super::outline::Outline;
use super::ticker::Ticker;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod past;
mod pieces;
mod subscription;
#[cfg(test)]
mod tests;

use past::Past;
use pieces::Keeping;
pub use pieces::Pieces;
pub use subscription::{Next, Subscription};

/// While every client is further behind than this, the fetcher lets the engine wait: its start burst is tens of
/// megabytes, and nobody is to be left behind because of it.
const HOLD_BEHIND_BYTES: u64 = 4 * 1024 * 1024;

/// So long the first client of a stream waits for the first keyframe; a stream that shows none by then is begun anywhere.
const FIRST_KEYFRAME_WAIT: Duration = Duration::from_millis(500);

/// A client is moved ahead at most so often, unless it is at the end of what memory allows.
const MIN_MOVE_INTERVAL: Duration = Duration::from_secs(5);

/// By time a client may fall so many times the backlog's age behind: it is moved ahead to what the backlog has, and a queue
/// much longer than that would be all the memory that a slow stream takes.
const MAX_AGES_BEHIND: u32 = 2;

/// However short memory is, a client may be so far behind: a second of a fast stream, which any player needs.
const MIN_BOUND_BYTES: u64 = 1024 * 1024;

/// Where in the stream a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinAt {
    /// At the first place where a decoder may start: a client that waited for the start.
    First,
    /// Where a decoder may start, so much behind the newest chunk.
    Behind(Duration),
    /// Ahead of this offset, where it fell behind.
    AheadOf(u64),
}

/// The hub of one stream.
#[derive(Debug)]
pub struct Fanout {
    bound_bytes: u64,
    budget: Arc<Budget>,
    /// Bytes of packets in the backlog, and beyond it in queues. Written under the lock of `shared`, read without it.
    kept_bytes: AtomicU64,
    /// Offset of the byte behind the newest chunk. Written under the lock of `shared`, read without it.
    head: AtomicU64,
    shared: Mutex<Shared>,
    ticker: Ticker,
}

#[derive(Debug)]
struct Shared {
    backlog: Backlog,
    past: Past,
    /// The backlog is shorter than its bounds, since memory is short.
    is_cut_short: bool,
    clients: Vec<Subscriber>,
    had_clients: bool,
    keeping: Keeping,
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Subscriber {
    progress: Arc<Progress>,
    sender: Sender<Arc<Chunk>>,
    /// To empty the queue of a client that is left behind.
    queue: Receiver<Arc<Chunk>>,
    joined_at: Instant,
    /// How far behind the head it began: that much is its own choice.
    began_behind: u64,
}

impl Subscriber {
    /// Whether it is so far behind the head that it has to be moved ahead.
    fn is_left_behind(&self, head: u64, now: Instant, bound: Bound) -> bool {
        let own = self.progress.offset().saturating_add(self.began_behind);
        let may_move = now.saturating_duration_since(self.joined_at) >= MIN_MOVE_INTERVAL;
        let times = if may_move { 1 } else { 2 };
        head.saturating_sub(own) > bound.bytes.saturating_mul(times) || may_move && own < bound.old
    }
}

/// How far a client may fall behind; the harder bound counts.
#[derive(Clone, Copy)]
struct Bound {
    /// Bytes behind the head.
    bytes: u64,
    /// Where the head was long ago: what lies before that has waited too long.
    old: u64,
}

/// How far one client is; shared between its own thread and the stream.
#[derive(Debug, Default)]
pub struct Progress {
    /// Offset up to which the client has been served.
    offset: AtomicU64,
    /// Packets and null packets written to it, in bytes.
    sent_bytes: AtomicU64,
    /// Set when the client was left behind, cleared when it joins again.
    is_left_behind: AtomicBool,
    /// How often it was moved ahead.
    skips: AtomicU64,
}

impl Progress {
    fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Bytes of packets sent to the client.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// How often the client was moved ahead because it was too slow.
    #[must_use]
    pub fn skips(&self) -> u64 {
        self.skips.load(Ordering::Relaxed)
    }
}

/// What a client gets when it joins.
#[derive(Debug)]
struct Joined {
    place: Place,
    /// The chunk with the first byte of its place, if it is published yet.
    first: Option<Arc<Chunk>>,
    /// Those that follow.
    queue: Receiver<Arc<Chunk>>,
}

impl Fanout {
    /// A hub whose backlog has these bounds and is counted in this budget. Its byte bound, and twice its age, is also how far
    /// a client may fall behind.
    #[must_use]
    pub fn new(bounds: Bounds, budget: &Arc<Budget>) -> Arc<Self> {
        // Nobody is moved sooner, however short the backlog is.
        let longest = bounds.age.saturating_mul(MAX_AGES_BEHIND).max(MIN_MOVE_INTERVAL);
        let shared = Shared {
            backlog: Backlog::new(bounds),
            past: Past::new(longest),
            is_cut_short: false,
            clients: Vec::new(),
            had_clients: false,
            keeping: Keeping::new(bounds),
            ending: None,
        };
        Arc::new(Self {
            bound_bytes: bounds.bytes,
            budget: Arc::clone(budget),
            kept_bytes: AtomicU64::new(0),
            head: AtomicU64::new(0),
            shared: Mutex::new(shared),
            ticker: Ticker::default(),
        })
    }

    /// Offset of the byte behind the newest chunk.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Bytes of packets in the backlog, and what queues of slow clients keep beyond it.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    /// Gives whole packets to everybody, with the marks that were found in them. Never blocks. Tells whether it did so: a
    /// closed hub takes nothing any more. Whoever publishes has [`Memory::settle`](super::memory::Memory::settle) look at the
    /// budget after it.
    pub fn publish(&self, packets: &[u8], marks: &mut Vec<Mark>, arrived: Instant) -> bool {
        // Made outside the lock. Only the one fetcher publishes, so the head does not move in between.
        let chunk = Arc::new(Chunk::new(self.head(), arrived, packets));
        let mut dropped_later = Vec::new();
        {
            let mut shared = self.shared.lock();
            if shared.ending.is_some() {
                return false;
            }
            self.head.store(chunk.end, Ordering::Relaxed);
            let old = shared.past.advance(arrived, chunk.start());
            let bound = Bound { bytes: self.bound_bytes(&shared), old };
            let is_left = |client: &Subscriber| client.is_left_behind(chunk.end, arrived, bound);
            let mut is_any_left = false;
            for client in &shared.clients {
                // Cannot fail: this very list holds a receiver of the channel.
                let _sent = client.sender.send(Arc::clone(&chunk));
                is_any_left |= is_left(client);
            }
            if is_any_left {
                dropped_later.extend(shared.leave_behind(is_left));
            }
            let evicted = shared.backlog.push(Arc::clone(&chunk), marks.drain(..));
            // What its own bounds took is not what memory took.
            shared.is_cut_short &= evicted.is_empty();
            dropped_later.extend(evicted);
            self.account(&shared);
        }
        self.ticker.tick();
        drop(dropped_later);
        true
    }

    /// How many bytes a client may fall behind.
    fn bound_bytes(&self, shared: &Shared) -> u64 {
        // Chunks that the backlog had to give up are not to live on in queues.
        let kept = if shared.is_cut_short { shared.backlog.bytes().max(MIN_BOUND_BYTES) } else { u64::MAX };
        self.bound_bytes.min(kept)
    }

    fn account(&self, shared: &Shared) {
        let head = self.head();
        let kept = head - shared.kept_from(head);
        let before = self.kept_bytes.swap(kept, Ordering::Relaxed);
        self.budget.change(before, kept);
    }

    /// Gives up the oldest chunks, so many bytes of them if there are; the newest stays. Clients that would keep them in
    /// their queues are left behind, but for those that are hardly behind the head.
    #[must_use = "dropping the chunks is work that belongs outside every lock"]
    pub(super) fn give_up(&self, bytes: u64) -> Vec<Arc<Chunk>> {
        let mut shared = self.shared.lock();
        let head = self.head();
        let until = shared.kept_from(head).saturating_add(bytes);
        let mut given_up = shared.leave_behind(|client| {
            let offset = client.progress.offset();
            offset < until && head - offset > MIN_BOUND_BYTES
        });
        // What a queue keeps all the same is not won by taking it from the backlog.
        let tail = head - shared.backlog.bytes();
        if shared.slowest() >= tail {
            let from_backlog = shared.backlog.give_up(until.saturating_sub(tail));
            shared.is_cut_short |= !from_backlog.is_empty();
            given_up.extend(from_backlog);
        }
        self.account(&shared);
        given_up
    }

    /// Adds a client. It begins where a decoder may start, with PAT and PMT of that place in front, and gets every packet
    /// from there on, without gap or double. On a closed hub the client gets what is kept, then the end.
    pub fn join(self: &Arc<Self>, at: JoinAt) -> Subscription {
        Subscription::new(Arc::clone(self), at)
    }

    /// Finds a client's place and takes it, or tells until when it is worth waiting for a better one.
    fn attach(&self, progress: &Arc<Progress>, at: JoinAt, now: Instant) -> Result<Joined, Instant> {
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by the client's offset, see the module's page"
        )]
        let (sender, queue) = crossbeam_channel::unbounded();
        let mut shared = self.shared.lock();
        let place = match at {
            JoinAt::First => shared.first_place(now)?,
            JoinAt::Behind(behind) => shared.backlog.place_behind(behind, now),
            JoinAt::AheadOf(offset) => shared.backlog.place_ahead(offset),
        };
        let mut chunks = shared.backlog.from(place.offset);
        let first = chunks.next().cloned();
        for chunk in chunks {
            let _sent = sender.send(Arc::clone(chunk));
        }
        progress.offset.fetch_max(place.offset, Ordering::Relaxed);
        if shared.ending.is_none() {
            shared.had_clients = true;
            let began_behind = self.head() - progress.offset();
            let (progress, queue) = (Arc::clone(progress), queue.clone());
            shared.clients.push(Subscriber { progress, sender, queue, joined_at: now, began_behind });
        }
        Ok(Joined { place, first, queue })
    }

    /// The packets between two offsets of the stream, shared with the backlog, or nothing if they are not all there: published,
    /// and not evicted yet. Only handles of chunks are copied.
    #[must_use]
    pub fn cut(&self, from: u64, to: u64) -> Option<Vec<ChunkSlice>> {
        self.shared.lock().backlog.cut(from, to)
    }

    /// The backlog from this offset on, without its bytes. Marks of sources that were lost are among them.
    #[must_use]
    pub fn outline(&self, from: u64) -> Outline {
        let shared = self.shared.lock();
        let head = self.head();
        Outline {
            marks: shared.backlog.marks_from(from).cloned().collect(),
            tail: head - shared.backlog.bytes(),
            head,
            ending: shared.ending,
        }
    }

    /// The number of the latest event. To be read before one looks whether there is something new.
    #[must_use]
    pub fn event(&self) -> u64 {
        self.ticker.current()
    }

    /// Waits until something is published or the stream ends, at most until `deadline`: for an event behind the one that was
    /// `seen`. Tells whether there was one.
    pub fn wait_event(&self, seen: u64, deadline: Instant) -> bool {
        self.ticker.wait(seen, deadline)
    }

    /// Takes a client off the list.
    fn leave(&self, progress: &Arc<Progress>) {
        let mut shared = self.shared.lock();
        let gone = shared.clients.iter().position(|client| Arc::ptr_eq(&client.progress, progress));
        let gone = gone.map(|index| shared.clients.swap_remove(index));
        self.account(&shared);
        drop(shared);
        drop(gone);
    }

    /// How the stream ended, if it has.
    fn ending(&self) -> Option<Ending> {
        self.shared.lock().ending
    }

    /// What is published next does not go on where the head is: nobody begins before it any more.
    pub fn break_off(&self) {
        self.shared.lock().backlog.break_off();
    }

    /// Ends the stream for everybody: each client gets what was published, then the end. The first ending counts.
    pub fn close(&self, ending: Ending) {
        let gone = {
            let mut shared = self.shared.lock();
            shared.ending.get_or_insert(ending);
            std::mem::take(&mut shared.clients)
        };
        drop(gone);
        self.ticker.tick();
    }

    /// Frees the backlog of a closed hub that nobody will join any more.
    pub fn clear(&self) {
        let mut shared = self.shared.lock();
        let chunks = shared.backlog.take();
        self.account(&shared);
        drop(shared);
        drop(chunks);
    }

    /// Clients on the list.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.lock().clients.len()
    }

    /// Whether the fetcher should let the engine wait: all clients are far behind, or the first has not joined yet. Who takes
    /// pieces is never behind.
    #[must_use]
    pub fn is_everybody_behind(&self) -> bool {
        let shared = self.shared.lock();
        if shared.keeping.is_needed() {
            return false;
        }
        // Well before the bound at which a client is left behind, however small that is.
        let far = HOLD_BEHIND_BYTES.min(self.bound_bytes(&shared) / 2);
        let is_behind = |offset| self.head() - offset > far;
        if shared.clients.is_empty() {
            return !shared.had_clients && is_behind(0);
        }
        shared.clients.iter().all(|client| is_behind(client.progress.offset()))
    }

    /// Age by arrival of the next chunk that this client has not been served; zero if it has everything.
    #[must_use]
    pub fn lag_of(&self, progress: &Progress, now: Instant) -> Duration {
        let offset = progress.offset();
        if offset >= self.head() {
            // Nearly all clients, nearly always; needs neither lock nor search.
            return Duration::ZERO;
        }
        self.shared.lock().backlog.age_of(offset, now).unwrap_or_default()
    }

    /// Time between the last two keyframes.
    #[must_use]
    pub fn keyframe_interval(&self) -> Option<Duration> {
        self.shared.lock().backlog.keyframe_interval()
    }

    /// Bits a second over the last few seconds.
    #[must_use]
    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        self.shared.lock().backlog.recent_bytes(now) * 8 / RECENT.as_secs()
    }
}

impl Shared {
    /// Takes these clients off the list, and what was in their queues.
    fn leave_behind(&mut self, is_left: impl Fn(&Subscriber) -> bool) -> Vec<Arc<Chunk>> {
        let mut dropped = Vec::new();
        for client in self.clients.extract_if(.., |client| is_left(client)) {
            client.progress.is_left_behind.store(true, Ordering::Release);
            dropped.extend(client.queue.try_iter());
        }
        dropped
    }

    /// Where the slowest client is.
    fn slowest(&self) -> u64 {
        self.clients.iter().map(|client| client.progress.offset()).min().unwrap_or(u64::MAX)
    }

    /// Offset of the oldest byte in the backlog or in a queue; of the head, if there is none.
    fn kept_from(&self, head: u64) -> u64 {
        let tail = head - self.backlog.bytes();
        tail.min(self.slowest())
    }

    /// Where the stream begins for those who waited for it. While it is young and shows no keyframe, until when one is
    /// worth waiting for.
    fn first_place(&self, now: Instant) -> Result<Place, Instant> {
        let patience = self.backlog.oldest_arrival().map(|arrival| arrival + FIRST_KEYFRAME_WAIT);
        match patience {
            Some(until) if now < until && self.ending.is_none() && !self.backlog.has_keyframe() => Err(until),
            _ => Ok(self.backlog.oldest_place()),
        }
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        self.budget.change(self.kept_bytes(), 0);
    }
}
