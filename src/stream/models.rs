//! The threads of a stream in many orders, as shuttle runs them (see [`crate::sync`]): no wake-up is lost, no chunk is lost or
//! doubled, everybody who waits is told, and of one content there is never more than one fetcher.
//!
//! `RUSTFLAGS='--cfg shuttle' cargo test --lib --target-dir target/shuttle models` runs them, as `.ci/run` does. What shuttle
//! cannot show: an order of memory that is weaker than it looks, since each atomic is taken as the strictest there is, and
//! time, which stands still.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::thread;

use crate::config;
use crate::engine::pool::Pool;
use crate::id::ContentKey;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::ts::packet::{PACKET_BYTES, null_packet};
use crate::ts::start::StartKind;
use crate::wanted::Wanted;

use super::backlog::Bounds;
use super::budget::Budget;
use super::client::{ClientRecord, Protocol};
use super::directory::{Directory, Found};
use super::ending::Ending;
use super::fanout::{Fanout, JoinAt, Next, Subscription};
use super::marks::Mark;
use super::memory::Memory;
use super::state::{Event, State, Why};
use super::stream::{Seat, Stream};
use super::ticker::Ticker;

/// Orders that are tried of each model, half of them by chance and half by priorities that change seldom, which find what needs
/// a few switches in the wrong places. All models together take half a minute.
const ORDERS: usize = 4_000;

/// Switches in the wrong places that a failure may need.
const DEPTH: usize = 3;

fn in_many_orders(model: fn()) {
    shuttle::check_random(model, ORDERS / 2);
    shuttle::check_pct(model, ORDERS / 2, DEPTH);
}

/// Later than any model ends.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[test]
fn no_tick_is_missed() {
    in_many_orders(|| {
        const NUMBERS: usize = 3;
        let (ticker, sent) = (Arc::new(Ticker::default()), Arc::new(AtomicUsize::new(0)));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (ticker, sent) = (Arc::clone(&ticker), Arc::clone(&sent));
                thread::spawn(move || {
                    loop {
                        let seen = ticker.current();
                        if sent.load(Ordering::Acquire) == NUMBERS {
                            break;
                        }
                        assert!(ticker.wait(seen, far()));
                    }
                })
            })
            .collect();
        for _ in 0..NUMBERS {
            sent.fetch_add(1, Ordering::Release);
            ticker.tick();
        }
        waiters.into_iter().for_each(|waiter| waiter.join().expect("it ends"));
    });
}

const PUBLISHED: u8 = 4;

/// A chunk of one packet with this number in it, which a decoder may start with: nobody waits for a better place, since no wait
/// ends by itself here.
fn chunk(number: u8) -> ([u8; PACKET_BYTES], Vec<Mark>) {
    let mut packet = null_packet();
    packet[PACKET_BYTES - 1] = number;
    let offset = u64::from(number) * PACKET_BYTES as u64;
    let kind = StartKind::Keyframe;
    let mark = Mark { offset, kind, prefix: None, arrived: Instant::now(), time: None, is_jump: false };
    (packet, vec![mark])
}

fn publish_all(hub: &Fanout) {
    for number in 0..PUBLISHED {
        let (packet, mut marks) = chunk(number);
        hub.publish(&packet, &mut marks, Instant::now());
    }
}

/// What a client takes, chunk by chunk, up to the end.
fn take(mut subscription: Subscription) -> Vec<u8> {
    let mut numbers = Vec::new();
    loop {
        match subscription.next(far()) {
            Next::Chunk(chunk) => {
                numbers.push(chunk.packets()[PACKET_BYTES - 1]);
                subscription.record_sent(&chunk);
            }
            Next::Quiet => panic!("the deadline is far away"),
            Next::End(ending) => {
                assert_eq!(ending, Ending::Broken);
                return numbers;
            }
        }
    }
}

fn hub(bytes: u64) -> (Arc<Fanout>, Arc<Budget>) {
    let budget = Arc::<Budget>::default();
    (Fanout::new(Bounds { bytes, age: Duration::from_secs(600) }, &budget), budget)
}

#[test]
fn every_client_gets_every_chunk_from_its_place_on() {
    in_many_orders(|| {
        let (hub, _) = hub(1 << 20);
        let join = |at| {
            let subscription = hub.join(at);
            thread::spawn(move || take(subscription))
        };
        let waited = join(JoinAt::First);
        let newcomer = join(JoinAt::Behind(Duration::ZERO));
        let leaver = {
            let mut subscription = hub.join(JoinAt::First);
            thread::spawn(move || drop(subscription.next(far())))
        };
        publish_all(&hub);
        hub.close(Ending::Broken);
        leaver.join().expect("it leaves");
        assert_eq!(waited.join().expect("it ends"), (0..PUBLISHED).collect::<Vec<_>>());
        let numbers = newcomer.join().expect("it ends");
        let begin = PUBLISHED - numbers.len() as u8;
        assert_eq!(numbers, (begin..PUBLISHED).collect::<Vec<_>>(), "no gap, no double");
        assert_eq!(hub.clients(), 0);
    });
}

#[test]
fn who_is_left_behind_goes_on_further_ahead_and_memory_is_accounted_for() {
    in_many_orders(|| {
        // Room for one chunk: whoever does not keep up is left behind.
        let (hub, budget) = hub(PACKET_BYTES as u64);
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let subscription = hub.join(JoinAt::First);
                thread::spawn(move || take(subscription))
            })
            .collect();
        let taker = {
            let hub = Arc::clone(&hub);
            thread::spawn(move || drop(hub.give_up(PACKET_BYTES as u64)))
        };
        publish_all(&hub);
        hub.close(Ending::Broken);
        taker.join().expect("it ends");
        for client in clients {
            let numbers = client.join().expect("it ends");
            assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
            assert_eq!(numbers.last(), Some(&(PUBLISHED - 1)), "the newest is never lost");
        }
        hub.clear();
        assert_eq!((hub.kept_bytes(), budget.kept_bytes()), (0, 0));
    });
}

fn wanted() -> Wanted {
    let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
    key.expect("a good key").into()
}

fn client(id: u64) -> Arc<ClientRecord> {
    Arc::new(ClientRecord::new(id, Protocol::Ts, SocketAddr::from(([127, 0, 0, 1], 1)), None))
}

fn begin(client: Arc<ClientRecord>, memory: &Arc<Memory>) -> Seat {
    let settings =
        config::Stream { linger: Duration::ZERO, recover_timeout: Duration::ZERO, ..Default::default() };
    let pool = Arc::new(Pool::new(Vec::new()));
    Stream::begin(wanted(), &settings, Arc::default(), client, memory, pool, Arc::default())
}

/// Does what a fetcher does: publishes, says so, reads on until its stream is over, stops the session, and says that.
fn fetch(stream: &Arc<Stream>) {
    for number in 0..2 {
        publish(stream, number);
        stream.apply(&Event::FirstPackets(0));
    }
    while stream.state().is_open() {
        thread::yield_now();
    }
    stream.apply(&Event::FetcherGone);
}

fn publish(stream: &Stream, number: u8) {
    let (packet, mut marks) = chunk(number);
    stream.publish(&packet, &mut marks, Instant::now());
}

/// Does what a client does: waits for the start, plays a chunk, and goes.
fn watch(seat: Seat) -> Result<(), Why> {
    let outcome = seat.wait_started(far()).expect("whoever waits is told");
    if outcome.is_ok() {
        let mut subscription = seat.join();
        assert!(!matches!(subscription.next(far()), Next::Quiet));
    }
    outcome
}

#[test]
fn everybody_is_told_and_the_book_is_closed_however_a_stream_ends() {
    in_many_orders(|| {
        let memory = Memory::new(0);
        let first = begin(client(1), &memory);
        let stream = Arc::clone(first.stream());
        let spawn = |body: Box<dyn FnOnce(&Arc<Stream>) + Send>| {
            let stream = Arc::clone(&stream);
            thread::spawn(move || body(&stream))
        };
        let threads = [
            spawn(Box::new(fetch)),
            spawn(Box::new(|stream| {
                if let Ok(seat) = stream.take_seat(client(2)) {
                    let _told = watch(seat);
                }
            })),
            spawn(Box::new(|stream| {
                stream.apply(&Event::Stop(Why::Asked));
                assert!(stream.wait_stopped(far()), "a stopped stream ends");
            })),
            // The housekeeper.
            spawn(Box::new(|stream| {
                stream.tick();
                drop(stream.view());
            })),
        ];
        let told = watch(first);
        assert!(matches!(told, Ok(()) | Err(Why::Asked)), "{told:?}");
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        assert!(matches!(stream.state(), State::Stopped(_)));
        assert!(stream.take_seat(client(3)).is_err() && !stream.has_seat_of(2));
        assert_eq!(memory.budget().kept_bytes(), 0, "the last one out has cleared the hub");
    });
}

#[test]
fn nobody_is_left_with_a_stream_whose_fetcher_panicked() {
    in_many_orders(|| {
        let memory = Memory::new(1 << 20);
        let first = begin(client(1), &memory);
        let stream = Arc::clone(first.stream());
        let fetcher = {
            let stream = Arc::clone(&stream);
            // What the drop of a fetcher's `Run` does.
            thread::spawn(move || {
                stream.apply(&Event::Stop(Why::Panicked));
                stream.apply(&Event::FetcherGone);
            })
        };
        let second = stream.take_seat(client(2)).ok().map(|seat| thread::spawn(move || watch(seat)));
        assert_eq!(watch(first), Err(Why::Panicked));
        if let Some(second) = second {
            assert_eq!(second.join().expect("it ends"), Err(Why::Panicked));
        }
        fetcher.join().expect("it ends");
        assert!(matches!(stream.state(), State::Stopped(_)));
    });
}

thread_local! {
    /// Starts in all orders of a model, to know that it did not miss what it is about. Shuttle runs all on one thread.
    static STARTS: Cell<usize> = const { Cell::new(0) };
}

#[test]
fn of_one_content_there_is_never_more_than_one_fetcher() {
    in_many_orders(|| {
        struct House {
            directory: Directory,
            memory: Arc<Memory>,
            fetchers: AtomicUsize,
            threads: Mutex<Vec<thread::JoinHandle<()>>>,
        }
        let house = Arc::new(House {
            directory: Directory::default(),
            memory: Memory::new(1 << 20),
            fetchers: AtomicUsize::new(0),
            threads: Mutex::default(),
        });
        // As `Streams::seat` does it.
        let come_and_go = |house: &Arc<House>, id: u64| loop {
            let begin = || begin(client(id), &house.memory);
            match house.directory.seat(&wanted(), &client(id), &[], 1, begin) {
                Ok(Found::Seat(seat)) => return drop(watch(seat)),
                Ok(Found::New(seat)) => {
                    STARTS.set(STARTS.get() + 1);
                    let (of, stream) = (Arc::clone(house), Arc::clone(seat.stream()));
                    let fetcher = thread::spawn(move || {
                        assert_eq!(of.fetchers.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                        fetch_and_count_off(&stream, &of.fetchers);
                        of.directory.retire(&stream);
                    });
                    house.threads.lock().push(fetcher);
                    return drop(watch(seat));
                }
                Ok(Found::Closing(stream)) => {
                    assert!(stream.wait_stopped(far()));
                    house.directory.retire(&stream);
                }
                Ok(Found::Full(stream)) => stream.apply(&Event::GiveWay),
                Err(refused) => panic!("{refused}"),
            }
        };
        let clients: Vec<_> = (1..=3)
            .map(|id| {
                let house = Arc::clone(&house);
                thread::spawn(move || come_and_go(&house, id))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("it ends"));
        // Nobody watches any more: what lingers is ended, as the housekeeper would.
        for stream in house.directory.close() {
            stream.apply(&Event::Stop(Why::Shutdown));
        }
        let fetchers = std::mem::take(&mut *house.threads.lock());
        fetchers.into_iter().for_each(|fetcher| fetcher.join().expect("it ends"));
        assert_eq!(house.fetchers.load(Ordering::SeqCst), 0);
        assert!(house.directory.live().is_empty());
    });
    assert!(STARTS.get() > ORDERS, "in some orders a stream is started, ended and started again");
}

/// A fetcher is off the count once its session is stopped, and before it says so.
fn fetch_and_count_off(stream: &Arc<Stream>, fetchers: &AtomicUsize) {
    publish(stream, 0);
    stream.apply(&Event::FirstPackets(0));
    while stream.state().is_open() {
        // The housekeeper ends what lingers.
        stream.tick();
        thread::yield_now();
    }
    fetchers.fetch_sub(1, Ordering::SeqCst);
    stream.apply(&Event::FetcherGone);
}
