//! The proxy ends while its streams are in every state of their lives: in time, with every thread joined and every session
//! stopped that can be.

use std::time::Duration;

use acerelay::config::Config;
use acerelay::sim::{
    BodyEvent, Call, Entry, Getstream, Head, Health, PlaybackStep, Report, Script, SimEngine, Steps,
};
use acerelay::threads::Threads;

use super::harness::{
    End, ID, LONG, OTHER_ID, Proxy, STACK_BYTES, Viewer, assert_all_stopped, assert_whole, engine, scripted,
    wait_engine,
};

/// Everything that a shutdown may take.
const LIMIT: Duration = Duration::from_secs(5);

fn recovering(config: &mut Config) {
    config.stream.recover_timeout = LONG;
}

/// Ends a proxy whose threads are all joined, else this panics.
#[track_caller]
fn shut_down(proxy: Proxy) {
    let took = proxy.shutdown();
    assert!(took < LIMIT, "{took:?}");
}

/// Ends a proxy whose clients take what comes until their end.
#[track_caller]
fn shut_down_under<const N: usize>(proxy: Proxy, viewers: [Viewer; N]) -> [Report; N] {
    let (give, ended) = crossbeam_channel::bounded(1);
    let end = move || give.send(proxy.shutdown()).expect("the test waits for it");
    Threads::new().spawn("shutdown", STACK_BYTES, end).expect("a thread");
    let reports = viewers.map(|viewer| {
        let (report, end) = viewer.finish();
        assert_eq!(end, End::Closed);
        report
    });
    let took = ended.recv_timeout(LONG).expect("all its threads end in time");
    assert!(took < LIMIT, "{took:?}");
    reports
}

/// Ends a proxy whose only stream is in this state.
#[track_caller]
fn check(engine: &SimEngine, proxy: Proxy, state: &str, sessions: u64) {
    proxy.wait_session(ID, state, |session| session["state"] == state);
    shut_down(proxy);
    assert_all_stopped(engine, sessions);
}

#[test]
fn while_getstream_is_slow() {
    let engine = scripted(Script::new().getstream(Getstream::Slow(Duration::from_secs(1))));
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "it is asked", |counts| counts.getstreams_now == 1);
    check(&engine, proxy, "starting", 1);
    assert_eq!(waiting.reply().status, 503);
}

#[test]
fn while_getstream_hangs() {
    let engine = scripted(Script::new().getstream(Getstream::Hang));
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "it is asked", |counts| counts.getstreams_now == 1);
    check(&engine, proxy, "starting", 0);
    assert_eq!(waiting.reply().status, 503);
}

#[test]
fn while_the_playback_is_waited_for() {
    let faults =
        [PlaybackStep::entry(Entry::Never), PlaybackStep::head(Head::Never), PlaybackStep::never_a_byte()];
    for fault in faults {
        let engine = scripted(Script::new().playback(fault));
        let proxy = Proxy::start(&[&engine]);
        let waiting = proxy.ask(ID);
        wait_engine(&engine, "it is asked", |counts| counts.playback_requests == 1);
        check(&engine, proxy, "starting", 1);
        assert_eq!(waiting.reply().status, 503);
    }
}

#[test]
fn while_the_engine_is_warming_up_and_its_stat_hangs() {
    let script = Script::new().playback(PlaybackStep::status(500, "start timeout")).stat(Call::Hang);
    let engine = scripted(script);
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "it is asked", |counts| counts.playback_requests == 1 && counts.stats > 0);
    check(&engine, proxy, "starting", 1);
    assert_eq!(waiting.reply().status, 503);
}

#[test]
fn while_a_start_waits_for_its_turn() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start_with(&[&engine], |config| config.engines[0].max_starts = 1);
    let first = proxy.ask(ID);
    wait_engine(&engine, "it is asked", |counts| counts.playback_requests == 1);
    let second = proxy.ask(OTHER_ID);
    proxy.wait_session(OTHER_ID, "it waits", |session| session["waiting_count"] == 1);
    check(&engine, proxy, "starting", 1);
    assert_eq!((first.reply().status, second.reply().status), (503, 503));
}

#[test]
fn while_clients_watch_and_the_engine_hangs_on_every_call() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewers = [ID, ID, OTHER_ID].map(|id| Viewer::open(proxy.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    engine.set_health(Health::Hangs);
    shut_down_under(proxy, viewers).iter().for_each(assert_whole);
    let stops = engine.requests().iter().filter(|request| request.param("method") == Some("stop")).count();
    assert_eq!((stops, engine.counts().readers), (2, 0));
}

#[test]
fn while_a_source_is_recovered() {
    // Between two attempts, within getstream, and within the playback.
    let error = Getstream::Error("not now".to_owned());
    let once = PlaybackStep::after(400_000, BodyEvent::End);
    let scripts = [
        (Script::new().getstream(Steps::first(1, Getstream::Normal).then(error)), 1),
        (
            Script::new()
                .getstream(Steps::first(1, Getstream::Normal).then(Getstream::Slow(Duration::from_secs(1)))),
            2,
        ),
        (Script::new(), 2),
    ];
    for (script, sessions) in scripts {
        let playback = Steps::first(1, once.clone()).then(PlaybackStep::entry(Entry::Never));
        let engine = scripted(script.playback(playback));
        let proxy = Proxy::start_with(&[&engine], recovering);
        let viewer = Viewer::open(proxy.address, ID);
        wait_engine(&engine, "it is asked again", |counts| counts.getstreams >= 2);
        let waiting = proxy.ask(ID);
        proxy.wait_session(ID, "it is lost, and somebody waits", |session| {
            session["state"] == "recovering" && session["waiting_count"] == 1
        });
        let [report] = shut_down_under(proxy, [viewer]);
        assert_whole(&report);
        assert_eq!(waiting.reply().status, 503);
        assert_all_stopped(&engine, sessions);
    }
}

#[test]
fn while_the_lost_session_is_stopped_by_an_engine_that_hangs() {
    let script = Script::new().playback(PlaybackStep::after(400_000, BodyEvent::End)).stop(Call::Hang);
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], recovering);
    let viewer = Viewer::open(proxy.address, ID);
    wait_engine(&engine, "the stop is sent", |counts| counts.stops == 1);
    let [report] = shut_down_under(proxy, [viewer]);
    assert_whole(&report);
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.stops, counts.sessions_open), (1, 1, 0), "{counts:?}");
}

#[test]
fn while_a_stream_lingers() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = LONG);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    drop(viewer.leave());
    check(&engine, proxy, "lingering", 1);
}

#[test]
fn while_a_stream_is_stopped_and_a_newcomer_waits_for_that() {
    let engine = scripted(Script::new().stop(Call::Hang));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = Duration::ZERO);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    drop(viewer.leave());
    wait_engine(&engine, "the stop is sent", |counts| counts.stops == 1);
    let newcomer = proxy.ask(ID);
    check(&engine, proxy, "stopping", 1);
    assert_eq!(newcomer.reply().status, 503);
}

#[test]
fn while_an_abandoned_start_lives_on() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "it is asked", |counts| counts.playback_requests == 1);
    drop(waiting);
    proxy.wait_session(ID, "nobody waits", |session| session["waiting_count"] == 0);
    check(&engine, proxy, "starting", 1);
}
