//! How long a silent source is waited for: longer than usual if its engine loads meanwhile, but not for ever.
//!
//! The engine is asked about a session every 3 s, and what it loaded counts from its second word within the silence on. So
//! the limits here are longer than in other tests.

use std::time::{Duration, Instant};

use acerelay::sim::{BodyEvent, Call, Fill, PlaybackStep, Script, SimEngine, Steps};

use super::harness::{
    ID, LONG, Proxy, SLACK, Viewer, assert_all_stopped, assert_seamed, assert_whole, scripted, wait_engine,
};

/// A source that is silent for so long counts as lost ...
const STALL: Duration = Duration::from_secs(8);

/// ... unless its engine loads: these come back only after that.
const SILENCE: Duration = Duration::from_secs(14);

const BEFORE_BYTES: u64 = 400_000;

/// An engine that falls silent in this way while it fills its buffer like this, and a client of it.
fn silent(event: BodyEvent, fill: Fill, recover: Duration) -> (SimEngine, Proxy, Viewer, Instant) {
    let playback = Steps::first(1, PlaybackStep::after(BEFORE_BYTES, event));
    let engine = scripted(Script::new().playback(playback).stat(Call::Filling(fill)));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.stall_timeout = STALL;
        config.stream.recover_timeout = recover;
    });
    let viewer = Viewer::open(proxy.address, ID);
    wait_engine(&engine, "it falls silent", |counts| counts.bytes_sent >= BEFORE_BYTES);
    (engine, proxy, viewer, Instant::now())
}

#[track_caller]
fn check_waited_for(fill: Fill) {
    let (engine, _proxy, mut viewer, began) = silent(BodyEvent::Pause(SILENCE), fill, LONG);
    // More than came before the silence.
    viewer.take_packets(BEFORE_BYTES / 188 + 500);
    assert!(began.elapsed() > STALL, "{:?}", began.elapsed());
    assert_whole(&viewer.leave());
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_silent_source_whose_engine_downloads_is_waited_for() {
    check_waited_for(Fill::Rises);
}

#[test]
fn a_silent_source_whose_engine_gets_on_with_its_buffer_is_waited_for() {
    check_waited_for(Fill::Progresses);
}

/// How long it takes until the source counts as lost.
fn lost_after(proxy: &Proxy, began: Instant) -> Duration {
    proxy.wait_session(ID, "it is lost", |session| {
        session["restarts"] == 1 || session["state"] == "recovering"
    });
    began.elapsed()
}

#[test]
fn a_silent_source_whose_engine_stands_still_is_lost_in_time() {
    let (engine, proxy, mut viewer, began) = silent(BodyEvent::Pause(SILENCE), Fill::StandsStill, LONG);
    let took = lost_after(&proxy, began);
    // The test may have been late to see the silence.
    assert!(took > STALL - Duration::from_secs(1) && took < STALL + SLACK, "{took:?}");
    viewer.take_seams(1);
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 2);
}

#[test]
fn a_silent_source_is_not_waited_for_longer_than_it_would_be_recovered() {
    let limit = STALL + Duration::from_secs(4);
    let (engine, proxy, mut viewer, began) = silent(BodyEvent::Stall, Fill::Rises, limit);
    let took = lost_after(&proxy, began);
    assert!(took > limit - Duration::from_secs(1) && took < limit + SLACK, "{took:?}");
    viewer.take_seams(1);
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 2);
}
