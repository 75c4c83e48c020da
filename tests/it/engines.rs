//! Which engine takes a stream, with real engines and real health checks.
//!
//! | test | of the ancestor's 24 |
//! |---|---|
//! | `a_forwarded_engine_is_preferred` | engines 1: forwarded with 0 streams beats plain 0 |
//! | `a_forwarded_engine_with_two_streams_...` | engines 2: forwarded with 2 streams still beats plain |
//! | `an_engine_that_is_down_...` | engines 3: unhealthy never |
//! | `of_equal_engines_...` | engines 4: least loaded of equals |
//! | `when_all_engines_are_down_...` | engines 5: all unhealthy: none |

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use acerelay::config;
use acerelay::id::Digest;
use acerelay::sim::{Health, SimEngine};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::harness::{LONG, Proxy, Viewer, broadcast, empty_engine, stream_path};

/// An engine that plays contents 1 to 9.
fn engine() -> SimEngine {
    let engine = empty_engine();
    for number in 1..10 {
        engine.add(broadcast(id(number), Digest::new([number | 0x80; 20])));
    }
    engine
}

fn id(number: u8) -> Digest {
    Digest::new([number; 20])
}

/// The engines as the status tells of them.
fn engines(proxy: &Proxy) -> Vec<Value> {
    let mut reply = proxy.get("/proxy/engines");
    reply.json()["engines"].as_array().expect("a list of engines").clone()
}

fn wait_health(proxy: &Proxy, expected: &[bool]) {
    proxy.wait_status(&format!("the engines' health is {expected:?}"), |status| {
        let engines = status["engines"].as_array().expect("a list of engines");
        engines.len() == expected.len()
            && engines.iter().zip(expected).all(|(engine, healthy)| engine["healthy"] == *healthy)
    });
}

fn getstreams<const N: usize>(engines: [&SimEngine; N]) -> [u64; N] {
    engines.map(|engine| engine.counts().getstreams)
}

/// Opens the streams of these contents, one after the other.
fn open(proxy: &Proxy, numbers: impl IntoIterator<Item = u8>) -> Vec<Viewer> {
    let open = |number| {
        let mut viewer = Viewer::open(proxy.address, id(number));
        viewer.take_packets(1);
        viewer
    };
    numbers.into_iter().map(open).collect()
}

#[test]
fn a_forwarded_engine_is_preferred() {
    let (plain, forwarded) = (engine(), engine());
    let proxy = Proxy::start_with(&[&plain, &forwarded], |config| config.engines[1].forwarded = true);
    let _viewers = open(&proxy, [1]);
    assert_eq!(getstreams([&plain, &forwarded]), [0, 1]);
    let told = engines(&proxy);
    assert_eq!((&told[0]["forwarded"], &told[1]["forwarded"]), (&false.into(), &true.into()));
}

#[test]
fn a_forwarded_engine_with_two_streams_is_still_preferred_until_it_is_full() {
    let (plain, forwarded) = (engine(), engine());
    let proxy = Proxy::start_with(&[&plain, &forwarded], |config| {
        config.engines[1].forwarded = true;
        config.engines[1].max_streams = 3;
    });
    let mut viewers = open(&proxy, 1..=3);
    assert_eq!(getstreams([&plain, &forwarded]), [0, 3]);
    viewers.extend(open(&proxy, [4]));
    assert_eq!(getstreams([&plain, &forwarded]), [1, 3]);
    let told = engines(&proxy);
    assert_eq!((&told[0]["streams"], &told[1]["streams"]), (&1.into(), &3.into()));
}

#[test]
fn an_engine_that_is_down_takes_no_stream_until_it_is_up_again() {
    let (plain, forwarded) = (engine(), engine());
    let proxy = Proxy::start_with(&[&plain, &forwarded], |config| config.engines[1].forwarded = true);
    wait_health(&proxy, &[true, true]);
    forwarded.crash().expect("the port is kept");
    wait_health(&proxy, &[true, false]);
    let told = engines(&proxy);
    assert!(told[1]["last_error"].as_str().is_some_and(|error| error.contains("reached")), "{}", told[1]);
    let mut viewers = open(&proxy, [1]);
    assert_eq!(getstreams([&plain, &forwarded]), [1, 0]);
    forwarded.accept().expect("the port is there");
    wait_health(&proxy, &[true, true]);
    viewers.extend(open(&proxy, [2]));
    assert_eq!(getstreams([&plain, &forwarded]), [1, 1]);
}

#[test]
fn an_engine_that_answers_but_is_ill_takes_no_stream() {
    for illness in [Health::Loading, Health::Fails(500, "broken".to_owned())] {
        let (ill, well) = (engine(), engine());
        ill.set_health(illness);
        let proxy = Proxy::start_with(&[&ill, &well], |config| config.health.failures = 1);
        wait_health(&proxy, &[false, true]);
        let _viewers = open(&proxy, 1..=3);
        assert_eq!(getstreams([&ill, &well]), [0, 3]);
    }
}

#[test]
fn of_equal_engines_the_one_with_fewest_streams_is_chosen_then_the_first() {
    let (first, second) = (engine(), engine());
    let proxy = Proxy::start(&[&first, &second]);
    let mut viewers = Vec::new();
    for expected in [[1, 0], [1, 1], [2, 1], [2, 2]] {
        let number = (expected[0] + expected[1]) as u8;
        viewers.extend(open(&proxy, [number]));
        assert_eq!(getstreams([&first, &second]), expected);
    }
    // The second one's streams end, and it has the next two.
    drop((viewers.remove(3), viewers.remove(1)));
    proxy.wait_status("two streams have ended", |status| status["engines"][1]["streams"] == 0);
    viewers.extend(open(&proxy, [5, 6]));
    assert_eq!(getstreams([&first, &second]), [2, 4]);
}

#[test]
fn streams_that_start_at_once_are_spread_over_the_engines() {
    let (first, second) = (engine(), engine());
    let proxy = Proxy::start(&[&first, &second]);
    let address = proxy.address;
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(8));
    super::harness::in_parallel(8, move |number| {
        let mut viewer = Viewer::open(address, id(number as u8 + 1));
        viewer.take_packets(1);
        barrier.wait();
    });
    assert_eq!(getstreams([&first, &second]), [4, 4]);
}

#[test]
fn when_all_engines_are_down_there_is_none() {
    let (first, second) = (engine(), engine());
    let proxy = Proxy::start(&[&first, &second]);
    wait_health(&proxy, &[true, true]);
    assert_eq!(proxy.get("/readyz").status, 200);
    first.crash().expect("the port is kept");
    second.crash().expect("the port is kept");
    wait_health(&proxy, &[false, false]);
    let mut reply = proxy.get(&stream_path(id(1)));
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (503, &"no_engine".into()));
    assert!(reply.header("Retry-After").is_some());
    assert!(
        json["detail"].as_str().is_some_and(|detail| detail.contains("no AceStream engine is up")),
        "{json}"
    );
    assert_eq!(proxy.get("/readyz").status, 503);
    assert_eq!(proxy.get("/healthz").status, 200);
    assert_eq!(getstreams([&first, &second]), [0, 0]);
    // It resumes by itself.
    second.accept().expect("the port is there");
    wait_health(&proxy, &[false, true]);
    open(&proxy, [1]);
    assert_eq!(getstreams([&first, &second]), [0, 1]);
}

#[test]
fn an_engine_that_comes_after_the_proxy_is_picked_up() {
    let late = engine();
    late.refuse().expect("the port is kept");
    let proxy = Proxy::start(&[&late]);
    for _ in 0..2 {
        let mut reply = proxy.get(&stream_path(id(1)));
        assert_eq!((reply.status, &reply.json()["error"]), (503, &"no_engine".into()));
    }
    assert_eq!((proxy.get("/readyz").status, proxy.get("/healthz").status), (503, 200));
    late.accept().expect("the port is there");
    wait_health(&proxy, &[true]);
    assert_eq!(proxy.get("/readyz").status, 200);
    // That there was none is no failure of the channel, to be remembered.
    open(&proxy, [1]);
    assert_eq!(getstreams([&late]), [1]);
}

/// A port where connects are neither accepted nor refused, as long as what is given lives.
fn busy_port() -> (SocketAddr, Vec<TcpStream>, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(0).expect("it listens");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "its queue is never full");
    }
    (address, waiting, socket)
}

#[test]
fn an_engine_that_answers_no_connect_is_not_down_at_once_but_the_stream_goes_to_the_next() {
    let (busy, _waiting, _socket) = busy_port();
    let well = engine();
    let proxy = Proxy::start_with(&[&well], |config| {
        let busy = config::Engine::at(busy.ip().into(), busy.port());
        config.engines.insert(0, config::Engine { forwarded: true, ..busy });
        config.health.failures = 1000;
    });
    open(&proxy, [1]);
    let told = engines(&proxy)[0].clone();
    assert!(
        told["last_error"].as_str().is_some_and(|error| error.contains("no answer to the connect")),
        "{told}"
    );
    assert!(told["healthy"].is_null(), "{told}");
    assert_eq!(getstreams([&well]), [1]);
    // And if it is the only one, that is told; once, and not until the deadline is over.
    let proxy = Proxy::start_with(&[&well], |config| {
        config.engines = vec![config::Engine::at(busy.ip().into(), busy.port())];
        config.health.failures = 1000;
    });
    let began = Instant::now();
    let mut reply = proxy.get(&stream_path(id(1)));
    assert_eq!((reply.status, &reply.json()["error"]), (503, &"no_engine".into()));
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
}

#[test]
fn when_all_engines_are_full_the_next_stream_is_refused() {
    let only = engine();
    let proxy = Proxy::start_with(&[&only], |config| config.engines[0].max_streams = 2);
    let viewers = open(&proxy, [1, 2]);
    let mut reply = proxy.get(&stream_path(id(3)));
    assert_eq!((reply.status, &reply.json()["error"]), (503, &"at_capacity".into()));
    assert!(reply.header("Retry-After").is_some());
    // A stream that runs has room for everybody.
    open(&proxy, [1]);
    drop(viewers);
    proxy.wait_status("there is room again", |status| status["engines"][0]["streams"] == 0);
    open(&proxy, [3]);
}
