//! The life of a stream: who waits, who leaves, who comes back, and what the engine is told of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acerelay::id::ContentKey;
use acerelay::sim::{BodyEvent, Call, Entry, Getstream, Head, PlaybackStep, Script, Steps};
use acerelay::stream::client::{ClientRecord, Protocol};
use acerelay::stream::state::Why;
use acerelay::threads::{SMALL_STACK_BYTES, Threads};

use super::harness::{
    Bystander, Connection, End, ID, LONG, OTHER_ID, Proxy, SLACK, STACK_BYTES, Viewer, assert_all_stopped,
    assert_whole, engine, pause, scripted, wait_engine,
};

/// An engine whose first content never gets further than this.
fn stuck(playback: PlaybackStep) -> Script {
    Script::new().playback(playback)
}

#[test]
fn a_start_that_is_stopped_wakes_its_waiters_within_100_ms() {
    // At best of several, on a machine however busy.
    let took: Vec<_> = (0..4).map(|_| wake_of_a_waiter()).collect();
    assert!(took.iter().any(|took| *took < Duration::from_millis(100)), "{took:?}");
}

/// How long it takes from the stop of a start until whoever waits for it knows.
fn wake_of_a_waiter() -> Duration {
    let engine = scripted(stuck(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start(&[&engine]);
    let key = ContentKey::from_query(None, [("id", ID.to_string())]).expect("a good id");
    let client = Arc::new(ClientRecord::new(1000, Protocol::Ts, proxy.address, None));
    let seat = proxy.app().streams().seat(&key.into(), &client, || true).expect("there is room");
    wait_engine(&engine, "the playback is asked for", |counts| counts.playback_requests == 1);
    let (give, woken) = crossbeam_channel::bounded(1);
    let wait = move || {
        let outcome = seat.wait_started(Instant::now() + LONG);
        drop(give.send((Instant::now(), outcome)));
    };
    Threads::new().spawn("waiter", SMALL_STACK_BYTES, wait).expect("a thread");
    // Before it sleeps there is nothing to wake.
    pause(Duration::from_millis(300));
    let began = Instant::now();
    proxy.app().streams().close();
    let (at, outcome) = woken.recv_timeout(LONG).expect("it wakes");
    assert_eq!(outcome, Some(Err(Why::Shutdown)));
    assert_all_stopped(&engine, 1);
    at.saturating_duration_since(began)
}

#[track_caller]
fn check_waiters_are_told(script: Script, opened: u64) {
    let engine = scripted(script);
    let proxy =
        Proxy::start_with(&[&engine], |config| config.stream.connect_timeout = Duration::from_secs(5));
    let waiters: Vec<_> = (0..3).map(|_| proxy.ask(ID)).collect();
    proxy.wait_session(ID, "three wait", |session| session["waiting_count"] == 3);
    wait_engine(&engine, "it is asked", |counts| counts.getstreams == 1);
    let began = Instant::now();
    proxy.app().streams().close();
    for waiter in waiters {
        let mut reply = waiter.reply();
        assert_eq!((reply.status, &reply.json()["error"]), (503, &"shutting_down".into()));
        assert!(reply.header("Retry-After").is_some());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // A newcomer is told the same.
    let mut reply = proxy.ask(OTHER_ID).reply();
    assert_eq!((reply.status, &reply.json()["error"]), (503, &"shutting_down".into()));
    assert_eq!(proxy.status()["running"], false);
    assert_all_stopped(&engine, opened);
}

#[test]
fn waiters_are_told_of_a_shutdown_while_the_playback_hangs() {
    check_waiters_are_told(stuck(PlaybackStep::entry(Entry::Never)), 1);
    check_waiters_are_told(stuck(PlaybackStep::head(Head::Never)), 1);
    check_waiters_are_told(stuck(PlaybackStep::never_a_byte()), 1);
}

#[test]
fn waiters_are_told_of_a_shutdown_while_getstream_is_slow_and_its_session_is_stopped() {
    let slow = Getstream::Slow(Duration::from_secs(1));
    check_waiters_are_told(Script::new().getstream(slow), 1);
}

/// A getstream cannot be cut, since nobody could stop what it opens. Nobody waits for its stream any more when it is
/// answered: the session is stopped then, once, and who asked meanwhile gets one of his own.
#[track_caller]
fn check_late_session_is_stopped(
    abandon: Duration,
    answers: Steps<Getstream>,
    lost_before: u64,
    end: impl FnOnce(&Proxy, Connection),
) {
    let lost = Steps::first(lost_before as usize, PlaybackStep::after(400_000, BodyEvent::End));
    let engine = scripted(Script::new().getstream(answers).playback(lost));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.abandon = abandon;
        config.stream.recover_timeout = LONG;
    });
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "its getstream is on its way", |counts| {
        counts.getstreams == lost_before + 1 && counts.getstreams_now == 1
    });
    end(&proxy, waiting);
    proxy.wait_session(ID, "it is given up", |session| session["state"] == "stopping");
    assert_eq!(engine.counts_of(ID).getstreams_now, 1, "it is not cut");
    let newcomer = proxy.ask(ID);
    assert!(engine.wait_for_content(ID, LONG, |counts| counts.stops == lost_before + 1), "it is stopped");
    let mut viewer = Viewer::of(newcomer.reply());
    viewer.take_packets(500);
    assert_whole(&viewer.leave());
    proxy.wait_gone(ID);
    let counts = engine.counts_of(ID);
    let stopped = (counts.sessions_stopped, counts.stops, counts.stops_unknown, counts.sessions_leaked);
    assert_eq!(stopped, (lost_before + 2, lost_before + 2, 0, 0), "{counts:?}");
    assert_eq!((counts.sessions_opened, counts.readers_max), (lost_before + 2, 1), "{counts:?}");
    assert_eq!(
        counts.playback_requests,
        lost_before + 1,
        "the one that came too late is never played: {counts:?}"
    );
}

const SOON: Duration = Duration::from_millis(100);

fn late() -> Getstream {
    Getstream::Slow(Duration::from_secs(5))
}

#[test]
fn a_session_that_is_opened_after_its_stream_was_deleted_is_stopped_once() {
    check_late_session_is_stopped(LONG, Steps::first(1, late()), 0, |proxy, waiting| {
        let mut connection = proxy.connect();
        connection.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
        assert_eq!(connection.reply().status, 204);
        // At once, not when the engine answers.
        assert_eq!(waiting.reply().status, 404);
    });
}

/// A start that everybody has left while its getstream is in flight, and that is to end: by its time, or by giving way to
/// another one. `come_back` says whether somebody asks for it again before the engine has answered.
#[track_caller]
fn check_left_start(abandon: Duration, gives_way: bool, come_back: bool) {
    let engine = scripted(Script::new().getstream(Steps::first(1, late())));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.abandon = abandon);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "its getstream is on its way", |counts| counts.getstreams_now == 1);
    drop(waiting);
    proxy.wait_session(ID, "nobody waits", |session| session["waiting_count"] == 0);
    if gives_way {
        Viewer::open(proxy.address, OTHER_ID).take_packets(1);
    } else {
        // Long enough for the housekeeper to see that its time is over.
        pause(Duration::from_secs(1));
    }
    assert_eq!(proxy.session(ID)["state"], "starting", "only the answer tells how to stop it");
    assert_eq!(engine.counts_of(ID).getstreams_now, 1, "it is not cut");
    if come_back {
        let mut viewer = Viewer::open(proxy.address, ID);
        viewer.take_packets(100);
        assert_whole(&viewer.leave());
    }
    proxy.wait_gone(ID);
    let counts = engine.counts_of(ID);
    let sessions = (counts.getstreams, counts.sessions_opened, counts.sessions_stopped, counts.stops);
    assert_eq!(sessions, (1, 1, 1, 1), "{counts:?}");
    assert_eq!((counts.playback_requests, counts.sessions_leaked), (u64::from(come_back), 0), "{counts:?}");
}

#[test]
fn a_session_that_is_opened_when_everybody_has_left_is_stopped_once() {
    check_left_start(SOON, false, false);
}

#[test]
fn a_session_that_is_opened_after_its_start_gave_way_is_stopped_once() {
    check_left_start(LONG, true, false);
}

/// The most common gesture of a person with a remote control: away and back again.
#[test]
fn who_comes_back_while_getstream_is_in_flight_joins_it() {
    check_left_start(SOON, false, true);
    check_left_start(LONG, true, true);
}

#[test]
fn a_session_that_is_opened_when_everybody_has_left_the_lost_source_is_stopped_once() {
    let answers = Steps::each([Getstream::Normal, late()]);
    check_late_session_is_stopped(LONG, answers, 1, |_, waiting| drop(waiting));
}

#[test]
fn a_client_that_gives_up_during_the_start_does_not_disturb_another() {
    let engine = scripted(stuck(PlaybackStep::first_byte_after(Duration::from_secs(2))));
    let proxy = Proxy::start(&[&engine]);
    let impatient = proxy.ask(ID);
    let patient = proxy.ask(ID);
    proxy.wait_session(ID, "both wait", |session| session["waiting_count"] == 2);
    drop(impatient);
    let session = proxy.wait_session(ID, "one waits", |session| session["waiting_count"] == 1);
    assert_eq!(session["state"], "starting");
    let mut viewer = Viewer::of(patient.reply());
    viewer.take_packets(200);
    assert_whole(viewer.report());
    assert_eq!(engine.counts().getstreams, 1);
}

#[test]
fn a_start_that_everybody_left_lives_on_for_a_while() {
    let engine = scripted(stuck(PlaybackStep::first_byte_after(Duration::from_secs(2))));
    let proxy = Proxy::start(&[&engine]);
    let impatient = proxy.ask(ID);
    proxy.wait_session(ID, "it waits", |session| session["waiting_count"] == 1);
    drop(impatient);
    proxy.wait_session(ID, "nobody waits", |session| session["waiting_count"] == 0);
    // An impatient player asks again, and finds the start where it was.
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(100);
    assert_whole(viewer.report());
    assert_eq!(engine.counts().getstreams, 1);
}

#[test]
fn a_start_that_everybody_left_ends_in_time_and_is_stopped() {
    let engine = scripted(stuck(PlaybackStep::entry(Entry::Never)));
    let abandon = Duration::from_millis(300);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.abandon = abandon);
    let bystander = Bystander::watch(&proxy);
    let impatient = proxy.ask(ID);
    wait_engine(&engine, "it is asked", |counts| counts.playback_requests == 2);
    drop(impatient);
    proxy.wait_gone(ID);
    assert!(engine.wait_for_content(ID, LONG, |counts| counts.stops == 1 && counts.sessions_open == 0));
    bystander.assert_undisturbed();
}

#[test]
fn the_first_client_s_leaving_does_not_end_the_stream_of_the_second() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut first = Viewer::open(proxy.address, ID);
    first.take_packets(50);
    let mut second = Viewer::open(proxy.address, ID);
    second.take_packets(50);
    proxy.wait_clients(ID, 2);
    assert_whole(&first.leave());
    proxy.wait_clients(ID, 1);
    // Longer than the linger time.
    second.take_packets(1500);
    assert_whole(&second.leave());
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_client_that_comes_back_within_the_linger_time_finds_the_same_session() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = LONG);
    let mut first = Viewer::open(proxy.address, ID);
    first.take_packets(50);
    drop(first.leave());
    let session = proxy.wait_session(ID, "it lingers", |session| session["state"] == "lingering");
    assert_eq!((&session["client_count"], &session["is_active"]), (&0.into(), &true.into()));
    let mut second = Viewer::open(proxy.address, ID);
    second.take_packets(50);
    assert_whole(&second.leave());
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.playbacks, counts.stops), (1, 1, 0));
    drop(proxy);
    assert_all_stopped(&engine, 1);
}

#[test]
fn after_the_linger_time_the_engine_gets_one_stop_and_the_next_client_a_new_session() {
    let engine = engine();
    let linger = Duration::from_secs(1);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = linger);
    let mut first = Viewer::open(proxy.address, ID);
    first.take_packets(50);
    let left = Instant::now();
    drop(first.leave());
    assert_all_stopped(&engine, 1);
    let took = left.elapsed();
    // Its leaving is noticed after half a second at the latest, the end of the linger time a tick later.
    assert!(took >= linger && took < linger + SLACK, "{took:?}");
    proxy.wait_gone(ID);
    let mut second = Viewer::open(proxy.address, ID);
    second.take_packets(50);
    assert_whole(&second.leave());
    assert_all_stopped(&engine, 2);
}

#[test]
fn a_stop_that_hangs_delays_nobody_else_and_the_next_client_gets_a_new_session() {
    let engine = scripted(Script::new().stop(Steps::first(1, Call::Hang)));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = Duration::ZERO);
    let mut first = Viewer::open(proxy.address, ID);
    first.take_packets(50);
    drop(first.leave());
    wait_engine(&engine, "the stop is sent", |counts| counts.stops == 1);
    let began = Instant::now();
    let newcomer = proxy.ask(ID);
    // Another content starts meanwhile.
    let bystander = Bystander::watch(&proxy);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(engine.counts_of(ID).getstreams, 1, "the newcomer waits for the end of the stop");
    let mut second = Viewer::of(newcomer.reply());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3) + SLACK, "{took:?}");
    second.take_packets(500);
    assert_whole(&second.leave());
    bystander.assert_undisturbed();
    assert_all_stopped(&engine, 3);
}

#[test]
fn a_stop_is_sent_once_whatever_the_engine_answers() {
    let answers = [
        Call::Text("<html>".to_owned()),
        Call::Reset,
        Call::Status(500, "no".to_owned()),
        Call::Error("unknown playback session id".to_owned()),
        Call::Error("something else".to_owned()),
    ];
    for answer in answers {
        let engine = scripted(Script::new().stop(answer.clone()));
        let proxy = Proxy::start(&[&engine]);
        let mut viewer = Viewer::open(proxy.address, ID);
        viewer.take_packets(10);
        drop(viewer.leave());
        proxy.wait_gone(ID);
        assert_eq!(engine.counts().stops, 1, "{answer:?}");
        drop(proxy);
        assert_eq!(engine.counts().stops, 1, "{answer:?}");
    }
}

#[test]
fn a_shutdown_ends_streams_without_a_last_chunk_and_stops_every_session() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewers = [ID, ID, OTHER_ID].map(|id| Viewer::open(proxy.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    let (give, take) = crossbeam_channel::bounded(1);
    let end = move || give.send(proxy.shutdown()).expect("the test waits for it");
    Threads::new().spawn("shutdown", STACK_BYTES, end).expect("a thread");
    for viewer in viewers {
        let (report, end) = viewer.finish();
        assert_whole(&report);
        assert_eq!(end, End::Closed);
    }
    let took = take.recv_timeout(LONG).expect("it ends");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_all_stopped(&engine, 2);
}

#[test]
fn a_shutdown_waits_for_no_client_that_takes_nothing() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut frozen = Viewer::open(proxy.address, ID);
    frozen.take_packets(10);
    // Half a second of nothing taken at all.
    let mut other = Viewer::open(proxy.address, ID);
    other.take_packets(700);
    let took = proxy.shutdown();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_all_stopped(&engine, 1);
    drop((frozen, other));
}
