//! Everything at once, in random order: whatever happens, no packet comes twice or hurt, and no session is left behind.

use std::time::{Duration, Instant};

use acerelay::id::Digest;
use acerelay::sim::{Health, Order, SimEngine};
use fastrand::Rng;

use super::harness::{
    LONG, Proxy, Viewer, broadcast, empty_engine, in_parallel, pause, stream_path, wait_engine,
};

const CONTENTS: u8 = 4;
const CLIENTS: usize = 6;
const TIME: Duration = Duration::from_secs(6);

fn id(number: u8) -> Digest {
    Digest::new([number + 1; 20])
}

fn infohash(number: u8) -> Digest {
    Digest::new([number | 0x80; 20])
}

/// Comes, watches for a while or not at all, and goes, again and again.
fn come_and_go(address: std::net::SocketAddr, mut rng: Rng, until: Instant) {
    while Instant::now() < until {
        let number = rng.u8(0..CONTENTS);
        let path = match rng.u8(0..10) {
            0..6 => stream_path(id(number)),
            6..8 => format!("/ace/getstream?infohash={}", infohash(number)),
            _ => format!("{}&preferred_audio_language=fra", stream_path(id(number))),
        };
        let mut connection = super::harness::Connection::open(address);
        connection.send_get(&path);
        if rng.u8(0..5) == 0 {
            pause(Duration::from_millis(rng.u64(0..60)));
            continue;
        }
        let mut reply = connection.reply();
        if reply.status != 200 {
            assert!([502, 503, 504].contains(&reply.status), "{}", reply.text());
            continue;
        }
        let mut viewer = Viewer::of(reply);
        let wanted = rng.u64(1..2500);
        while viewer.report().numbered < wanted && Instant::now() < until && viewer.take().is_ok() {}
        let report = viewer.leave();
        let faults = [report.doubles, report.damaged, report.foreign, report.psi_damaged, report.sync_losses];
        assert_eq!(faults, [0; 5], "{report:?}");
    }
}

/// Does something to an engine.
fn disturb(engine: &SimEngine, rng: &mut Rng) {
    let content = infohash(rng.u8(0..CONTENTS));
    match rng.u8(0..8) {
        0 | 1 => drop(engine.order(content, Order::End)),
        2 | 3 => drop(engine.order(content, Order::Reset)),
        4 => drop(engine.order(content, Order::Stall)),
        5 => engine.set_health(Health::Fails(500, "ill".to_owned())),
        6 => engine.crash().expect("the port is kept"),
        _ => {
            engine.set_health(Health::Ready);
            engine.accept().expect("the port is there");
        }
    }
}

#[test]
fn whatever_happens_in_whatever_order_nothing_is_left_behind() {
    let seed = fastrand::u64(..);
    let mut rng = Rng::with_seed(seed);
    let engines = [empty_engine(), empty_engine()];
    for number in 0..CONTENTS {
        engines.iter().for_each(|engine| engine.add(broadcast(id(number), infohash(number))));
    }
    let proxy = Proxy::start_with(&[&engines[0], &engines[1]], |config| {
        config.stream.recover_timeout = LONG;
        config.stream.stall_timeout = Duration::from_secs(1);
        config.stream.connect_timeout = Duration::from_secs(3);
        config.stream.first_data_timeout = Duration::from_secs(3);
        config.stream.linger = Duration::from_millis(300);
        config.stream.abandon = Duration::from_millis(300);
        config.stream.keepalive = Some(Duration::from_millis(500));
        config.health.failures = 1;
        config.engines.iter_mut().for_each(|engine| engine.max_streams = 3);
    });
    let (address, until) = (proxy.address, Instant::now() + TIME);
    let seeds: Vec<_> = (0..CLIENTS).map(|_| rng.fork()).collect();
    let (give, over) = crossbeam_channel::bounded(1);
    let clients = move || {
        in_parallel(CLIENTS, move |number| come_and_go(address, seeds[number].clone(), until));
        give.send(()).expect("the test waits for it");
    };
    acerelay::threads::Threads::new()
        .spawn("clients", super::harness::STACK_BYTES, clients)
        .expect("a thread");
    while Instant::now() < until {
        pause(Duration::from_millis(rng.u64(20..300)));
        disturb(&engines[rng.usize(0..2)], &mut rng);
    }
    for engine in &engines {
        engine.set_health(Health::Ready);
        engine.accept().expect("the port is there");
    }
    over.recv_timeout(2 * LONG).unwrap_or_else(|_| panic!("seed {seed}: a client does not come to its end"));
    proxy.wait_status("every stream is over", |status| {
        let sessions = status["sessions"].as_array().expect("a list");
        sessions.iter().all(|session| session["state"] == "stopped")
    });
    let status = proxy.status();
    assert_eq!((&status["total_clients"], &status["active_sessions"]), (&0.into(), &0.into()), "{status:#}");
    for engine in &engines {
        wait_engine(engine, &format!("nothing is left (seed {seed})"), |counts| {
            counts.sessions_open == 0 && counts.readers == 0 && counts.getstreams_now == 0
        });
        let counts = engine.counts();
        let ended = counts.sessions_stopped + counts.sessions_stopped_along + counts.sessions_lost;
        assert_eq!(counts.sessions_opened, ended, "seed {seed}: {counts:?}");
        assert!(counts.stops <= counts.sessions_opened, "seed {seed}: {counts:?}");
        assert_eq!((counts.second_readers, counts.sessions_superseded), (0, 0), "seed {seed}: {counts:?}");
    }
    assert_eq!(status["engines"][0]["streams"], 0, "seed {seed}");
    assert_eq!(status["engines"][1]["streams"], 0, "seed {seed}");
}
