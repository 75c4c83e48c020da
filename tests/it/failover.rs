//! Engines that die, hang and come back, while clients watch; and who starts when many want to.

use std::time::{Duration, Instant};

use acerelay::config::Config;
use acerelay::sim::{Call, Entry, Getstream, Health, Order, PlaybackStep, Script, SimEngine, Steps};

use super::harness::{
    End, ID, INFOHASH, LONG, OTHER_ID, Proxy, SLACK, Viewer, assert_all_stopped, assert_seamed, assert_whole,
    broadcast, engine, engine_of_nine, nth_id, scripted, stream_path, wait_engine,
};

fn recovering(config: &mut Config) {
    config.stream.recover_timeout = LONG;
}

#[test]
fn an_engine_that_is_killed_under_20_clients_costs_them_a_pause() {
    let (first, second) = (engine_of_nine(&Script::new()), engine_of_nine(&Script::new()));
    let proxy = Proxy::start_with(&[&first, &second], |config| {
        recovering(config);
        config.engines[0].forwarded = true;
    });
    let mut viewers: Vec<_> =
        (0..20).map(|number| Viewer::open(proxy.address, nth_id(1 + number % 4))).collect();
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    assert_eq!((first.counts().sessions_open, second.counts().getstreams), (4, 0));
    first.crash().expect("the port is kept");
    let began = Instant::now();
    viewers.iter_mut().for_each(|viewer| viewer.take_seams(1));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let status = proxy.status();
    assert_eq!((&status["total_clients"], &status["active_sessions"]), (&20.into(), &4.into()));
    assert_eq!((&status["engines"][0]["streams"], &status["engines"][1]["streams"]), (&0.into(), &4.into()));
    for viewer in viewers {
        assert_seamed(&viewer.leave(), 1);
    }
    assert_all_stopped(&second, 4);
    assert_eq!(first.counts().readers, 0);
}

#[test]
fn an_engine_that_is_restarted_without_its_sessions_goes_on() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewers = [ID, ID, OTHER_ID].map(|id| Viewer::open(proxy.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    engine.crash().expect("the port is kept");
    proxy.wait_status("it counts as down", |status| status["engines"][0]["healthy"] == false);
    engine.accept().expect("the port is there");
    viewers.iter_mut().for_each(|viewer| viewer.take_seams(1));
    for viewer in viewers {
        assert_seamed(&viewer.leave(), 1);
    }
    proxy.wait_gone(ID);
    proxy.wait_gone(OTHER_ID);
    let counts = engine.counts();
    assert_eq!((counts.sessions_lost, counts.sessions_open, counts.sessions_opened), (2, 0, 4), "{counts:?}");
    assert_eq!(counts.sessions_stopped, 2);
}

#[test]
fn an_engine_that_hangs_loses_its_silent_streams_to_another() {
    let (hanging, well) = (engine(), engine());
    let proxy = Proxy::start_with(&[&hanging, &well], |config| {
        recovering(config);
        config.engines[0].forwarded = true;
        config.health.timeout = Duration::from_millis(300);
        config.health.failures = 2;
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    hanging.set_health(Health::Hangs);
    hanging.order(ID, Order::Stall);
    viewer.take_seams(1);
    assert_eq!(proxy.session(ID)["engine_port"], well.addr().port());
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&well, 1);
    // The stop of the lost session goes out beside, once, whether it is answered or not.
    wait_engine(&hanging, "its reader is gone", |counts| counts.readers == 0);
    proxy.wait_gone(ID);
    let stops = hanging.requests().iter().filter(|request| request.param("method") == Some("stop")).count();
    assert_eq!(stops, 1);
}

#[test]
fn an_engine_that_is_ill_keeps_the_streams_that_flow() {
    let (ill, well) = (engine(), engine());
    let proxy = Proxy::start_with(&[&ill, &well], |config| {
        recovering(config);
        config.engines[0].forwarded = true;
        config.health.failures = 1;
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    ill.set_health(Health::Fails(500, "ill".to_owned()));
    proxy.wait_status("it counts as down", |status| status["engines"][0]["healthy"] == false);
    // Longer than an ill engine may be silent.
    viewer.take_packets(4800);
    assert_whole(&viewer.leave());
    assert_all_stopped(&ill, 1);
    assert_eq!(well.counts().getstreams, 0);
}

#[test]
fn a_stop_that_hangs_holds_a_recovery_up_for_3_s() {
    let engine = scripted(Script::new().stop(Steps::first(1, Call::Hang)));
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    engine.order(ID, Order::End);
    let began = Instant::now();
    wait_engine(&engine, "it is asked again", |counts| counts.getstreams == 2);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(3) + SLACK, "{took:?}");
    viewer.take_seams(1);
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 2);
}

#[test]
fn a_start_goes_to_the_next_engine_when_the_first_has_just_died() {
    let (dead, well) = (engine(), engine());
    let proxy = Proxy::start_with(&[&dead, &well], |config| {
        config.engines[0].forwarded = true;
        // It is not noticed by asking.
        config.health.interval = LONG;
    });
    proxy.wait_status("both are up", |status| {
        status["engines"].as_array().is_some_and(|engines| engines.iter().all(|one| one["healthy"] == true))
    });
    dead.refuse().expect("the port is kept");
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    assert_whole(&viewer.leave());
    assert_all_stopped(&well, 1);
    assert_eq!(proxy.status()["engines"][0]["healthy"], false);
}

#[test]
fn a_start_that_one_engine_fails_succeeds_on_another_and_so_does_the_next() {
    let fails = Script::new().getstream(Getstream::Error("out of order".to_owned()));
    let (failing, well) = (scripted(fails), engine());
    let proxy = Proxy::start_with(&[&failing, &well], |config| config.engines[0].forwarded = true);
    for id in [ID, OTHER_ID] {
        let mut viewer = Viewer::open(proxy.address, id);
        viewer.take_packets(50);
        assert_whole(&viewer.leave());
    }
    assert_eq!((failing.counts().getstreams, well.counts().getstreams), (1, 2));
}

/// Two engines, the first of which is preferred and has these dead channels beside its live ones.
fn preferred_with_dead(script: &Script, numbers: &[u8]) -> (SimEngine, SimEngine, Proxy) {
    let engines = [(); 2].map(|()| engine_of_nine(&Script::new()));
    for number in numbers {
        engines[0].set_script(nth_id(*number), script.clone());
    }
    let proxy = Proxy::start_with(&[&engines[0], &engines[1]], |config| {
        config.engines[0].forwarded = true;
        config.stream.connect_timeout = Duration::from_secs(4);
    });
    let [first, second] = engines;
    (first, second, proxy)
}

fn plays(proxy: &Proxy, number: u8) {
    let mut viewer = Viewer::open(proxy.address, nth_id(number));
    viewer.take_packets(50);
    assert_whole(&viewer.leave());
}

fn not_there() -> Script {
    Script::new().getstream(Getstream::Error("failed to load content".to_owned()))
}

fn nobody_sends_it() -> Script {
    Script::new().playback(PlaybackStep::entry(Entry::Never))
}

#[test]
fn a_dead_channel_moves_no_live_one_to_another_engine() {
    for dead in [not_there(), nobody_sends_it()] {
        let (first, second, proxy) = preferred_with_dead(&dead, &[1]);
        // The other engine has it.
        plays(&proxy, 1);
        plays(&proxy, 2);
        assert_eq!((first.counts_of(nth_id(2)).playbacks, second.counts().getstreams), (1, 1));
        let told = proxy.status()["engines"][0].clone();
        assert!(told["healthy"] == true && told["last_error"].is_null(), "{told}");
    }
}

#[test]
fn a_channel_that_one_engine_does_not_find_is_asked_for_on_another_at_once() {
    let (first, second, proxy) = preferred_with_dead(&not_there(), &[1]);
    plays(&proxy, 1);
    assert_eq!((first.counts_of(nth_id(1)).getstreams, second.counts_of(nth_id(1)).playbacks), (1, 1));
    // And there at first the next time.
    proxy.wait_gone(nth_id(1));
    plays(&proxy, 1);
    assert_eq!((first.counts_of(nth_id(1)).getstreams, second.counts_of(nth_id(1)).playbacks), (1, 2));
}

#[test]
fn a_channel_that_no_engine_finds_is_refused_with_what_was_tried() {
    let (first, second, proxy) = preferred_with_dead(&not_there(), &[1]);
    second.set_script(nth_id(1), not_there());
    let mut reply = proxy.get(&stream_path(nth_id(1)));
    let detail = reply.json()["detail"].as_str().expect("a sentence").to_owned();
    assert_eq!(reply.status, 502, "{detail}");
    for engine in [&first, &second] {
        assert!(
            detail.contains(&format!("{}: the engine says: failed to load content", engine.addr())),
            "{detail}"
        );
        // Under either name.
        assert_eq!(engine.counts().getstreams, 2);
    }
    // Remembered, as long as no other engine can be asked.
    assert_eq!(proxy.get(&stream_path(nth_id(1))).status, 502);
    assert_eq!((first.counts().getstreams, second.counts().getstreams), (2, 2));
}

#[test]
fn an_engine_that_finds_nothing_of_several_stands_behind_the_others() {
    for dead in [not_there(), nobody_sends_it()] {
        let (first, second, proxy) = preferred_with_dead(&dead, &[1, 2]);
        for number in [1, 2] {
            plays(&proxy, number);
            proxy.wait_gone(nth_id(number));
        }
        plays(&proxy, 3);
        assert_eq!((first.counts_of(nth_id(3)).getstreams, second.counts_of(nth_id(3)).playbacks), (0, 1));
        // It may have lost its network, or these channels are dead: nobody is told that it is broken.
        assert!(proxy.status()["engines"][0]["last_error"].is_null());
    }
}

#[test]
fn the_only_engine_takes_the_next_channel_however_many_failed() {
    let engine = engine_of_nine(&Script::new().getstream(Getstream::Status(500, "out of order".to_owned())));
    engine.set_script(nth_id(4), Script::new());
    let proxy = Proxy::start(&[&engine]);
    for number in 1..=3 {
        assert_eq!(proxy.get(&stream_path(nth_id(number))).status, 502);
    }
    plays(&proxy, 4);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_start_that_somebody_ended_is_not_held_against_its_engine() {
    let (first, second, proxy) = preferred_with_dead(&nobody_sends_it(), &[1]);
    let waiting = proxy.ask(nth_id(1));
    wait_engine(&first, "it is asked to play", |counts| counts.playback_requests == 1);
    let mut connection = proxy.connect();
    connection.send_request("DELETE", &format!("/proxy/sessions/{}", nth_id(1)), "");
    assert_eq!(connection.reply().status, 204);
    assert_eq!(waiting.reply().status, 404);
    proxy.wait_gone(nth_id(1));
    // Neither this channel nor another is looked for elsewhere.
    for number in [1, 2] {
        first.set_script(nth_id(number), Script::new());
        plays(&proxy, number);
    }
    assert_eq!((first.counts().playbacks, second.counts().getstreams), (2, 0));
    assert!(proxy.status()["engines"][0]["last_error"].is_null());
}

#[test]
fn more_starts_than_an_engine_may_have_wait_their_turn() {
    let engine = engine_of_nine(&Script::new().getstream(Getstream::Slow(Duration::from_millis(400))));
    let proxy = Proxy::start_with(&[&engine], |config| config.engines[0].max_starts = 2);
    let waiting: Vec<_> = (1..=6).map(|number| proxy.ask(nth_id(number))).collect();
    for connection in waiting {
        Viewer::of(connection.reply()).take_packets(1);
    }
    assert_eq!(engine.counts().getstreams_max, 2);
    assert_all_stopped(&engine, 6);
}

#[test]
fn dead_channels_hold_up_nobody_for_longer_than_2_s() {
    let engine = engine_of_nine(&Script::new().getstream(Getstream::Hang));
    engine.add(broadcast(ID, INFOHASH));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.engines[0].max_starts = 2;
        config.stream.connect_timeout = Duration::from_secs(6);
    });
    let dead: Vec<_> = (1..=2).map(|number| proxy.ask(nth_id(number))).collect();
    wait_engine(&engine, "they are asked for", |counts| counts.getstreams_now == 2);
    let began = Instant::now();
    let mut viewer = Viewer::open(proxy.address, ID);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    viewer.take_packets(50);
    assert_whole(&viewer.leave());
    for connection in dead {
        assert_eq!(connection.reply().status, 504);
    }
}

#[test]
fn who_does_not_get_a_turn_in_time_is_told_that_the_engines_are_busy() {
    let engine = engine_of_nine(&Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.engines[0].max_starts = 1;
        config.stream.connect_timeout = Duration::from_millis(1500);
    });
    let first = proxy.ask(nth_id(1));
    wait_engine(&engine, "it is asked", |counts| counts.playback_requests == 1);
    let mut second = proxy.ask(nth_id(2)).reply();
    // Either its own deadline or that of its turn comes first; both are the truth.
    assert!([503, 504].contains(&second.status), "{}", second.text());
    assert_eq!(first.reply().status, 504);
}

#[test]
fn a_stream_whose_only_engine_dies_for_good_ends_in_time() {
    let engine = engine();
    let limit = Duration::from_secs(2);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = limit);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    engine.crash().expect("the port is kept");
    let began = Instant::now();
    let (_, end) = viewer.finish();
    let took = began.elapsed();
    assert_eq!(end, End::Closed);
    assert!(took >= limit && took < limit + SLACK, "{took:?}");
    proxy.wait_gone(ID);
    assert!(proxy.session(ID)["error"].as_str().is_some_and(|error| error.contains("within 2.0 s")));
}
