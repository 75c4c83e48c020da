//! A relay whose engine is another relay: what one does, a row of them does, and none stands behind itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use acerelay::config::{self, Config};
use acerelay::id::Digest;
use acerelay::sim::{Content, Delivery, Media, Numbered, Order, SimEngine};
use serde_json::Value;

use super::harness::{
    ID, INFOHASH, LONG, Proxy, Running, Viewer, assert_all_stopped, assert_seamed, assert_whole, engine,
    engine_with, in_parallel, settings, stream_path,
};

/// Has these relays for its engines.
fn behind(config: &mut Config, inner: &[SocketAddr]) {
    config.engines =
        inner.iter().map(|address| config::Engine::at(address.ip().into(), address.port())).collect();
}

/// A row of relays, the last of which has this engine.
fn row(engine: &SimEngine, count: usize, change: impl Fn(&mut Config)) -> Vec<Proxy> {
    let mut row = vec![Proxy::start_with(&[engine], &change)];
    for _ in 1..count {
        let inner = row[row.len() - 1].address;
        row.push(Proxy::start_with(&[], |config| {
            change(config);
            behind(config, &[inner]);
        }));
    }
    row.reverse();
    row
}

fn recovering(config: &mut Config) {
    config.stream.recover_timeout = LONG;
}

#[test]
fn a_row_of_relays_shares_one_session_and_tells_the_swarm() {
    let engine = engine();
    let row = row(&engine, 3, |_| {});
    let outer = &row[0];
    outer.wait_status("its engine is up", |status| status["engines"][0]["healthy"] == true);
    let mut viewers = [ID, ID].map(|id| Viewer::open(outer.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(300));
    let session = outer
        .wait_session(ID, "the swarm is known", |session| session["swarm"]["downloaded"].as_u64() > Some(0));
    assert_eq!((&session["swarm"]["peers"], &session["swarm"]["speed_up_kbps"]), (&5.into(), &7.into()));
    assert_eq!((&session["infohash"], &session["is_live"]), (&INFOHASH.to_string().into(), &true.into()));
    for inner in &row[1..] {
        let session = inner.session(ID);
        assert_eq!(
            (&session["client_count"], &session["waiting_count"]),
            (&1.into(), &0.into()),
            "{session}"
        );
    }
    viewers.into_iter().for_each(|viewer| assert_whole(&viewer.leave()));
    // The stop goes through all of them.
    assert_all_stopped(&engine, 1);
    row.iter().for_each(|relay| relay.wait_gone(ID));
}

#[test]
fn what_the_engine_does_not_have_fails_with_its_words() {
    let engine = engine();
    let row = row(&engine, 2, |_| {});
    let mut refused = row[0].get(&stream_path(Digest::new([9; 20])));
    let told = refused.json();
    assert_eq!((refused.status, &told["error"]), (502, &"engine_error".into()));
    let detail = told["detail"].as_str().expect("a sentence");
    assert!(detail.contains("the engine says: failed to load content"), "{detail}");
    // Its other name is tried where it is known, and here alone nothing is.
    assert_eq!(row[1].app().streams().leases().count(), 0);
}

#[test]
fn viewers_stay_when_the_source_is_lost_behind_the_inner_relay() {
    let engine = engine();
    let row = row(&engine, 2, recovering);
    let mut viewer = Viewer::open(row[0].address, ID);
    viewer.take_packets(300);
    assert_eq!(engine.order(ID, Order::Reset), 1);
    viewer.take_seams(1);
    assert_seamed(&viewer.leave(), 1);
    assert_eq!(
        (row[0].session(ID)["restarts"].as_u64(), row[1].session(ID)["restarts"].as_u64()),
        (Some(0), Some(1))
    );
}

#[test]
fn viewers_stay_when_one_of_two_inner_relays_dies() {
    let engine = engine();
    let mut inner = vec![Proxy::start(&[&engine]), Proxy::start(&[&engine])];
    let addresses: Vec<_> = inner.iter().map(|relay| relay.address).collect();
    let outer = Proxy::start_with(&[], |config| {
        recovering(config);
        behind(config, &addresses);
    });
    let mut viewer = Viewer::open(outer.address, ID);
    viewer.take_packets(300);
    let port = outer.session(ID)["engine_port"].as_u64();
    let at =
        addresses.iter().position(|address| Some(u64::from(address.port())) == port).expect("one of them");
    inner.remove(at).shutdown();
    viewer.take_seams(1);
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn an_inner_relay_without_an_engine_is_no_engine() {
    let engine = engine();
    let row = row(&engine, 2, |_| {});
    row[0].wait_status("its engine is up", |status| status["engines"][0]["healthy"] == true);
    engine.crash().expect("it ends");
    let down = row[0].wait_status("its engine is down", |status| status["engines"][0]["healthy"] == false);
    let why = down["engines"][0]["last_error"].as_str().expect("a reason");
    assert!(why.contains("playlist"), "{why}");
    assert_eq!(row[0].get("/readyz").status, 503);
}

/// Gives these relays to a relay that runs already for its engines.
fn put_behind(outer: &Proxy, inner: &[SocketAddr]) {
    let mut config = settings(&[]);
    config.server.listen = outer.address;
    behind(&mut config, inner);
    outer.app().reload(config);
}

#[track_caller]
fn assert_circle_is_refused(relays: &[Proxy]) {
    let is_refused = |status: &Value| {
        let engine = &status["engines"][0];
        let told = engine["last_error"].as_str().unwrap_or_default();
        engine["healthy"] == false && (told.contains("is its own engine") || told.contains("playlist"))
    };
    for relay in relays {
        relay.wait_status("it is not its own engine", is_refused);
        let mut refused = relay.get(&stream_path(ID));
        let told = refused.json();
        // What has just failed is remembered for a moment.
        let is_remembered = refused.status == 502
            && told["detail"].as_str().is_some_and(|why| why.contains("its own engine"));
        assert!(is_remembered || refused.status == 503 && told["error"] == "no_engine", "{told}");
    }
    let all: Vec<_> =
        relays.iter().map(|relay| relay.status()["engines"][0]["last_error"].to_string()).collect();
    assert!(all.iter().any(|told| told.contains("is its own engine")), "{all:?}");
}

#[test]
fn a_relay_that_is_its_own_engine_is_told_so() {
    let relay = Proxy::start(&[]);
    put_behind(&relay, &[relay.address]);
    // Before any check of its health, too.
    let mut refused = relay.get(&stream_path(ID));
    assert!(refused.status >= 502, "{}", refused.text());
    assert_circle_is_refused(&[relay]);
}

#[test]
fn a_circle_of_relays_is_told_so() {
    for length in [2, 3] {
        let relays: Vec<_> = (0..length).map(|_| Proxy::start(&[])).collect();
        for (at, relay) in relays.iter().enumerate() {
            put_behind(relay, &[relays[(at + 1) % length].address]);
        }
        assert_circle_is_refused(&relays);
    }
}

/// Many at once, by two outer relays: still one session.
#[test]
fn a_rush_through_two_relays_is_one_session() {
    let engine = engine();
    let inner = Proxy::start(&[&engine]);
    let outer = [(); 2].map(|()| Proxy::start_with(&[], |config| behind(config, &[inner.address])));
    let addresses = [outer[0].address, outer[1].address];
    let reports = in_parallel(20, move |number| {
        let mut viewer = Viewer::open(addresses[number % 2], ID);
        viewer.take_packets(300);
        viewer.leave()
    });
    reports.iter().for_each(assert_whole);
    drop(outer);
    inner.wait_session(ID, "both have left", |session| session["client_count"] == 0);
    assert_all_stopped(&engine, 1);
}

/// What a tier costs, in processor time and in time. To be asked for:
/// `cargo test --release --test it relays::what_a_tier_costs -- --ignored --nocapture`
#[test]
#[ignore = "measures for a minute"]
fn what_a_tier_costs() {
    const MEASURED: Duration = Duration::from_secs(10);
    // Whole packets in a write: a packet cut in two would count as late.
    let delivery = Delivery { skip_bytes: 0, write_bytes: vec![7 * 188], ..Delivery::default() };
    let media = || Media::Numbered(Numbered::at_rate(8_000_000));
    let engine = engine_with(Content::live(ID, INFOHASH, media()).delivery(delivery));
    for tiers in 1..=4 {
        let mut row: Vec<Running> = Vec::new();
        for _ in 0..tiers {
            let inner = row.last().map_or(engine.addr(), |relay| relay.address);
            row.push(Running::start(&["--engine", &inner.to_string()]));
        }
        let outer = &row[row.len() - 1];
        let began = Instant::now();
        let mut viewer = Viewer::open(outer.address, ID);
        let started = began.elapsed();
        // The backlog of a joiner is older; what comes later is live.
        viewer.take_packets(20_000);
        let report = viewer.leave();
        assert_whole(&report);
        let mut viewer = Viewer::open(outer.address, ID);
        viewer.take_packets(10_000);
        let before = viewer.report().latency.clone();
        let cpu: Vec<_> = row.iter().map(Running::cpu_seconds).collect();
        let began = Instant::now();
        while began.elapsed() < MEASURED {
            viewer.take_packets(500);
        }
        let seconds = began.elapsed().as_secs_f64();
        let cpu: Vec<_> = row.iter().zip(cpu).map(|(relay, before)| relay.cpu_seconds() - before).collect();
        let latency = &viewer.report().latency;
        let packets = (latency.count - before.count) as f64;
        let per_tier: Vec<_> =
            cpu.iter().map(|cpu| format!("{:.2}", cpu / (packets * 188.0 / 1e9))).collect();
        println!(
            "{tiers} tiers: start {started:.1?}, packets under way {:.1?} at the median, CPU s/GB from the engine on {} at {:.1} Mbit/s",
            latency.quantile(0.5),
            per_tier.join(" "),
            packets * 188.0 * 8.0 / 1e6 / seconds,
        );
    }
}
