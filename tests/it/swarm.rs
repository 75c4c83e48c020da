//! What the engine's word on its sessions is good for, and that a bad word hurts nothing.

use std::time::{Duration, Instant};

use acerelay::sim::{Call, Entry, Order, PlaybackStep, Script};

use super::harness::{
    Bystander, ID, INFOHASH, OTHER_ID, OTHER_INFOHASH, Proxy, Viewer, assert_whole, broadcast, empty_engine,
    engine, scripted, stream_path, wait_engine,
};

const LIMIT: Duration = Duration::from_secs(1);

#[test]
fn the_swarm_is_told_as_soon_as_a_stream_is_active_and_again_every_3_s() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let began = Instant::now();
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    let session = proxy.wait_session(ID, "its swarm is known", |session| session["swarm"]["status"] == "dl");
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    let swarm = &session["swarm"];
    assert_eq!((&swarm["peers"], &swarm["speed_up_kbps"]), (&5.into(), &7.into()), "{swarm}");
    let downloaded = swarm["downloaded"].as_u64().expect("a number");
    assert!(downloaded > 0 && swarm["uploaded"].is_u64() && swarm["speed_down_kbps"].is_u64(), "{swarm}");
    viewer.take_packets(4500);
    let swarm = proxy.session(ID)["swarm"].clone();
    assert!(swarm["downloaded"].as_u64() > Some(downloaded), "{swarm}");
    let asked: Vec<_> =
        engine.requests().into_iter().filter(|request| request.path.starts_with("/ace/stat/")).collect();
    assert!((2..=6).contains(&asked.len()), "{}", asked.len());
    for request in &asked {
        assert_eq!(request.param("skip_player_activity"), Some("1"));
    }
    assert_whole(&viewer.leave());
    proxy.wait_gone(ID);
    assert!(proxy.session(ID)["swarm"].is_null());
}

#[test]
fn a_stream_that_has_ended_is_not_asked_about_any_more() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    assert_whole(&viewer.leave());
    proxy.wait_gone(ID);
    let asked = engine.counts_of(ID).stats;
    // It is still listed; the other stream goes on being asked about.
    let mut other = Viewer::open(proxy.address, OTHER_ID);
    while engine.counts_of(OTHER_ID).stats < 3 {
        other.take_packets(100);
    }
    assert_eq!(engine.counts_of(ID).stats, asked);
}

#[test]
fn no_answer_to_stat_is_bad_enough_to_hurt_a_stream() {
    let answers = [
        Call::Hang,
        Call::Reset,
        Call::Text("<html>".to_owned()),
        Call::Status(404, "no".to_owned()),
        Call::Status(500, String::new()),
        Call::Error("something else".to_owned()),
    ];
    let engine = empty_engine();
    let id = |number: usize| acerelay::id::Digest::new([number as u8 + 1; 20]);
    for (number, answer) in answers.iter().enumerate() {
        let infohash = acerelay::id::Digest::new([number as u8 + 0x81; 20]);
        engine.add(broadcast(id(number), infohash).script(Script::new().stat(answer.clone())));
    }
    engine.add(broadcast(OTHER_ID, OTHER_INFOHASH));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LIMIT);
    let mut viewers: Vec<_> =
        (0..answers.len()).map(|number| Viewer::open(proxy.address, id(number))).collect();
    let bystander = Bystander::watch(&proxy);
    // The others are asked about all the same, though one of them hangs every time.
    proxy.wait_session(OTHER_ID, "its swarm is known", |session| session["swarm"]["status"] == "dl");
    while engine.counts_of(OTHER_ID).stats < 2 {
        viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    }
    for (number, viewer) in viewers.into_iter().enumerate() {
        assert_whole(&viewer.leave());
        assert!(proxy.session(id(number))["swarm"].is_null(), "{:?}", answers[number]);
    }
    let status = proxy.status();
    assert_eq!(status["engines"][0]["healthy"], true);
    bystander.assert_undisturbed();
}

#[track_caller]
fn refusal(script: Script, change: fn(&mut acerelay::config::Config)) -> String {
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], change);
    let mut reply = proxy.get(&stream_path(ID));
    assert_eq!(reply.status, 504);
    reply.json()["detail"].as_str().expect("a sentence").to_owned()
}

#[test]
fn a_start_that_finds_nobody_to_load_from_says_so() {
    let script = || Script::new().stat(Call::Prebuffering);
    let never = script().playback(PlaybackStep::entry(Entry::Never));
    // The first word on a session that was just created is empty, the next one comes a second later.
    let detail = refusal(never, |config| config.stream.connect_timeout = 2 * LIMIT);
    assert_eq!(detail, "the engine did not begin to play within 2.0 s; it has found no peers");
    let never = script().playback(PlaybackStep::never_a_byte());
    let detail = refusal(never, |config| config.stream.first_data_timeout = 2 * LIMIT);
    assert_eq!(detail, "the engine answered but sent no picture within 2.0 s; it has found no peers");
}

#[test]
fn a_start_that_has_peers_but_no_picture_says_so() {
    let never = Script::new().playback(PlaybackStep::never_a_byte());
    let detail = refusal(never, |config| config.stream.first_data_timeout = 2 * LIMIT);
    assert_eq!(
        detail,
        "the engine answered but sent no picture within 2.0 s; it has 5 peers, which is not enough"
    );
}

#[test]
fn a_start_whose_engine_says_nothing_of_its_swarm_is_told_plainly() {
    let never = Script::new().playback(PlaybackStep::never_a_byte()).stat(Call::Hang);
    let detail = refusal(never, |config| config.stream.first_data_timeout = LIMIT);
    assert_eq!(detail, "the engine answered but sent no picture within 1.0 s");
}

#[test]
fn a_stream_that_falls_silent_says_what_its_engine_knew() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.stall_timeout = LIMIT);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    proxy.wait_session(ID, "its swarm is known", |session| session["swarm"]["peers"] == 5);
    assert_eq!(engine.order(INFOHASH, Order::Stall), 1);
    drop(viewer.finish());
    proxy.wait_gone(ID);
    let error = proxy.session(ID)["error"].as_str().expect("an error").to_owned();
    assert!(error.starts_with("the engine sent nothing for "), "{error}");
    assert!(error.ends_with("; it has 5 peers, which is not enough"), "{error}");
    wait_engine(&engine, "it is stopped", |counts| counts.sessions_open == 0);
}
