//! A start and a recovery that no engine can fool, with the settings as they are shipped: whoever asks gets a picture if any
//! engine in the house can give one, and keeps it.
//!
//! What engines have been seen to do, and which test does it:
//!
//! | an engine | tests |
//! |---|---|
//! | answers 200 and then nothing: the content is stuck there | `a_content_that_is_stuck_on_one_engine_starts_on_the_other`, `a_content_that_gets_stuck_is_brought_back_by_the_other_engine`, `the_only_engine_is_asked_to_begin_anew_when_it_is_stuck` |
//! | lacks the pages that are asked for its health | `dialects::an_independent_engine_plays_and_is_up_through_many_checks_and_a_lost_session`, `health::an_engine_is_well_whatever_pages_it_lacks` |
//! | freezes | `an_engine_that_freezes_costs_15_seconds`, `an_engine_that_freezes_after_a_recovery_costs_15_seconds_too`, `an_engine_that_is_frozen_from_the_start_costs_15_seconds`, `a_getstream_at_an_engine_that_freezes_is_answered_when_it_wakes_and_its_session_stopped` |
//! | is killed | `an_engine_that_is_killed_costs_3_seconds` |
//! | accepts and closes | `an_engine_that_accepts_and_closes_is_noticed_by_no_client`, `health::a_port_that_accepts_and_closes_has_nobody_behind_it` |
//! | comes back | `an_engine_that_comes_back_after_9_seconds_brings_the_picture_within_3`, `a_newcomer_one_second_after_the_return_of_an_engine_gets_a_stream`, `an_engine_that_comes_back_and_does_not_know_of_a_getstream_is_asked_anew`, `health::one_check_serves_all_who_find_no_engine` |
//! | says late that it has not this content | `a_content_that_is_unknown_at_one_engine_is_told_late_and_held_against_nobody` |
//! | dies between getstream and playback, or is out of order | `an_engine_that_dies_between_getstream_and_playback_costs_nobody_a_stream`, `whatever_is_an_engine_s_own_trouble_is_tried_elsewhere` |
//! | forgets its session before it plays | `a_forgotten_session_is_not_held_against_the_next`, `a_playback_that_hangs_while_its_session_is_unknown_is_opened_anew` |
//! | speaks of sessions in other words | `dialects`, `engine::error::tests::every_wording_of_a_lost_session_is_one` |
//! | repeats its live buffer after failed attempts | `replays`; and an encoder that begins anew, `replays::an_encoder_that_begins_anew_behind_a_loss_costs_no_five_seconds` |
//! | looks long for a content that is zapped over | `zapping_does_not_fill_an_engine`, `life::who_comes_back_while_getstream_is_in_flight_joins_it` |
//! | has a name that nobody knows, or DNS is slow | `health::an_engine_whose_name_nobody_knows_is_nobody_and_the_next_one_plays`, `engine::host::tests`, `health::a_call_starts_no_thread` |
//! | knows `sid` alone | `dialects::two_channels_on_an_engine_that_knows_sid_alone_do_not_end_each_other` |
//! | plays an HLS list | `hls_source` |
//! | does any of this at any time, and another is well | `always_one`, `soak` |
//!
//! What the log says of it all is held by `log_lines`.

use std::time::{Duration, Instant};

use acerelay::config::{self, Config};
use acerelay::sim::{
    Call, CallKind, Getstream, Health, Order, PlaybackStep, Script, SimEngine, Steps, Stuck,
};

use super::harness::{
    ID, LONG, Proxy, SLACK, Viewer, assert_all_stopped, assert_seamed, assert_whole, engine, engine_of_nine,
    in_parallel, nth_id, pause, scripted, stream_path, wait_engine,
};

/// A proxy as it is shipped but for its port, before these engines, the first of which is preferred.
fn shipped(engines: &[&SimEngine], change: impl FnOnce(&mut Config)) -> Proxy {
    Proxy::start_with(engines, |config| {
        let Config { server, mut engines, .. } = config.clone();
        engines[0].forwarded = engines.len() > 1;
        let server = config::Server { listen: server.listen, ..config::Server::default() };
        *config = Config { server, engines, ..Config::default() };
        change(config);
    })
}

/// Opens a stream within this time, and gives its viewer.
#[track_caller]
fn open_within(proxy: &Proxy, limit: Duration) -> Viewer {
    let began = Instant::now();
    let mut viewer = Viewer::open(proxy.address, ID);
    let took = began.elapsed();
    assert!(took < limit, "{took:?}");
    viewer.take_packets(100);
    viewer
}

/// Takes packets until the source was found again, which takes so long at most.
#[track_caller]
fn seam_within(viewer: &mut Viewer, limit: Duration) {
    let began = Instant::now();
    viewer.take_seams(1);
    let took = began.elapsed();
    assert!(took < limit, "{took:?}");
}

fn is_on(proxy: &Proxy, engine: &SimEngine) -> bool {
    proxy.session(ID)["engine_port"] == engine.addr().port()
}

#[test]
fn a_content_that_is_stuck_on_one_engine_starts_on_the_other() {
    let (stuck, well) = (engine(), engine());
    stuck.stick(ID, Stuck::until_quiet(Duration::MAX));
    let proxy = shipped(&[&stuck, &well], |_| {});
    let viewer = open_within(&proxy, Duration::from_secs(15));
    assert!(is_on(&proxy, &well));
    // A dead link is no fault of the engine.
    let told = proxy.status()["engines"][0].clone();
    assert!(told["healthy"] == true && told["last_error"].is_null(), "{told}");
    assert_whole(&viewer.leave());
    // What it had opened there was stopped.
    wait_engine(&stuck, "its session is stopped", |counts| counts.sessions_open == 0 && counts.stops == 1);
}

#[test]
fn a_content_that_gets_stuck_is_brought_back_by_the_other_engine() {
    let (stuck, well) = (engine(), engine());
    let stall = Duration::from_secs(6);
    let proxy = shipped(&[&stuck, &well], |config| config.stream.stall_timeout = stall);
    let mut viewer = open_within(&proxy, LONG);
    assert!(is_on(&proxy, &stuck));
    stuck.stick(ID, Stuck::until_quiet(Duration::MAX));
    seam_within(&mut viewer, stall + Duration::from_secs(6));
    assert!(is_on(&proxy, &well));
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn the_only_engine_is_asked_to_begin_anew_when_it_is_stuck() {
    let engine = engine();
    let stall = Duration::from_secs(3);
    let proxy = shipped(&[&engine], |config| {
        config.stream.stall_timeout = stall;
        config.stream.first_data_timeout = Duration::from_secs(4);
    });
    let mut viewer = open_within(&proxy, LONG);
    engine.stick(ID, Stuck::until_restart());
    viewer.take_seams(1);
    let forced =
        engine.requests().iter().filter(|call| call.param("force_session_restart") == Some("1")).count();
    assert_eq!(forced, 1, "not at once: others may watch through this engine");
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn an_engine_that_freezes_costs_15_seconds() {
    let (frozen, well) = (engine(), engine());
    let proxy = shipped(&[&frozen, &well], |_| {});
    let mut viewer = open_within(&proxy, LONG);
    frozen.freeze();
    seam_within(&mut viewer, Duration::from_secs(15));
    assert!(is_on(&proxy, &well));
    // Who comes now is not made to wait for it.
    let second = open_within(&proxy, Duration::from_secs(2));
    frozen.thaw();
    assert_seamed(&viewer.leave(), 1);
    assert_whole(&second.leave());
}

/// What was tried in a recovery that went well says nothing of the next one.
#[test]
fn an_engine_that_freezes_after_a_recovery_costs_15_seconds_too() {
    let (first, frozen) = (engine(), engine());
    let proxy = shipped(&[&first, &frozen], |_| {});
    let mut viewer = open_within(&proxy, LONG);
    first.crash().expect("the port is kept");
    seam_within(&mut viewer, Duration::from_secs(3));
    assert!(is_on(&proxy, &frozen));
    viewer.take_packets(3000);
    first.accept().expect("it listens");
    proxy.wait_status("it is up", |status| status["engines"][0]["healthy"] == true);
    frozen.freeze();
    seam_within(&mut viewer, Duration::from_secs(15));
    assert!(is_on(&proxy, &first));
    frozen.thaw();
    assert_seamed(&viewer.leave(), 2);
}

#[test]
fn an_engine_that_is_frozen_from_the_start_costs_15_seconds() {
    let (frozen, well) = (engine(), engine());
    let proxy = shipped(&[&frozen, &well], |_| {});
    proxy.wait_status("both are up", |status| {
        status["engines"].as_array().is_some_and(|engines| engines.iter().all(|one| one["healthy"] == true))
    });
    frozen.freeze();
    let viewer = open_within(&proxy, Duration::from_secs(15));
    assert!(is_on(&proxy, &well));
    assert_whole(&viewer.leave());
    // What was asked takes effect when it wakes, and is stopped then.
    frozen.thaw();
    wait_engine(&frozen, "nothing is left open", |counts| {
        counts.getstreams_now == 0 && counts.sessions_opened == 1 && counts.sessions_open == 0
    });
    assert_all_stopped(&frozen, 1);
}

/// Only the answer to a getstream tells how its session is stopped, so it is waited for, though not by the player.
#[test]
fn a_getstream_at_an_engine_that_freezes_is_answered_when_it_wakes_and_its_session_stopped() {
    let (frozen, well) =
        (scripted(Script::new().getstream(Getstream::Slow(Duration::from_secs(1)))), engine());
    let proxy = shipped(&[&frozen, &well], |_| {});
    proxy.wait_status("both are up", |status| {
        status["engines"].as_array().is_some_and(|engines| engines.iter().all(|one| one["healthy"] == true))
    });
    let waiting = proxy.ask(ID);
    wait_engine(&frozen, "it is asked", |counts| counts.getstreams_now == 1);
    frozen.freeze();
    let began = Instant::now();
    let mut viewer = Viewer::of(waiting.reply());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(is_on(&proxy, &well));
    viewer.take_packets(100);
    frozen.thaw();
    wait_engine(&frozen, "it has answered", |counts| {
        counts.getstreams_now == 0 && counts.sessions_opened == 1
    });
    assert_all_stopped(&frozen, 1);
    assert_whole(&viewer.leave());
}

#[test]
fn an_engine_that_is_killed_costs_3_seconds() {
    let (killed, well) = (engine(), engine());
    let proxy = shipped(&[&killed, &well], |_| {});
    let mut viewer = open_within(&proxy, LONG);
    killed.crash().expect("the port is kept");
    seam_within(&mut viewer, Duration::from_secs(3));
    assert!(is_on(&proxy, &well));
    assert_seamed(&viewer.leave(), 1);
}

/// What a port forwarder does before an engine that is not there.
#[test]
fn an_engine_that_accepts_and_closes_is_noticed_by_no_client() {
    let (slammed, well) = (engine_of_nine(&Script::new()), engine_of_nine(&Script::new()));
    let proxy = shipped(&[&slammed, &well], |_| {});
    let mut before = Viewer::open(proxy.address, nth_id(1));
    before.take_packets(100);
    slammed.crash().expect("the port is kept");
    slammed.slam().expect("it listens");
    let address = proxy.address;
    in_parallel(8, move |number| {
        let mut viewer = Viewer::open(address, nth_id(2 + number as u8));
        viewer.take_packets(100);
        assert_whole(&viewer.leave());
    });
    seam_within(&mut before, Duration::from_secs(3) + SLACK);
    assert_seamed(&before.leave(), 1);
}

#[test]
fn whatever_is_an_engine_s_own_trouble_is_tried_elsewhere() {
    let status = |code| Getstream::Status(code, "out of order".to_owned());
    for trouble in [
        status(500),
        status(503),
        Getstream::Reset,
        Getstream::Html,
        Getstream::BrokenJson,
        Getstream::EmptyResponse,
        Getstream::NoPlaybackUrl,
        Getstream::Error("failed to load content".to_owned()),
    ] {
        let (ill, well) = (scripted(Script::new().getstream(trouble.clone())), engine());
        let proxy = shipped(&[&ill, &well], |_| {});
        let viewer = open_within(&proxy, Duration::from_secs(5));
        assert!(is_on(&proxy, &well), "{trouble:?}");
        assert_whole(&viewer.leave());
    }
    for kind in [CallKind::Getstream, CallKind::Playback] {
        let (ill, well) = (engine(), engine());
        ill.slam_calls(&[kind]);
        let proxy = shipped(&[&ill, &well], |_| {});
        let viewer = open_within(&proxy, Duration::from_secs(5));
        assert!(is_on(&proxy, &well), "{kind:?}");
        assert_whole(&viewer.leave());
    }
}

#[test]
fn an_engine_that_dies_between_getstream_and_playback_costs_nobody_a_stream() {
    let (dying, well) = (engine(), engine());
    let proxy = shipped(&[&dying, &well], |_| {});
    proxy.wait_status("it is up", |status| status["engines"][0]["healthy"] == true);
    dying.refuse_after_getstream(1);
    let viewer = open_within(&proxy, Duration::from_secs(5));
    assert!(is_on(&proxy, &well));
    assert_whole(&viewer.leave());
    assert_eq!(dying.counts().getstreams, 1);
}

#[test]
fn a_content_that_is_unknown_at_one_engine_is_told_late_and_held_against_nobody() {
    let (without, well) = (scripted(Script::new().playback(PlaybackStep::status(404, ""))), engine());
    let proxy = shipped(&[&without, &well], |config| config.stream.linger = Duration::ZERO);
    let viewer = open_within(&proxy, Duration::from_secs(5));
    assert!(is_on(&proxy, &well));
    assert_whole(&viewer.leave());
    let told = proxy.status()["engines"][0].clone();
    assert!(told["healthy"] == true && told["last_error"].is_null(), "{told}");
    // Where nobody has it, the player is told so at once.
    well.set_script(ID, Script::new().playback(PlaybackStep::status(404, "")));
    proxy.wait_gone(ID);
    let began = Instant::now();
    let mut reply = proxy.get(&stream_path(ID));
    let text = reply.text();
    assert_eq!(reply.status, 502, "{text}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// What an engine says of a session that it has forgotten is not said of the one that followed.
#[test]
fn a_forgotten_session_is_not_held_against_the_next() {
    const UNKNOWN: &str = "unknown playback session id";
    let engine = scripted(
        Script::new()
            .getstream(Steps::each([Getstream::Normal, Getstream::Slow(Duration::from_secs(8))]))
            .playback(Steps::first(1, PlaybackStep::status(403, UNKNOWN)))
            .stat(Steps::first(1, Call::Error(UNKNOWN.to_owned()))),
    );
    let proxy = shipped(&[&engine], |config| config.stream.linger = Duration::ZERO);
    let began = Instant::now();
    let viewer = open_within(&proxy, LONG);
    assert!(began.elapsed() >= Duration::from_secs(8));
    assert_whole(&viewer.leave());
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 2);
}

#[test]
fn a_playback_that_hangs_while_its_session_is_unknown_is_opened_anew() {
    let engine = scripted(Script::new().playback(Steps::first(1, PlaybackStep::never_a_byte())));
    let proxy = shipped(&[&engine], |_| {});
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "it is asked to play", |counts| counts.playback_requests == 1);
    engine.forget_sessions();
    let began = Instant::now();
    let mut viewer = Viewer::of(waiting.reply());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    viewer.take_packets(100);
    assert_whole(&viewer.leave());
}

/// Ten times away and back, while an engine looks for what it cannot find.
#[test]
fn zapping_does_not_fill_an_engine() {
    let late = Getstream::Slow(Duration::from_secs(6));
    let engine = engine_of_nine(&Script::new());
    engine.set_script(nth_id(1), Script::new().getstream(late));
    let proxy = shipped(&[&engine], |config| config.engines[0].max_streams = 3);
    for _ in 0..10 {
        let dead = proxy.ask(nth_id(1));
        // Whoever has only closed its half may still want to play, so one that left may be counted until it is answered.
        proxy.wait_session(nth_id(1), "it is there", |session| session["state"].is_string());
        drop(dead);
        let began = Instant::now();
        let mut viewer = Viewer::open(proxy.address, nth_id(2));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        viewer.take_packets(20);
    }
    assert_eq!(engine.counts_of(nth_id(1)).getstreams, 1, "whoever comes back joins it");
    let mut viewer = Viewer::open(proxy.address, nth_id(1));
    viewer.take_packets(20);
    assert_eq!(engine.counts_of(nth_id(1)).getstreams, 1);
}

#[test]
fn an_engine_that_comes_back_after_9_seconds_brings_the_picture_within_3() {
    let engine = engine();
    let proxy = shipped(&[&engine], |_| {});
    let mut viewer = open_within(&proxy, LONG);
    engine.crash().expect("the port is kept");
    pause(Duration::from_secs(9));
    engine.accept().expect("it listens");
    seam_within(&mut viewer, Duration::from_secs(3));
    assert_seamed(&viewer.leave(), 1);
}

/// As after a power cut: nobody is left who could answer what was asked before.
#[test]
fn an_engine_that_comes_back_and_does_not_know_of_a_getstream_is_asked_anew() {
    let engine = scripted(Script::new().getstream(Steps::each([Getstream::Normal, Getstream::Hang])));
    let proxy = shipped(&[&engine], |config| {
        let second = Duration::from_secs(1);
        config.health = config::Health { interval: second, timeout: second, failures: 2 };
    });
    let mut viewer = open_within(&proxy, LONG);
    engine.order(ID, Order::End);
    wait_engine(&engine, "it is asked anew", |counts| counts.getstreams_now == 1);
    engine.set_health(Health::Hangs);
    proxy.wait_status("it is down", |status| status["engines"][0]["healthy"] == false);
    engine.set_health(Health::Ready);
    seam_within(&mut viewer, Duration::from_secs(12));
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn a_newcomer_one_second_after_the_return_of_an_engine_gets_a_stream() {
    let engine = engine();
    let proxy = shipped(&[&engine], |_| {});
    proxy.wait_status("it is up", |status| status["engines"][0]["healthy"] == true);
    engine.crash().expect("the port is kept");
    assert_eq!(proxy.get(&stream_path(ID)).status, 503);
    proxy.wait_status("it is down", |status| status["engines"][0]["healthy"] == false);
    engine.accept().expect("it listens");
    pause(Duration::from_secs(1));
    let viewer = open_within(&proxy, Duration::from_secs(5));
    assert_whole(&viewer.leave());
}

/// A picture that was there, and an engine that ends it again and again with next to nothing: the other one has it.
#[test]
fn an_engine_that_gives_next_to_nothing_is_left_for_the_other() {
    let barren = Script::new().playback(
        Steps::first(1, PlaybackStep::after(400_000, acerelay::sim::BodyEvent::End))
            .then(PlaybackStep::after(10_000, acerelay::sim::BodyEvent::End)),
    );
    let (ill, well) = (scripted(barren), engine());
    let proxy = shipped(&[&ill, &well], |_| {});
    let mut viewer = open_within(&proxy, LONG);
    proxy.wait_session(ID, "it has gone to the other", |session| {
        session["engine_port"] == well.addr().port() && session["state"] == "active"
    });
    viewer.take_packets(1000);
    assert_eq!(ill.order(ID, Order::Resume), 0, "nobody reads there");
}
