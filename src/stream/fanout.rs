//! Hands every chunk to every client, and never waits for one.
//!
//! Four operations: [`Fanout::publish`], [`Fanout::join`], leaving (dropping a [`Subscription`], or being left behind)
//! and [`Fanout::close`]. Each client has a crossbeam channel of its own. The channels have no bound of their own, since
//! a bounded one allocates all its places at once; the bound is the client's offset: who is further behind the head
//! than the backlog is long is left behind, its queue is emptied, and it joins again when it comes back.
//!
//! Lock rule: the one lock guards backlog and list of clients; it is held for copying `Arc`s only. What is evicted is
//! dropped after it. Whoever changes something ticks after releasing it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use parking_lot::Mutex;

use super::backlog::{Backlog, Bounds};
use super::chunk::Chunk;
use super::ticker::Ticker;

/// While every client is further behind than this, the fetcher lets the engine wait: its start burst is tens of
/// megabytes, and nobody is to be left behind because of it.
const HOLD_BEHIND_BYTES: u64 = 4 * 1024 * 1024;

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
    /// At the oldest chunk there is: a client that waited for the start.
    Oldest,
    /// This much behind the newest chunk.
    Behind(Duration),
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

    /// Gives whole packets to everybody. `tables` are PAT and PMT as they were before them. Does nothing once the hub
    /// is closed. Never blocks.
    pub fn publish(&self, packets: &[u8], tables: Option<&Arc<Chunk>>, arrived: Instant) {
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
            let is_left = |client: &Client| chunk.end - client.progress.offset() > self.bound_bytes;
            if shared.clients.iter().any(is_left) {
                for client in shared.clients.extract_if(.., |client| is_left(client)) {
                    client.progress.is_left_behind.store(true, Ordering::Release);
                    dropped_later.extend(client.queue.try_iter());
                }
            }
            dropped_later.extend(shared.backlog.push(Arc::clone(&chunk), tables.cloned()));
        }
        self.ticker.tick();
    }

    /// Adds a client: PAT and PMT of that place, then every packet from there on, without gap or double. On a closed
    /// hub the client gets what is kept, then the end.
    pub fn join(self: &Arc<Self>, at: JoinAt, now: Instant) -> Subscription {
        let mut subscription = Subscription {
            hub: Arc::clone(self),
            progress: Arc::default(),
            prefix: None,
            queue: crossbeam_channel::never(),
        };
        subscription.attach(at, now);
        subscription
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
    prefix: Option<Arc<Chunk>>,
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
        if let Some(prefix) = self.prefix.take() {
            return Next::Chunk(prefix);
        }
        loop {
            let seen = self.hub.ticker.current();
            match self.queue.try_recv() {
                Ok(chunk) => return Next::Chunk(chunk),
                Err(TryRecvError::Empty) => {
                    if !self.hub.ticker.wait(seen, deadline) {
                        return Next::Quiet;
                    }
                }
                Err(TryRecvError::Disconnected) if self.progress.is_left_behind.swap(false, Ordering::Acquire) => {
                    self.progress.skips.fetch_add(1, Ordering::Relaxed);
                    self.attach(JoinAt::Behind(Duration::ZERO), Instant::now());
                    if let Some(prefix) = self.prefix.take() {
                        return Next::Chunk(prefix);
                    }
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

    fn attach(&mut self, at: JoinAt, now: Instant) {
        #[expect(clippy::disallowed_methods, reason = "bounded by the client's offset, see the module's page")]
        let (sender, queue) = crossbeam_channel::unbounded();
        {
            let mut shared = self.hub.shared.lock();
            let index = match at {
                JoinAt::Oldest => 0,
                JoinAt::Behind(behind) => shared.backlog.start_behind(behind, now),
            };
            let start = shared.backlog.from(index).next().map_or(shared.head, |chunk| chunk.start());
            for chunk in shared.backlog.from(index) {
                let _sent = sender.send(Arc::clone(chunk));
            }
            self.prefix = shared.backlog.tables_at(index).cloned();
            self.progress.offset.fetch_max(start, Ordering::Relaxed);
            if shared.ending.is_none() {
                shared.had_clients = true;
                let progress = Arc::clone(&self.progress);
                shared.clients.push(Client { progress, sender, queue: queue.clone() });
            }
        }
        self.queue = queue;
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

    const PACKETS: &[u8] = &[0x47; 188];
    const BOUNDS: Bounds = Bounds { bytes: 100 * 188, age: Duration::from_secs(60) };

    fn hub() -> Arc<Fanout> {
        Arc::new(Fanout::new(BOUNDS))
    }

    fn publish(hub: &Fanout, count: usize) {
        for _ in 0..count {
            hub.publish(PACKETS, None, Instant::now());
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
    fn a_joiner_gets_what_is_kept_and_then_what_comes() {
        let hub = hub();
        publish(&hub, 3);
        let mut client = hub.join(JoinAt::Oldest, Instant::now());
        publish(&hub, 2);
        assert_eq!(take(&mut client), (vec![0, 1, 2, 3, 4], None));
        publish(&hub, 1);
        assert_eq!(take(&mut client), (vec![5], None));
        let mut newest = hub.join(JoinAt::Behind(Duration::ZERO), Instant::now());
        assert_eq!(take(&mut newest), (vec![5], None));
    }

    #[test]
    fn a_joiner_gets_the_tables_of_its_place() {
        let hub = hub();
        let tables = |byte| Some(Arc::new(Chunk::new(0, Instant::now(), &[byte; 376])));
        hub.publish(PACKETS, None, Instant::now());
        hub.publish(PACKETS, tables(1).as_ref(), Instant::now());
        hub.publish(PACKETS, tables(2).as_ref(), Instant::now());
        let first = |at| {
            let mut client = hub.join(at, Instant::now());
            let Next::Chunk(chunk) = client.next(Instant::now()) else { panic!("there are chunks") };
            (chunk.packets()[0], take(&mut client).0)
        };
        assert_eq!(first(JoinAt::Oldest), (0x47, vec![1, 2]), "nothing was known before the first chunk");
        assert_eq!(first(JoinAt::Behind(Duration::ZERO)), (2, vec![2]));
    }

    #[test]
    fn at_the_end_everybody_gets_everything_first() {
        let hub = hub();
        let mut early = hub.join(JoinAt::Oldest, Instant::now());
        publish(&hub, 3);
        hub.close(Ending::Complete);
        hub.close(Ending::Broken);
        publish(&hub, 1);
        let everything = (vec![0, 1, 2], Some(Ending::Complete));
        assert_eq!(take(&mut early), everything);
        assert_eq!(take(&mut hub.join(JoinAt::Oldest, Instant::now())), everything);
        hub.clear();
        assert_eq!(take(&mut hub.join(JoinAt::Oldest, Instant::now())), (vec![], Some(Ending::Complete)));
    }

    #[test]
    fn who_is_left_behind_loses_its_queue_and_joins_again_ahead() {
        let hub = hub();
        let mut slow = hub.join(JoinAt::Oldest, Instant::now());
        let mut fast = hub.join(JoinAt::Oldest, Instant::now());
        publish(&hub, 100);
        assert_eq!(take(&mut fast).0.len(), 100);
        assert_eq!(hub.shared.lock().clients.len(), 2, "at the bound it is not beyond it");
        publish(&hub, 1);
        assert_eq!(hub.shared.lock().clients.len(), 1);
        assert!(slow.queue.is_empty(), "its queue is freed at once");
        publish(&hub, 10);
        assert_eq!(take(&mut slow), (vec![110], None));
        assert_eq!((slow.progress().skips(), fast.progress().skips()), (1, 0));
        publish(&hub, 2);
        assert_eq!(take(&mut slow).0, [111, 112]);
        assert_eq!(take(&mut fast).0.len(), 13);
    }

    #[test]
    fn the_engine_waits_only_while_everybody_is_behind() {
        let bounds = Bounds { bytes: 100 << 20, age: Duration::from_secs(60) };
        let hub = Arc::new(Fanout::new(bounds));
        let megabytes = |count| {
            for _ in 0..count {
                hub.publish(&[0x47; 1 << 20], None, Instant::now());
            }
        };
        megabytes(4);
        assert!(!hub.is_everybody_behind());
        megabytes(1);
        assert!(hub.is_everybody_behind(), "the first client is on its way");
        let mut one = hub.join(JoinAt::Oldest, Instant::now());
        let other = hub.join(JoinAt::Oldest, Instant::now());
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
                    let mut client = hub.join(JoinAt::Behind(behind), Instant::now());
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
