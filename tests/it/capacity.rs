//! What is full, who gives way, and who is told to come back.

use std::time::{Duration, Instant};

use acerelay::sim::{Call, Entry, Getstream, PlaybackStep, Script, SimEngine};

use super::harness::{
    LONG, Proxy, Reply, Viewer, assert_all_stopped, assert_whole, engine_of_nine, nth_id, stream_path,
    wait_engine,
};

fn engine() -> SimEngine {
    engine_of_nine(&Script::new())
}

fn open(proxy: &Proxy, number: u8) -> Viewer {
    let mut viewer = Viewer::open(proxy.address, nth_id(number));
    viewer.take_packets(1);
    viewer
}

/// Opens these streams, one after the other, and leaves them lingering.
fn let_linger(proxy: &Proxy, numbers: impl IntoIterator<Item = u8>) {
    for number in numbers {
        drop(open(proxy, number));
        proxy.wait_session(nth_id(number), "it lingers", |session| session["state"] == "lingering");
    }
}

fn assert_at_capacity(mut reply: Reply, says: &str) {
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (503, &"at_capacity".into()), "{json}");
    assert!(reply.header("Retry-After").is_some_and(|value| value.parse::<u32>().is_ok()));
    assert!(json["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{json}");
}

fn states(proxy: &Proxy, numbers: std::ops::RangeInclusive<u8>) -> Vec<String> {
    let state = |number| proxy.session(nth_id(number))["state"].as_str().expect("a state").to_owned();
    numbers.map(state).collect()
}

#[test]
fn the_stream_that_has_lingered_longest_gives_way_and_only_that_one() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.linger = LONG;
        config.stream.max_streams = 3;
    });
    let_linger(&proxy, 1..=3);
    let fourth = open(&proxy, 4);
    proxy.wait_gone(nth_id(1));
    assert_eq!(states(&proxy, 2..=4), ["lingering", "lingering", "active"]);
    assert_whole(&fourth.leave());
    assert_eq!(engine.counts().stops, 1);
    drop(proxy);
    assert_all_stopped(&engine, 4);
}

#[test]
fn a_stream_that_somebody_watches_never_gives_way() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.linger = LONG;
        config.stream.max_streams = 2;
    });
    let mut viewers = [open(&proxy, 1), open(&proxy, 2)];
    assert_at_capacity(proxy.get(&stream_path(nth_id(3))), "max_streams");
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(300));
    viewers.into_iter().for_each(|viewer| assert_whole(&viewer.leave()));
    drop(proxy);
    assert_all_stopped(&engine, 2);
}

#[test]
fn on_a_full_engine_one_lingering_stream_gives_way_however_slow_its_stop_is() {
    let engine = engine_of_nine(&Script::new().stop(Call::Slow(Duration::from_secs(1))));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.linger = LONG;
        config.engines[0].max_streams = 3;
    });
    let_linger(&proxy, 1..=3);
    let began = Instant::now();
    let fourth = open(&proxy, 4);
    // Its place is free as soon as the stop is on its way.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    proxy.wait_gone(nth_id(1));
    assert_eq!(states(&proxy, 2..=4), ["lingering", "lingering", "active"]);
    assert_eq!(engine.counts().stops, 1);
    assert_whole(&fourth.leave());
    drop(proxy);
    assert_all_stopped(&engine, 4);
}

#[test]
fn a_stream_on_an_engine_that_is_down_gives_way_to_nobody_since_that_would_not_help() {
    let (down, full) = (engine(), engine());
    let proxy = Proxy::start_with(&[&down, &full], |config| {
        config.stream.linger = LONG;
        config.engines[0].forwarded = true;
        config.engines[1].max_streams = 2;
    });
    let_linger(&proxy, [1]);
    down.refuse().expect("the port is kept");
    proxy.wait_status("it is down", |status| status["engines"][0]["healthy"] == false);
    let_linger(&proxy, [2]);
    let watched = [open(&proxy, 3), open(&proxy, 4)];
    proxy.wait_gone(nth_id(2));
    assert_eq!(states(&proxy, 1..=1), ["lingering"]);
    watched.into_iter().for_each(|viewer| assert_whole(&viewer.leave()));
}

#[test]
fn two_that_come_to_a_full_engine_at_once_displace_two() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.linger = LONG;
        config.engines[0].max_streams = 3;
    });
    let_linger(&proxy, 1..=3);
    let waiting = [4, 5].map(|number| proxy.ask(nth_id(number)));
    let mut viewers = waiting.map(|connection| Viewer::of(connection.reply()));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(100));
    proxy.wait_gone(nth_id(1));
    proxy.wait_gone(nth_id(2));
    assert_eq!(states(&proxy, 3..=5), ["lingering", "active", "active"]);
    viewers.into_iter().for_each(|viewer| assert_whole(&viewer.leave()));
    drop(proxy);
    assert_all_stopped(&engine, 5);
}

#[test]
fn a_start_that_everybody_left_gives_way_before_a_stream_that_lingers() {
    let engine = engine();
    engine.set_script(nth_id(2), Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.linger = LONG;
        config.stream.max_streams = 2;
    });
    let_linger(&proxy, [1]);
    let dead = proxy.ask(nth_id(2));
    assert!(engine.wait_for_content(nth_id(2), LONG, |counts| counts.playback_requests == 1));
    drop(dead);
    proxy.wait_session(nth_id(2), "nobody waits", |session| session["waiting_count"] == 0);
    let third = open(&proxy, 3);
    proxy.wait_gone(nth_id(2));
    assert_eq!(states(&proxy, 1..=1), ["lingering"]);
    assert_whole(&third.leave());
    drop(proxy);
    assert_all_stopped(&engine, 3);
}

#[test]
fn who_zaps_on_a_full_engine_is_served() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.linger = LONG;
        config.engines[0].max_streams = 1;
    });
    for number in 1..=6 {
        let mut viewer = Viewer::open(proxy.address, nth_id(number));
        viewer.take_packets(20);
        assert_whole(&viewer.leave());
    }
    drop(proxy);
    assert_all_stopped(&engine, 6);
}

#[test]
fn a_full_engine_is_told_after_a_moment() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.engines[0].max_streams = 1);
    let _viewer = open(&proxy, 1);
    let began = Instant::now();
    assert_at_capacity(proxy.get(&stream_path(nth_id(2))), "as many streams");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // It is not remembered as a failure of the channel.
    drop(_viewer);
    proxy.wait_status("there is room", |status| status["engines"][0]["streams"] == 0);
    open(&proxy, 2);
}

#[test]
fn a_place_that_a_start_has_reserved_is_taken() {
    let engine = engine_of_nine(&Script::new().getstream(Getstream::Slow(Duration::from_secs(3))));
    let proxy = Proxy::start_with(&[&engine], |config| config.engines[0].max_streams = 1);
    let first = proxy.ask(nth_id(1));
    wait_engine(&engine, "it is asked", |counts| counts.getstreams_now == 1);
    assert_at_capacity(proxy.get(&stream_path(nth_id(2))), "as many streams");
    Viewer::of(first.reply()).take_packets(1);
    assert_all_stopped(&engine, 1);
}
