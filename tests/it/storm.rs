//! Many comings and goings, and that nothing is left of them.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use acerelay::config;
use acerelay::engine::pool::Pool;
use acerelay::id::{ContentKey, Digest};
use acerelay::sim::{Getstream, Script, SimEngine};
use acerelay::stream::memory::Memory;
use acerelay::stream::state::{Event, State};
use acerelay::stream::{
    client::{ClientRecord, Protocol},
    stream::Stream,
};

use super::binary::file;
use super::harness::{
    Connection, ID, LONG, OTHER_ID, OTHER_INFOHASH, Proxy, Running, Viewer, assert_all_stopped, assert_whole,
    broadcast, empty_engine, engine, in_parallel, pause, scripted, stream_path, wait_engine,
};

/// The program before this engine, with short limits; lines of the table `[stream]` come in addition.
fn program(name: &str, engine: &SimEngine, stream: &str) -> Running {
    let text = format!(
        "[log]\nlevel = \"warn\"\n[stream]\nlinger_s = 0.2\n{stream}\n[[engines]]\nhost = \"127.0.0.1\"\nport = {}\n",
        engine.addr().port()
    );
    let path = file(name, &text);
    Running::start(&["--config", path.to_str().expect("a path of ours")])
}

/// Threads and descriptors of a program that has served and is idle again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    threads: u64,
    descriptors: u64,
}

fn held(running: &Running) -> Held {
    let usage = running.usage();
    Held { threads: usage.threads, descriptors: usage.descriptors }
}

/// Serves once, so that everything is there that stays; then waits until nothing comes or goes for two seconds.
fn settled(running: &Running, engine: &SimEngine) -> Held {
    Viewer::open(running.address, OTHER_ID).take_packets(10);
    wait_engine(engine, "the first stream is over", |counts| counts.stops == 1 && counts.readers == 0);
    let mut last = (held(running), Instant::now());
    let began = Instant::now();
    while last.1.elapsed() < Duration::from_secs(2) {
        assert!(began.elapsed() < LONG, "it does not come to rest: {last:?}");
        pause(Duration::from_millis(100));
        let now = held(running);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

/// Waits until the program holds no more than before.
#[track_caller]
fn assert_nothing_left(running: &Running, before: Held) {
    let began = Instant::now();
    loop {
        let now = held(running);
        if now.threads <= before.threads && now.descriptors <= before.descriptors {
            return;
        }
        assert!(began.elapsed() < LONG, "{before:?} before, {now:?} after");
        pause(Duration::from_millis(100));
    }
}

#[test]
fn a_storm_of_zaps_with_a_dead_channel_among_them_leaves_nothing_behind() {
    const CLIENTS: usize = 12;
    const CHANGES: usize = 204;
    let engine = scripted(Script::new());
    let dead = Digest::new([0xde; 20]);
    engine.add(broadcast(dead, Digest::new([0x5e; 20])).script(Script::new().getstream(Getstream::Hang)));
    let running = program("storm.toml", &engine, "connect_timeout_s = 5\nabandon_s = 1");
    let before = settled(&running, &engine);
    let address = running.address;
    let waits = in_parallel(CLIENTS, move |client| {
        let mut longest = Duration::ZERO;
        for change in 0..CHANGES / CLIENTS {
            let id = [ID, dead, OTHER_ID][(client + change) % 3];
            let mut connection = Connection::open(address);
            connection.send_get(&stream_path(id));
            if id == dead {
                pause(Duration::from_millis(50 + 10 * client as u64));
                continue;
            }
            let began = Instant::now();
            let mut viewer = Viewer::of(connection.reply());
            longest = longest.max(began.elapsed());
            viewer.take_packets(20);
            let report = viewer.leave();
            assert!(report.doubles == 0 && report.damaged == 0 && report.gap_count == 0, "{report:?}");
        }
        longest
    });
    // On a machine however busy: nobody has waited for the dead channel's five seconds.
    assert!(waits.iter().all(|wait| *wait < Duration::from_secs(4)), "{waits:?}");
    // A new channel starts at once.
    let fresh = Digest::new([0xf1; 20]);
    engine.add(broadcast(fresh, Digest::new([0xf2; 20])));
    let began = Instant::now();
    let mut viewer = Viewer::open(address, fresh);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    viewer.take_packets(50);
    assert_whole(&viewer.leave());
    assert_nothing_left(&running, before);
    let counts = engine.counts();
    assert_eq!((counts.sessions_open, counts.readers, counts.getstreams_now), (0, 0, 0), "{counts:?}");
    assert_eq!((counts.sessions_opened, counts.sessions_stopped), (counts.stops, counts.stops), "{counts:?}");
    assert_eq!(
        (counts.stops_unknown, counts.second_readers, counts.sessions_leaked),
        (0, 0, 0),
        "{counts:?}"
    );
}

/// The longest of eight live starts, one after the other, before an engine with so many dead channels.
fn longest_start(dead: u8) -> Duration {
    const LIVE: u8 = 8;
    let engine = empty_engine();
    for number in 0..dead {
        let (dead, infohash) = (Digest::new([0xd0 + number; 20]), Digest::new([0x50 + number; 20]));
        engine.add(broadcast(dead, infohash).script(Script::new().getstream(Getstream::Hang)));
    }
    for number in 0..LIVE {
        engine.add(broadcast(Digest::new([number + 1; 20]), Digest::new([number + 0x81; 20])));
    }
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.engines[0].max_starts = 4;
        config.engines[0].max_streams = 50;
        config.stream.connect_timeout = Duration::from_secs(4);
    });
    let waiting: Vec<_> = (0..dead).map(|number| proxy.ask(Digest::new([0xd0 + number; 20]))).collect();
    wait_engine(&engine, "they are asked for", |counts| counts.getstreams_now == u64::from(dead));
    let start = |number| {
        let began = Instant::now();
        Viewer::open(proxy.address, Digest::new([number + 1; 20])).take_packets(1);
        began.elapsed()
    };
    let longest = (0..LIVE).map(start).max().expect("some");
    drop(waiting);
    longest
}

/// Not one of them. A busy machine may delay any of them, with dead channels or without; a proxy that makes one wait for
/// its turn does so every time.
#[test]
fn fewer_dead_channels_than_starts_do_not_delay_a_live_one() {
    const ROUNDS: usize = 12;
    let mut seen = Vec::new();
    while seen.len() < ROUNDS {
        let (without, with) = (longest_start(0), longest_start(3));
        if with < without + Duration::from_millis(50) {
            return;
        }
        seen.push((without, with));
    }
    panic!("without dead channels, and with three: {seen:?}");
}

#[test]
fn a_thousand_joins_and_leaves_leave_no_thread_and_no_descriptor_behind() {
    let engine = engine();
    let running = program("joins.toml", &engine, "");
    let before = settled(&running, &engine);
    let address = running.address;
    let mut watcher = Viewer::open(address, ID);
    watcher.take_packets(1);
    let joined = in_parallel(10, move |_| {
        for _ in 0..100 {
            let mut viewer = Viewer::open(address, ID);
            viewer.take_packets(1);
            assert_whole(&viewer.leave());
        }
        100
    });
    assert_eq!(joined.iter().sum::<i32>(), 1000);
    watcher.take_packets(100);
    assert_whole(&watcher.leave());
    assert_nothing_left(&running, before);
    assert_eq!(engine.counts_of(ID).readers_max, 1);
    // The one that served before is the other.
    assert_all_stopped(&engine, 2);
}

fn stream_without_linger() -> Arc<Stream> {
    let key = ContentKey::from_query(None, [("id", ID.to_string())]).expect("a good id");
    let settings = config::Stream { linger: Duration::ZERO, ..config::Stream::default() };
    Stream::new(
        key.into(),
        &settings,
        Arc::default(),
        &Memory::new(settings.memory_bytes),
        Arc::new(Pool::new(Vec::new())),
        Arc::default(),
    )
}

fn record(number: u64) -> Arc<ClientRecord> {
    Arc::new(ClientRecord::new(number, Protocol::Ts, ([127, 0, 0, 1], 9).into(), None))
}

/// Whoever wins: a seat that was given is on a stream that goes on, and a stream that ends has given none. Of each hundred
/// rounds one is no race, for either side: both outcomes are those they have to be.
#[test]
fn the_last_leave_races_the_first_join_ten_thousand_times() {
    const ROUNDS: usize = 10_200;
    const DECIDED: usize = ROUNDS / 102;
    let joiner_is_first = |round: usize| round.is_multiple_of(102);
    let leaver_is_first = |round: usize| round % 102 == 1;
    let sessions: Arc<Vec<_>> = Arc::new((0..ROUNDS).map(|_| stream_without_linger()).collect());
    let seats: Vec<_> = sessions
        .iter()
        .map(|session| {
            let seat = session.take_seat(record(1)).expect("it starts");
            session.apply(&Event::FirstPackets(0));
            Some(seat)
        })
        .collect();
    let (barrier, seats) = (Arc::new(Barrier::new(2)), Arc::new(parking_lot::Mutex::new(seats)));
    let outcomes = in_parallel(2, move |side| {
        let mut joined = 0;
        for (round, session) in sessions.iter().enumerate() {
            let seat = if side == 0 { seats.lock()[round].take() } else { None };
            barrier.wait();
            if side == 0 {
                if joiner_is_first(round) {
                    barrier.wait();
                }
                drop(seat);
                session.tick();
                if leaver_is_first(round) {
                    barrier.wait();
                }
                continue;
            }
            if leaver_is_first(round) {
                barrier.wait();
            }
            let taken = session.take_seat(record(2));
            if joiner_is_first(round) {
                barrier.wait();
            }
            match taken {
                Ok(seat) => {
                    joined += 1;
                    session.tick();
                    assert_eq!(seat.wait_started(Instant::now() + LONG), Some(Ok(())), "round {round}");
                    // The other side may still be at its tick: it must not end what has a seat.
                    assert_eq!(session.state(), State::Active, "round {round}");
                }
                Err(_closing) => assert!(!session.state().is_open(), "round {round}"),
            }
        }
        joined
    });
    let joined: usize = outcomes.iter().sum();
    assert!((DECIDED..=ROUNDS - DECIDED).contains(&joined), "{joined} of {ROUNDS}");
}

#[test]
fn two_that_come_and_go_all_the_time_never_get_a_stream_that_ends() {
    const SEATS: usize = 5_000;
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = Duration::ZERO);
    let streams = Arc::clone(proxy.app().streams());
    in_parallel(2, move |side| {
        let wanted = ContentKey::from_query(None, [("id", ID.to_string())]).expect("a good id").into();
        for number in 0..SEATS {
            let seat = streams.seat(&wanted, &record(side as u64), || true).expect("there is room");
            assert_eq!(seat.wait_started(Instant::now() + LONG), Some(Ok(())));
            drop(seat);
            if number % 500 == 0 {
                // Long enough for a stream without seats to be ended.
                pause(Duration::from_millis(300));
            }
        }
    });
    proxy.wait_gone(ID);
    let counts = engine.counts();
    assert!(counts.sessions_opened >= 2 && counts.readers_max == 1, "{counts:?}");
    assert_all_stopped(&engine, counts.sessions_opened);
    assert_eq!(engine.counts_of(OTHER_INFOHASH).getstreams, 0);
}
