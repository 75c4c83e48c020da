//! What an engine repeats of its live buffer does not reach the clients a second time, however the source came back.

use std::time::{Duration, Instant};

use acerelay::sim::{
    BodyEvent, Burst, Content, Delivery, Getstream, Media, Numbered, Order, PlaybackStep, Restart, Script,
    Steps,
};

use super::harness::{
    ID, INFOHASH, LONG, Proxy, Viewer, assert_all_stopped, assert_seamed, engine, engine_with,
};

/// A broadcast of 2 Mbit/s of which every reader gets ten seconds at once; lost for its first reader after eight of them.
fn broadcast_lost_at_8_s(script: Script) -> Content {
    let media = Media::Numbered(Numbered::at_rate(2_000_000));
    let delivery = Delivery { burst: Burst::Time(Duration::from_secs(10)), ..Delivery::default() };
    let lost = PlaybackStep::after(2_000_000, BodyEvent::End);
    Content::live(ID, INFOHASH, media).delivery(delivery).script(script.playback(Steps::each([lost])))
}

#[track_caller]
fn check_nothing_comes_twice(script: Script, sessions: u64) {
    let engine = engine_with(broadcast_lost_at_8_s(script));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(1);
    viewer.take_packets(3000);
    let report = viewer.leave();
    assert_eq!(report.doubles, 0, "{report:?}");
    assert_seamed(&report, 1);
    assert_all_stopped(&engine, sessions);
}

#[test]
fn a_replay_after_a_loss_is_left_out() {
    check_nothing_comes_twice(Script::new(), 2);
}

#[test]
fn a_replay_after_attempts_that_failed_is_left_out() {
    let refused = || Getstream::Error("not now".to_owned());
    let script = Script::new().getstream(Steps::each([Getstream::Normal, refused(), refused()]));
    check_nothing_comes_twice(script, 2);
}

#[test]
fn a_replay_after_an_attempt_without_packets_is_left_out() {
    let lost = PlaybackStep::after(2_000_000, BodyEvent::End);
    let barren = PlaybackStep::after(0, BodyEvent::End);
    let content = broadcast_lost_at_8_s(Script::new());
    let script = Script::new().playback(Steps::each([lost, barren]));
    let engine = engine_with(content.script(script));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(1);
    viewer.take_packets(3000);
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 3);
}

/// The clock of an encoder that was restarted lies behind all that was published, as that of a replay does, but nothing else
/// of it was there before: nobody looks five seconds for where it goes on.
#[test]
fn an_encoder_that_begins_anew_behind_a_loss_costs_no_five_seconds() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(4000);
    engine.restart_broadcast(ID, Restart::after(Duration::ZERO));
    engine.order(ID, Order::End);
    let began = Instant::now();
    viewer.take_seams(1);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let report = viewer.leave();
    assert_eq!((report.doubles, report.damaged, report.restarts), (0, 0, 1), "{report:?}");
    assert_all_stopped(&engine, 2);
}

/// Within one open body nothing is lost at all.
#[test]
fn a_broadcaster_that_begins_anew_after_a_second_is_no_loss() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(2000);
    engine.restart_broadcast(ID, Restart::after(Duration::from_secs(1)));
    viewer.take_until("a restart", |report| report.restarts == 1);
    viewer.take_packets(2000);
    let report = viewer.leave();
    assert_eq!((report.doubles, report.damaged, report.gap_count), (0, 0, 0), "{report:?}");
    assert_eq!(proxy.session(ID)["restarts"], 0);
}
