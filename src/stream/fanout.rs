//! Hands every chunk to every client, and never waits for one.
//!
//! Four operations: [`Fanout::publish`], [`Fanout::join`], leaving (dropping a [`Subscription`], or being left behind)
//! and [`Fanout::close`]. Each client has a crossbeam channel of its own. The channels have no bound of their own, since
//! a bounded one allocates all its places at once; the bound is the client's offset: who is further behind the head
//! than the backlog is long is left behind, its queue is emptied, and it joins again when it comes back.
//!
//! Lock rule: the one lock guards backlog and list of clients; it is held for copying `Arc`s only. What is evicted is
//! dropped after it. Whoever changes something ticks after releasing it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use parking_lot::Mutex;

use super::backlog::{Backlog, Bounds, Place};
use super::chunk::Chunk;
use super::marks::Mark;
use super::ticker::Ticker;

/// While every client is further behind than this, the fetcher lets the engine wait: its start burst is tens of
/// megabytes, and nobody is to be left behind because of it.
const HOLD_BEHIND_BYTES: u64 = 4 * 1024 * 1024;

/// So long the first client of a stream waits for the first keyframe; a stream that shows none by then is begun anywhere.
const FIRST_KEYFRAME_WAIT: Duration = Duration::from_millis(500);

/// A client is moved ahead at most so often, unless it is at the end of what memory allows.
const MIN_MOVE_INTERVAL: Duration = Duration::from_secs(5);

/// How the end of a stream looks to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The end of the content, or somebody's wish: the client's body ends properly.
    Complete,
    /// The source is lost: the connection ends without an end of the body, so that players which can reconnect do.
    Broken,
}

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
    shared: Mutex<Shared>,
    ticker: Ticker,
}

#[derive(Debug)]
struct Shared {
    backlog: Backlog,
    /// Offset of the byte behind the newest chunk.
    head: u64,
    clients: Vec<Client>,
    had_clients: bool,
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Client {
    progress: Arc<Progress>,
    sender: Sender<Arc<Chunk>>,
    /// To empty the queue of a client that is left behind.
    queue: Receiver<Arc<Chunk>>,
    joined_at: Instant,
    /// How far behind the head it began: that much is its own choice.
    began_behind: u64,
}

impl Client {
    /// Whether it is so far behind the head that it has to be moved ahead.
    fn is_left_behind(&self, head: u64, now: Instant, bound: u64) -> bool {
        let behind = (head - self.progress.offset()).saturating_sub(self.began_behind);
        let may_move = now.saturating_duration_since(self.joined_at) >= MIN_MOVE_INTERVAL;
        behind > bound.saturating_mul(if may_move { 1 } else { 2 })
    }
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

/// What a client is told next.
#[derive(Debug)]
pub enum Next {
    /// A chunk to send.
    Chunk(Arc<Chunk>),
    /// Nothing until the deadline.
    Quiet,
    /// Everything was handed out and nothing more will come.
    End(Ending),
}

impl Fanout {
    /// A hub whose backlog has these bounds. Its byte bound is also how far a client may fall behind.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let backlog = Backlog::new(bounds);
        let shared = Shared { backlog, head: 0, clients: Vec::new(), had_clients: false, ending: None };
        Self { bound_bytes: bounds.bytes, shared: Mutex::new(shared), ticker: Ticker::default() }
    }

    /// Offset of the byte behind the newest chunk.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.shared.lock().head
    }

    /// Gives whole packets to everybody, with the marks that were found in them. Does nothing once the hub is closed.
    /// Never blocks.
    pub fn publish(&self, packets: &[u8], marks: &mut Vec<Mark>, arrived: Instant) {
        // Made outside the lock. Only the one fetcher publishes, so the head does not move in between.
        let chunk = Arc::new(Chunk::new(self.head(), arrived, packets));
        let mut dropped_later = Vec::new();
        {
            let mut shared = self.shared.lock();
            if shared.ending.is_some() {
                return;
            }
            shared.head = chunk.end;
            for client in &shared.clients {
                // Cannot fail: this very list holds a receiver of the channel.
                let _sent = client.sender.send(Arc::clone(&chunk));
            }
            let is_left = |client: &Client| client.is_left_behind(chunk.end, arrived, self.bound_bytes);
            if shared.clients.iter().any(is_left) {
                for client in shared.clients.extract_if(.., |client| is_left(client)) {
                    client.progress.is_left_behind.store(true, Ordering::Release);
                    dropped_later.extend(client.queue.try_iter());
                }
            }
            dropped_later.extend(shared.backlog.push(Arc::clone(&chunk), marks.drain(..)));
        }
        self.ticker.tick();
    }

    /// Adds a client. It begins where a decoder may start, with PAT and PMT of that place in front, and gets every packet
    /// from there on, without gap or double. On a closed hub the client gets what is kept, then the end.
    pub fn join(self: &Arc<Self>, at: JoinAt) -> Subscription {
        Subscription {
            hub: Arc::clone(self),
            progress: Arc::default(),
            joining: Some(at),
            ahead: VecDeque::new(),
            queue: crossbeam_channel::never(),
        }
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
        let chunks = self.shared.lock().backlog.take();
        drop(chunks);
    }

    /// Clients on the list.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.lock().clients.len()
    }

    /// Whether the fetcher should let the engine wait: all clients are far behind, or the first has not joined yet.
    #[must_use]
    pub fn is_everybody_behind(&self) -> bool {
        let shared = self.shared.lock();
        // Well before the bound at which a client is left behind, however small that is.
        let far = HOLD_BEHIND_BYTES.min(self.bound_bytes / 2);
        let is_behind = |offset| shared.head - offset > far;
        if shared.clients.is_empty() {
            return !shared.had_clients && is_behind(0);
        }
        shared.clients.iter().all(|client| is_behind(client.progress.offset()))
    }

    /// Age by arrival of the next chunk that this client has not been served; zero if it has everything.
    #[must_use]
    pub fn lag_of(&self, progress: &Progress, now: Instant) -> Duration {
        self.shared.lock().backlog.age_of(progress.offset(), now).unwrap_or_default()
    }

    /// Time between the last two keyframes.
    #[must_use]
    pub fn keyframe_interval(&self) -> Option<Duration> {
        self.shared.lock().backlog.keyframe_interval()
    }

    /// Bits a second over the last few seconds.
    #[must_use]
    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        const WINDOW: Duration = Duration::from_secs(5);
        self.shared.lock().backlog.bytes_within(WINDOW, now) * 8 / WINDOW.as_secs()
    }
}

impl Progress {
    fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }
}

/// One client's place in a stream. Dropping it is leaving.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Fanout>,
    progress: Arc<Progress>,
    /// Set until it is on the list of clients.
    joining: Option<JoinAt>,
    /// What comes before the queue: the tables, and the rest of a chunk that it begins in the middle of.
    ahead: VecDeque<Arc<Chunk>>,
    queue: Receiver<Arc<Chunk>>,
}

impl Subscription {
    /// How far this client is.
    #[must_use]
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The next chunk, or the end, or nothing until the deadline.
    pub fn next(&mut self, deadline: Instant) -> Next {
        loop {
            let seen = self.hub.ticker.current();
            if let Some(at) = self.joining
                && let Err(until) = self.attach(at, Instant::now())
            {
                if !self.hub.ticker.wait(seen, until.min(deadline)) && until > deadline {
                    return Next::Quiet;
                }
                continue;
            }
            if let Some(chunk) = self.ahead.pop_front() {
                return Next::Chunk(chunk);
            }
            match self.queue.try_recv() {
                Ok(chunk) => return Next::Chunk(chunk),
                Err(TryRecvError::Empty) => {
                    if !self.hub.ticker.wait(seen, deadline) {
                        return Next::Quiet;
                    }
                }
                Err(TryRecvError::Disconnected)
                    if self.progress.is_left_behind.swap(false, Ordering::Acquire) =>
                {
                    self.progress.skips.fetch_add(1, Ordering::Relaxed);
                    self.joining = Some(JoinAt::AheadOf(self.progress.offset()));
                }
                Err(TryRecvError::Disconnected) => {
                    // Only closing drops the senders of clients that kept up.
                    return Next::End(self.hub.shared.lock().ending.unwrap_or(Ending::Broken));
                }
            }
        }
    }

    /// Records that a chunk was written to the client.
    pub fn record_sent(&self, chunk: &Chunk) {
        self.progress.offset.fetch_max(chunk.end, Ordering::Relaxed);
        self.progress.sent_bytes.fetch_add(chunk.packets().len() as u64, Ordering::Relaxed);
    }

    /// Finds its place and takes it, or tells until when it is worth waiting for a better one.
    fn attach(&mut self, at: JoinAt, now: Instant) -> Result<(), Instant> {
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by the client's offset, see the module's page"
        )]
        let (sender, queue) = crossbeam_channel::unbounded();
        let (place, first) = {
            let mut shared = self.hub.shared.lock();
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
            self.progress.offset.fetch_max(place.offset, Ordering::Relaxed);
            if shared.ending.is_none() {
                shared.had_clients = true;
                let began_behind = shared.head - self.progress.offset();
                let (progress, queue) = (Arc::clone(&self.progress), queue.clone());
                shared.clients.push(Client { progress, sender, queue, joined_at: now, began_behind });
            }
            (place, first)
        };
        self.joining = None;
        self.queue = queue;
        self.ahead.extend(place.prefix);
        // The copy of a part, if one is needed, is made outside the lock.
        self.ahead.extend(first.map(|chunk| Chunk::rest(&chunk, place.offset)));
        Ok(())
    }
}

impl Shared {
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

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut shared = self.hub.shared.lock();
        let gone = shared.clients.iter().position(|client| Arc::ptr_eq(&client.progress, &self.progress));
        let gone = gone.map(|index| shared.clients.swap_remove(index));
        drop(shared);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::{SMALL_STACK_BYTES, Threads};
    use crate::ts::start::StartKind;

    const PACKETS: &[u8] = &[0x47; 188];
    const BOUNDS: Bounds = Bounds { bytes: 100 * 188, age: Duration::from_secs(60) };

    fn hub() -> Arc<Fanout> {
        Arc::new(Fanout::new(BOUNDS))
    }

    fn publish(hub: &Fanout, count: usize) {
        for _ in 0..count {
            hub.publish(PACKETS, &mut Vec::new(), Instant::now());
        }
    }

    /// Publishes one packet that is a keyframe, with a prefix of this byte.
    fn publish_keyframe(hub: &Fanout, byte: u8) {
        let arrived = Instant::now();
        let prefix = Some(Arc::new(Chunk::inserted(arrived, &[byte; 376])));
        let mark = Mark { offset: hub.head(), kind: StartKind::Keyframe, prefix, arrived };
        hub.publish(PACKETS, &mut vec![mark], arrived);
    }

    impl Subscription {
        /// Takes its place; how many chunks lie ahead of its queue.
        fn attach_now(&mut self) -> usize {
            let at = self.joining.expect("it has not joined yet");
            self.attach(at, Instant::now()).expect("there is a place");
            self.ahead.len() - 1
        }
    }

    /// Takes chunks until it is quiet or over; their starts, in packets, and the end.
    fn take(client: &mut Subscription) -> (Vec<u64>, Option<Ending>) {
        let mut starts = Vec::new();
        loop {
            match client.next(Instant::now()) {
                Next::Chunk(chunk) => {
                    starts.push(chunk.start() / 188);
                    client.record_sent(&chunk);
                }
                Next::Quiet => return (starts, None),
                Next::End(ending) => return (starts, Some(ending)),
            }
        }
    }

    #[test]
    fn a_joiner_begins_at_a_keyframe_with_its_tables() {
        let hub = hub();
        publish(&hub, 1);
        publish_keyframe(&hub, 1);
        publish(&hub, 1);
        publish_keyframe(&hub, 2);
        publish(&hub, 1);
        let first = |at| {
            let mut client = hub.join(at);
            let Next::Chunk(chunk) = client.next(Instant::now()) else { panic!("there are chunks") };
            (chunk.packets()[0], take(&mut client).0)
        };
        assert_eq!(first(JoinAt::First), (1, vec![1, 2, 3, 4]));
        assert_eq!(first(JoinAt::Behind(Duration::ZERO)), (2, vec![3, 4]));
        assert_eq!(first(JoinAt::Behind(Duration::from_secs(60))), (1, vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_joiner_may_begin_in_the_middle_of_a_chunk() {
        let hub = hub();
        let arrived = Instant::now();
        let mark = Mark { offset: 188, kind: StartKind::Keyframe, prefix: None, arrived };
        let packets: Vec<u8> = (0..3 * 188).map(|index| (index / 188) as u8).collect();
        hub.publish(&packets, &mut vec![mark], arrived);
        publish(&hub, 1);
        let mut client = hub.join(JoinAt::First);
        let Next::Chunk(chunk) = client.next(Instant::now()) else { panic!("there are chunks") };
        assert_eq!((chunk.start(), chunk.packets()), (188, &packets[188..]));
        assert_eq!(take(&mut client).0, [3]);
    }

    #[test]
    fn what_is_put_in_front_is_no_progress() {
        let hub = hub();
        publish_keyframe(&hub, 1);
        let mut client = hub.join(JoinAt::First);
        let Next::Chunk(tables) = client.next(Instant::now()) else { panic!("there are tables") };
        client.record_sent(&tables);
        assert_eq!((client.progress().offset(), client.progress().sent_bytes()), (0, 376));
        publish(&hub, 1);
        assert_eq!(take(&mut client).0, [0, 1]);
    }

    #[test]
    fn the_first_client_waits_for_the_first_keyframe_but_not_long() {
        let hub = hub();
        publish(&hub, 2);
        let mut early = hub.join(JoinAt::First);
        assert!(matches!(early.next(Instant::now()), Next::Quiet));
        publish_keyframe(&hub, 7);
        assert_eq!(take(&mut early).0, [0, 2], "the tables count from nowhere");
        let hub = self::hub();
        publish(&hub, 2);
        let mut patient = hub.join(JoinAt::First);
        let Next::Chunk(chunk) = patient.next(Instant::now() + Duration::from_secs(20)) else {
            panic!("it begins without a keyframe");
        };
        assert_eq!(chunk.start(), 0);
    }

    #[test]
    fn at_the_end_everybody_gets_everything_first() {
        let hub = hub();
        let mut early = hub.join(JoinAt::First);
        publish(&hub, 3);
        hub.close(Ending::Complete);
        hub.close(Ending::Broken);
        publish(&hub, 1);
        let everything = (vec![0, 1, 2], Some(Ending::Complete));
        assert_eq!(take(&mut early), everything);
        assert_eq!(take(&mut hub.join(JoinAt::First)), everything);
        hub.clear();
        assert_eq!(take(&mut hub.join(JoinAt::First)), (vec![], Some(Ending::Complete)));
    }

    #[test]
    fn who_is_left_behind_loses_its_queue_and_joins_again_ahead() {
        let hub = hub();
        publish_keyframe(&hub, 1);
        let (mut slow, mut fast) = (hub.join(JoinAt::First), hub.join(JoinAt::First));
        assert_eq!((take(&mut fast).0, slow.attach_now()), (vec![0, 0], 1));
        publish(&hub, 200);
        assert_eq!(take(&mut fast).0.len(), 200);
        assert_eq!(hub.shared.lock().clients.len(), 2, "at the bound it is not beyond it");
        publish_keyframe(&hub, 2);
        assert_eq!(hub.shared.lock().clients.len(), 1);
        assert!(slow.queue.is_empty(), "its queue is freed at once");
        publish(&hub, 1);
        slow.ahead.clear();
        assert_eq!(take(&mut slow), (vec![0, 201, 202], None));
        assert_eq!((slow.progress().skips(), fast.progress().skips()), (1, 0));
        publish(&hub, 2);
        assert_eq!(take(&mut slow).0, [203, 204]);
        assert_eq!(take(&mut fast).0.len(), 4);
    }

    #[test]
    fn the_engine_waits_only_while_everybody_is_behind() {
        let bounds = Bounds { bytes: 100 << 20, age: Duration::from_secs(60) };
        let hub = Arc::new(Fanout::new(bounds));
        let megabytes = |count| {
            for _ in 0..count {
                hub.publish(&[0x47; 1 << 20], &mut Vec::new(), Instant::now());
            }
        };
        megabytes(4);
        assert!(!hub.is_everybody_behind());
        megabytes(1);
        assert!(hub.is_everybody_behind(), "the first client is on its way");
        let mut one = hub.join(JoinAt::First);
        let mut other = hub.join(JoinAt::First);
        let old = Instant::now() + FIRST_KEYFRAME_WAIT;
        assert_eq!((one.attach(JoinAt::First, old), other.attach(JoinAt::First, old)), (Ok(()), Ok(())));
        assert!(hub.is_everybody_behind());
        take(&mut one);
        assert!(!hub.is_everybody_behind());
        drop(one);
        assert!(hub.is_everybody_behind());
        drop(other);
        megabytes(5);
        assert!(!hub.is_everybody_behind(), "nobody watches a lingering stream");
    }

    #[test]
    fn joining_and_leaving_under_load_makes_no_gap_and_no_double() {
        let hub = Arc::new(Fanout::new(Bounds { bytes: u64::MAX, age: Duration::from_millis(5) }));
        let threads = Threads::new();
        for _ in 0..4 {
            let hub = Arc::clone(&hub);
            let body = move || {
                for round in 0..100_u32 {
                    let behind = Duration::from_millis(u64::from(round % 4));
                    let mut client = hub.join(JoinAt::Behind(behind));
                    let mut expected = None;
                    for _ in 0..50 {
                        match client.next(Instant::now() + Duration::from_secs(30)) {
                            Next::Chunk(chunk) => {
                                assert_eq!(chunk.start(), *expected.get_or_insert(chunk.start()));
                                expected = Some(chunk.end);
                                client.record_sent(&chunk);
                            }
                            Next::Quiet => panic!("a wake-up was lost"),
                            Next::End(_) => panic!("the source still publishes"),
                        }
                    }
                }
            };
            threads.spawn("joiner", SMALL_STACK_BYTES, body).expect("a thread");
        }
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let source = Arc::clone(&hub);
        let body = move || {
            while stopped.try_recv().is_err_and(|error| error.is_empty()) {
                publish(&source, 1);
                std::thread::yield_now();
            }
        };
        let sources = Threads::new();
        sources.spawn("source", SMALL_STACK_BYTES, body).expect("a thread");
        let joined = threads.join_all(Instant::now() + Duration::from_secs(60));
        drop(stop);
        sources.join_all(Instant::now() + Duration::from_secs(60)).expect("it is told to end");
        joined.expect("no joiner waits in vain");
    }
}
