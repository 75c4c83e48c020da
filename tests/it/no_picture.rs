//! A source that answers, and sends what is neither picture nor sound.

use std::time::Duration;

use acerelay::sim::{BodyEvent, PlaybackStep, Script, Steps};

use super::harness::{ID, LONG, Proxy, Viewer, assert_all_stopped, assert_seamed, scripted, stream_path};

/// An encoder that has lost its input keeps the multiplex going with null packets: 50 of them every 100 ms.
fn nulls_alone() -> PlaybackStep {
    const NULLS: u64 = 50;
    let mut playback = PlaybackStep::normal();
    for round in 0..100 {
        // The body begins 71 bytes into a packet; this is the end of one.
        let at = 117 + round * NULLS * 188;
        playback = playback
            .and_after(at, BodyEvent::Pause(Duration::from_millis(100)))
            .and_after(at, BodyEvent::NullPackets(NULLS as usize));
    }
    playback.and_after(117 + 100 * NULLS * 188, BodyEvent::Stall)
}

#[test]
fn a_start_without_picture_or_sound_is_told_so() {
    let engine = scripted(Script::new().playback(nulls_alone()));
    let proxy =
        Proxy::start_with(&[&engine], |config| config.stream.first_data_timeout = Duration::from_secs(1));
    let mut reply = proxy.get(&stream_path(ID));
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (504, &"start_timeout".into()), "{json}");
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_source_that_comes_back_without_a_picture_is_not_back() {
    let script =
        Script::new().playback(Steps::each([PlaybackStep::after(400_000, BodyEvent::End), nulls_alone()]));
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.recover_timeout = LONG;
        config.stream.first_data_timeout = Duration::from_secs(2);
        config.stream.stall_timeout = LONG;
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(1);
    let session = proxy.session(ID);
    assert_eq!((&session["state"], &session["restarts"]), (&"active".into(), &1.into()), "{session:#}");
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 3);
}
