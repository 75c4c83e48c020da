//! A content whose download is stuck, and downloads that outlive their sessions.

use std::time::{Duration, Instant};

use super::super::{Delivery, PlaybackStep, Script, SessionRules, Settings, SimEngine, Stuck};
use super::client::*;

const QUIET: Duration = Duration::from_millis(300);

/// Sees that the body of a new session begins and has nothing.
fn is_stuck(engine: &SimEngine, pid: &str) -> bool {
    let mut body = start_as(engine, pid).play(engine);
    assert_eq!(body.status, 200);
    body.is_silent()
}

#[test]
fn a_stuck_content_opens_and_gives_nothing_until_it_is_left_alone() {
    let engine = engine();
    engine.stick(ID, Stuck::until_quiet(LONG));
    let mut body = start_as(&engine, "1").play(&engine);
    assert!(body.status == 200 && body.is_silent());
    // Whoever comes meanwhile joins it, also after a stop; another content is not concerned.
    let started = start_as(&engine, "2");
    let mut other_body = started.play(&engine);
    assert!(other_body.is_silent());
    started.stop(&engine);
    assert!(is_stuck(&engine, "3"));
    start(&engine, &format!("id={OTHER_ID}&pid=4")).play(&engine).take(1000);
    // A restart does not help this one.
    let mut again = start(&engine, &format!("id={ID}&pid=5&force_session_restart=1")).play(&engine);
    assert!(again.is_silent());
    drop((body, other_body, again));
    assert!(engine.wait_for_content(ID, LONG, |counts| counts.readers == 0));
    engine.stick(ID, Stuck::until_quiet(QUIET));
    let began = Instant::now();
    engine.wait_for(QUIET, |_| false);
    assert!(began.elapsed() >= QUIET);
    start_as(&engine, "6").play(&engine).take(100_000);
}

#[test]
fn nobody_frees_a_stuck_content_by_waiting_with_a_body_open() {
    let engine = engine();
    engine.stick(ID, Stuck::until_quiet(QUIET));
    let mut body = start_as(&engine, "1").play(&engine);
    assert!(body.is_silent());
    engine.wait_for(2 * QUIET, |_| false);
    assert!(is_stuck(&engine, "2") && body.is_silent());
    engine.free(ID);
    body.take(100_000);
}

#[test]
fn a_restart_frees_a_stuck_content_if_it_is_to() {
    let engine = engine();
    engine.stick(ID, Stuck::until_restart());
    assert!(is_stuck(&engine, "1"));
    start(&engine, &format!("id={ID}&pid=2&force_session_restart=1")).play(&engine).take(100_000);
}

#[test]
fn bodies_that_run_fall_silent_when_the_content_gets_stuck_and_another_engine_plays() {
    let (engine, other) = (engine(), engine());
    let mut body = play(&engine);
    body.take(1000);
    engine.stick(ID, Stuck::until_quiet(LONG));
    body.fall_silent();
    play(&other).take(100_000);
}

#[test]
fn one_engine_can_answer_200_and_never_send_a_byte() {
    let engine = scripted(Script::new().playback(PlaybackStep::never_a_byte()));
    let other = engine_with_prebuffer(Duration::ZERO, Duration::ZERO);
    assert!(is_stuck(&engine, "1") && is_stuck(&engine, "2"));
    play(&other).take(1000);
}

fn engine_with_prebuffer(prebuffer: Duration, download_outlives: Duration) -> SimEngine {
    let rules = SessionRules { stop_ends_all_of_content: false, ..SessionRules::default() };
    let engine = empty(Settings { rules, download_outlives, ..Settings::default() });
    engine.add(content(ID, INFOHASH).delivery(Delivery { prebuffer, ..Delivery::default() }));
    engine
}

#[test]
fn a_download_goes_on_after_the_stop_and_whoever_comes_joins_it() {
    const PREBUFFER: Duration = Duration::from_secs(1);
    let start_of = |engine: &SimEngine, pid| {
        let began = Instant::now();
        let started = start_as(engine, pid);
        started.play(engine).take(1);
        (started, began.elapsed())
    };
    let lasting = engine_with_prebuffer(PREBUFFER, LONG);
    let (first, waited) = start_of(&lasting, "1");
    assert!(waited >= PREBUFFER);
    first.stop(&lasting);
    assert_eq!(lasting.counts().sessions_open, 0);
    let (_, waited) = start_of(&lasting, "2");
    assert!(waited < PREBUFFER, "{waited:?}");
    let ending = engine_with_prebuffer(PREBUFFER, Duration::ZERO);
    start_of(&ending, "1").0.stop(&ending);
    assert!(start_of(&ending, "2").1 >= PREBUFFER);
}
