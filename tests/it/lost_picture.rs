//! A source whose picture dies while its sound goes on, and those that have none to lose.

use std::time::{Duration, Instant};

use acerelay::sim::{BodyEvent, Content, Media, PlaybackStep, Script, Steps};
use serde_json::{Value, json};

use super::harness::{
    End, ID, INFOHASH, LONG, Proxy, Reply, assert_all_stopped, engine_with, stream_path, whole_in_time,
};

/// Longer than a picture has to be there to be missed, at the 62 kB a second of the clip.
const BYTES_WITH_PICTURE: u64 = 450_000;

const STALL: Duration = Duration::from_secs(2);

/// The clip, at its own pace.
fn clip(script: Script) -> Content {
    Content::live(ID, INFOHASH, Media::Clip).delivery(whole_in_time()).script(script)
}

fn starts(config: &mut acerelay::config::Config) {
    config.stream.stall_timeout = STALL;
    config.stream.recover_timeout = LONG;
}

/// Takes what comes until the status says so.
#[track_caller]
fn take_until(proxy: &Proxy, reply: &mut Reply, what: &str, is_met: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LONG;
    loop {
        let session = proxy.session(ID);
        if is_met(&session) {
            return session;
        }
        assert!(Instant::now() < deadline, "{what}: {session:#}");
        assert_eq!(reply.read().map(|_| ()), Ok::<(), End>(()), "{what}");
    }
}

#[test]
fn a_picture_that_dies_is_a_loss_like_any_other() {
    let script = Script::new()
        .playback(Steps::each([PlaybackStep::after(BYTES_WITH_PICTURE, BodyEvent::LosePicture)]));
    let engine = engine_with(clip(script));
    let proxy = Proxy::start_with(&[&engine], starts);
    let mut reply = proxy.get(&stream_path(ID));
    assert_eq!(reply.status, 200);
    let missing = |session: &Value| session["picture_missing_s"].as_f64();
    let session = take_until(&proxy, &mut reply, "it is shown", |session| {
        missing(session).is_some_and(|seconds| seconds > 0.9)
    });
    assert_eq!(session["keyframe_interval_s"], 1.0, "{session:#}");
    let session = take_until(&proxy, &mut reply, "it is cured", |session| session["restarts"] == 1);
    assert_eq!(session["client_count"], 1, "{session:#}");
    let video = json!({"codec": "H.264", "width": 640, "height": 360, "fps": 25.0});
    assert_eq!(session["media"], json!({"video": video, "audio": ["AAC"], "text": []}));
    take_until(&proxy, &mut reply, "the picture is there", |session| missing(session) == Some(0.0));
    drop(reply);
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 2);
}

/// Plays a source whose picture is lost after so many bytes, for some time longer than it may be away.
#[track_caller]
fn check_is_never_cut(picture: Option<u64>) {
    let mut playback = PlaybackStep::normal();
    if let Some(bytes) = picture {
        playback = playback.and_after(bytes, BodyEvent::LosePicture);
    }
    let engine = engine_with(clip(Script::new().playback(playback)));
    let proxy = Proxy::start_with(&[&engine], starts);
    let mut reply = proxy.get(&stream_path(ID));
    let watched = Instant::now();
    take_until(&proxy, &mut reply, "played", |_| watched.elapsed() > 3 * STALL);
    let session = proxy.session(ID);
    assert_eq!((&session["restarts"], &session["state"]), (&0.into(), &"active".into()), "{session:#}");
    drop(reply);
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_picture_that_never_came_is_not_missed() {
    check_is_never_cut(Some(0));
}

#[test]
fn one_still_picture_is_not_missed() {
    check_is_never_cut(Some(60_000));
}

#[test]
fn a_picture_that_comes_is_not_missed() {
    check_is_never_cut(None);
}
