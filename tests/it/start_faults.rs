//! Everything that can go wrong with a start, each with its status, its code, a sentence that names the cause, and
//! within its time; what the engine opened is stopped once, and another stream on the same engine goes on undisturbed.

use std::time::{Duration, Instant};

use acerelay::config::Config;
use acerelay::id::Digest;
use acerelay::sim::{
    BodyEvent, Call, Entry, Fill, Getstream, Head, PlaybackStep, Script, Settings, SimEngine, Steps,
};

use super::harness::{
    Bystander, End, ID, INFOHASH, LONG, OTHER_ID, OTHER_INFOHASH, Proxy, SLACK, Viewer, assert_all_stopped,
    assert_whole, broadcast, engine_with, pause, scripted, short, stream_path, wait_engine,
};

/// The limit that a test runs into; long enough for the other stream to start within it.
const LIMIT: Duration = Duration::from_millis(1500);

/// Late, but well within [`LIMIT`].
const LATE: Duration = Duration::from_millis(400);

/// How a start is to fail.
struct Refusal {
    status: u16,
    code: &'static str,
    /// What the sentence has to say.
    says: &'static str,
    /// Not before this time.
    after: Duration,
    /// Sessions that the engine opens.
    opened: u64,
    /// Those of them that can be stopped, because the engine has told how.
    stopped: u64,
}

const ENGINE_ERROR: Refusal =
    Refusal { status: 502, code: "engine_error", says: "", after: Duration::ZERO, opened: 1, stopped: 1 };

const START_TIMEOUT: Refusal =
    Refusal { status: 504, code: "start_timeout", says: "within 1.5 s", after: LIMIT, opened: 1, stopped: 1 };

fn no_change(_: &mut Config) {}

fn short_connect(config: &mut Config) {
    config.stream.connect_timeout = LIMIT;
}

fn short_first_data(config: &mut Config) {
    config.stream.first_data_timeout = LIMIT;
}

#[track_caller]
fn check_playback(playback: PlaybackStep, expected: &Refusal) {
    check_refused(&scripted(Script::new().playback(playback)), no_change, |_| {}, expected);
}

#[track_caller]
fn check_getstream(getstream: Getstream, expected: &Refusal) {
    check_refused(&scripted(Script::new().getstream(getstream)), no_change, |_| {}, expected);
}

#[track_caller]
fn check_refused(
    engine: &SimEngine,
    change: fn(&mut Config),
    before: impl FnOnce(&SimEngine),
    expected: &Refusal,
) {
    let proxy = Proxy::start_with(&[engine], change);
    let bystander = Bystander::watch(&proxy);
    before(engine);
    let began = Instant::now();
    let mut reply = proxy.get(&stream_path(ID));
    let took = began.elapsed();
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (expected.status, &expected.code.into()), "{json}");
    let detail = json["detail"].as_str().expect("a sentence");
    assert!(detail.contains(expected.says), "{detail}");
    assert!(detail.split(' ').count() > 3 && !detail.contains('\n'), "{detail}");
    assert_eq!(reply.header("Retry-After").is_some(), reply.status == 503);
    assert!(took >= expected.after && took < expected.after + SLACK, "{took:?}");

    proxy.wait_gone(ID);
    let session = proxy.session(ID);
    let (error, clients) = (session["error"].as_str().expect("an error"), &session["client_count"]);
    assert!(error.contains(expected.says) && clients == 0 && session["is_active"] == false, "{session:#}");
    assert!(session["started_at"].is_null() && session["ended_at"].is_string(), "{session:#}");
    let is_over = engine.wait_for_content(ID, SLACK, |counts| {
        counts.readers == 0 && counts.getstreams_now == 0 && counts.stops >= expected.stopped
    });
    let counts = engine.counts_of(ID);
    assert!(is_over, "{counts:?}");
    assert_eq!((counts.sessions_opened, counts.stops), (expected.opened, expected.stopped), "{counts:?}");
    assert_eq!(
        (counts.stops_unknown, counts.sessions_open),
        (0, expected.opened - expected.stopped),
        "{counts:?}"
    );
    assert_eq!(proxy.status()["active_sessions"], 1);
    bystander.assert_undisturbed();
}

#[track_caller]
fn check_plays(engine: &SimEngine, change: fn(&mut Config), after: Duration) {
    let proxy = Proxy::start_with(&[engine], change);
    let bystander = Bystander::watch(&proxy);
    let began = Instant::now();
    let mut viewer = Viewer::open(proxy.address, ID);
    assert!(began.elapsed() >= after, "{:?}", began.elapsed());
    viewer.take_packets(500);
    assert_whole(&viewer.leave());
    bystander.assert_undisturbed();
    assert_all_stopped(engine, 2);
}

#[test]
fn an_engine_that_refuses_connections_is_no_engine() {
    let expected =
        Refusal { status: 503, code: "no_engine", says: "engine", opened: 0, stopped: 0, ..ENGINE_ERROR };
    let refuse = |engine: &SimEngine| engine.refuse().expect("the port is kept");
    check_refused(&scripted(Script::new()), no_change, refuse, &expected);
}

#[test]
fn a_getstream_that_hangs_is_given_up_at_the_connect_deadline() {
    let expected = Refusal { says: "within 1.", opened: 0, stopped: 0, ..START_TIMEOUT };
    check_refused(&scripted(Script::new().getstream(Getstream::Hang)), short_connect, |_| {}, &expected);
}

#[test]
fn a_slow_getstream_works() {
    let slow = Script::new().getstream(Getstream::Slow(LATE));
    check_plays(&scripted(slow), short_connect, LATE);
}

#[test]
fn an_error_text_of_the_engine_is_handed_on() {
    let error = || "failed to load content".to_owned();
    let expected = Refusal { says: "failed to load content", opened: 0, stopped: 0, ..ENGINE_ERROR };
    check_getstream(Getstream::Error(error()), &expected);
}

#[test]
fn an_error_object_of_the_engine_is_handed_on() {
    let expected = Refusal { says: "premium only", opened: 0, stopped: 0, ..ENGINE_ERROR };
    check_getstream(Getstream::ErrorObject("premium only".to_owned()), &expected);
}

#[test]
fn a_page_of_html_is_no_answer() {
    check_getstream(Getstream::Html, &Refusal { says: "HTML", opened: 0, stopped: 0, ..ENGINE_ERROR });
}

#[test]
fn broken_json_is_no_answer() {
    // The session it opens can be stopped by nobody: the answer breaks off before it says how.
    check_getstream(Getstream::BrokenJson, &Refusal { says: "not JSON", stopped: 0, ..ENGINE_ERROR });
}

#[test]
fn an_empty_answer_is_no_answer() {
    check_getstream(Getstream::EmptyResponse, &Refusal { says: "playback URL", stopped: 0, ..ENGINE_ERROR });
}

#[test]
fn a_session_without_playback_url_is_no_answer_and_is_stopped() {
    check_getstream(Getstream::NoPlaybackUrl, &Refusal { says: "playback URL", ..ENGINE_ERROR });
}

#[test]
fn status_404_on_getstream_is_told() {
    let expected = Refusal { says: "404", opened: 0, stopped: 0, ..ENGINE_ERROR };
    check_getstream(Getstream::Status(404, "nothing here".to_owned()), &expected);
}

#[test]
fn status_500_on_getstream_is_told() {
    let expected = Refusal { says: "500: out of order", opened: 0, stopped: 0, ..ENGINE_ERROR };
    check_getstream(Getstream::Status(500, "out of order".to_owned()), &expected);
}

#[test]
fn a_reset_on_getstream_is_told() {
    check_getstream(Getstream::Reset, &Refusal { says: "broke", opened: 0, stopped: 0, ..ENGINE_ERROR });
}

#[test]
fn numbers_as_strings_work() {
    let engine = scripted(Script::new().getstream(Getstream::NumbersAsStrings));
    check_plays(&engine, no_change, Duration::ZERO);
}

#[test]
fn an_answer_in_a_result_envelope_works() {
    let engine = scripted(Script::new().getstream(Getstream::ResultEnvelope));
    check_plays(&engine, no_change, Duration::ZERO);
}

#[test]
fn status_404_on_the_playback_url_is_told() {
    check_playback(
        PlaybackStep::status(404, "no such thing"),
        &Refusal { says: "404: no such thing", ..ENGINE_ERROR },
    );
}

#[test]
fn status_500_on_the_body_is_told() {
    let head = Head::Status(500, "download not found".to_owned());
    check_playback(PlaybackStep::head(head), &Refusal { says: "500: download not found", ..ENGINE_ERROR });
}

#[test]
fn an_engine_that_is_warming_up_is_asked_again() {
    let engine = scripted(Script::new());
    let (id, infohash) = (Digest::new([1; 20]), Digest::new([2; 20]));
    let mut cold =
        broadcast(id, infohash).script(Script::new().playback(PlaybackStep::entry(Entry::StartTimeout)));
    cold.delivery.prebuffer = Duration::from_secs(2);
    engine.add(cold);
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, id);
    viewer.take_packets(100);
    assert_whole(&viewer.leave());
    let counts = engine.counts();
    assert!(counts.getstreams == 1 && counts.playback_requests >= 2, "{counts:?}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn an_engine_that_stays_cold_is_given_up_at_the_connect_deadline_with_its_text() {
    let script = Script::new().playback(PlaybackStep::status(500, "start timeout")).stat(Call::Prebuffering);
    let expected = Refusal { says: "start timeout", after: Duration::ZERO, ..START_TIMEOUT };
    check_refused(&scripted(script), short_connect, |_| {}, &expected);
}

/// The deadline comes while its stat is waited for.
#[test]
fn an_engine_that_stays_cold_and_says_nothing_else_is_given_up_with_its_text_all_the_same() {
    let script = Script::new().playback(PlaybackStep::status(500, "start timeout")).stat(Call::Hang);
    let expected =
        Refusal { says: "within 1.5 s: the engine answered with status 500: start timeout", ..START_TIMEOUT };
    check_refused(&scripted(script), short_connect, |_| {}, &expected);
}

#[test]
fn headers_that_are_late_work() {
    check_plays(&scripted(Script::new().playback(PlaybackStep::head(Head::Late(LATE)))), short_connect, LATE);
}

#[test]
fn headers_that_are_too_late_are_given_up_at_the_connect_deadline() {
    let engine = scripted(Script::new().playback(PlaybackStep::head(Head::Never)));
    check_refused(&engine, short_connect, |_| {}, &Refusal { says: "within 1.", ..START_TIMEOUT });
}

#[test]
fn a_playback_url_without_an_answer_is_given_up_at_the_connect_deadline() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    check_refused(&engine, short_connect, |_| {}, &Refusal { says: "within 1.", ..START_TIMEOUT });
}

#[test]
fn data_that_is_late_works() {
    check_plays(
        &scripted(Script::new().playback(PlaybackStep::first_byte_after(LATE))),
        short_first_data,
        LATE,
    );
}

#[test]
fn a_body_without_a_byte_is_given_up_at_the_first_data_deadline() {
    let engine = scripted(Script::new().playback(PlaybackStep::never_a_byte()));
    check_refused(
        &engine,
        short_first_data,
        |_| {},
        &Refusal { says: "no picture within 1.5 s", ..START_TIMEOUT },
    );
}

#[test]
fn a_body_that_ends_without_data_is_told() {
    check_playback(
        PlaybackStep::after(0, BodyEvent::End),
        &Refusal { says: "ended the stream before", ..ENGINE_ERROR },
    );
}

#[test]
fn a_body_that_ends_after_one_packet_has_begun() {
    // Three sync bytes are enough at the end of a body, and one packet is a stream, however short.
    let engine = engine_with(short(1));
    let proxy = Proxy::start(&[&engine]);
    let (report, end) = Viewer::open(proxy.address, ID).finish();
    assert_eq!((report.numbered, report.last, end), (1, Some(0), End::Closed), "{report:?}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_body_that_is_reset_at_once_is_told() {
    // ureq takes the reset of a body without a length for its end.
    check_playback(PlaybackStep::after(0, BodyEvent::Reset), &Refusal { says: "the engine", ..ENGINE_ERROR });
}

#[test]
fn a_text_in_place_of_video_is_told() {
    let text = Head::Text { content_type: "text/html".to_owned(), body: "<p>sorry</p>".repeat(100) };
    check_playback(PlaybackStep::head(text), &Refusal { says: "not MPEG-TS", ..ENGINE_ERROR });
}

#[test]
fn endless_garbage_is_no_stream() {
    let garbage = PlaybackStep::after(0, BodyEvent::Garbage(3 * 1024 * 1024));
    check_playback(garbage, &Refusal { says: "not MPEG-TS", ..ENGINE_ERROR });
}

#[test]
fn a_redirect_loop_is_left() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Loop)));
    check_refused(&engine, no_change, |_| {}, &Refusal { says: "loop", ..ENGINE_ERROR });
    let requests = engine.counts_of(ID).playback_requests;
    assert!((2..=10).contains(&requests), "{requests}");
}

#[test]
fn every_url_of_a_foreign_host_is_followed_on_the_engine() {
    // The address is of a net that is for documentation only (RFC 5737).
    let host = acerelay::sim::HostName::Fixed("192.0.2.1:80".to_owned());
    let settings = Settings { host, ..Settings::default() };
    let engine = SimEngine::start_with(([127, 0, 0, 1], 0).into(), settings).expect("a free port");
    engine.add(broadcast(ID, INFOHASH));
    engine.add(broadcast(OTHER_ID, OTHER_INFOHASH));
    check_plays(&engine, no_change, Duration::ZERO);
}

#[test]
fn a_redirect_out_of_the_engine_s_playback_is_not_followed() {
    for url in ["/webui/app/x/cmd/shutdown", "http://192.0.2.1/etc", "/ace/../server/api"] {
        let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Elsewhere(url.to_owned()))));
        check_refused(&engine, no_change, |_| {}, &Refusal { says: "outside", ..ENGINE_ERROR });
        let path = url.trim_start_matches("http://192.0.2.1");
        assert!(engine.requests().iter().all(|request| request.path != path), "it asked for {path}");
    }
}

#[test]
fn a_relative_location_works() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Relative)));
    check_plays(&engine, no_change, Duration::ZERO);
}

#[test]
fn a_playback_url_that_is_the_body_itself_works() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Direct)));
    check_plays(&engine, no_change, Duration::ZERO);
}

#[test]
fn a_failed_start_is_remembered_for_5_s_and_then_tried_again() {
    let first_fails = Steps::first(1, Getstream::Error("not yet".to_owned()));
    let engine = scripted(Script::new().getstream(first_fails));
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get(&stream_path(ID));
    let (failed, detail) = (Instant::now(), reply.text());
    assert_eq!(reply.status, 502);
    let mut again = proxy.get(&stream_path(ID));
    assert_eq!((again.status, again.text()), (502, detail));
    assert_eq!(engine.counts().getstreams, 1, "who asks again at once gets the same answer");
    let mut viewer = loop {
        let reply = proxy.get(&stream_path(ID));
        if reply.status == 200 {
            break Viewer::of(reply);
        }
        assert!(failed.elapsed() < LONG, "it is never tried again");
        pause(Duration::from_millis(200));
    };
    assert!(failed.elapsed() > Duration::from_secs(4), "{:?}", failed.elapsed());
    viewer.take_packets(100);
    assert_whole(&viewer.leave());
    assert_eq!(engine.counts().getstreams, 2);
    assert_all_stopped(&engine, 1);
}

/// What was asked of an engine for the first content: sessions opened and stopped, in order.
fn opens_and_stops(engine: &SimEngine) -> Vec<&'static str> {
    let (id, infohash) = (ID.to_string(), INFOHASH.to_string());
    let what = |request: &acerelay::sim::RequestRecord| {
        if request.path == "/ace/getstream" && request.param("id") == Some(&id) {
            Some("open")
        } else if request.path.contains(&infohash) && request.param("method") == Some("stop") {
            Some("stop")
        } else {
            None
        }
    };
    engine.requests().iter().filter_map(what).collect()
}

/// The engine is restarted while the start waits for it to warm up.
#[test]
fn a_session_that_the_engine_forgot_before_it_played_is_opened_anew() {
    let cold = Steps::first(4, PlaybackStep::status(500, "start timeout"));
    let engine = scripted(Script::new().playback(cold).stat(Call::Prebuffering));
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "it is asked to play", |counts| counts.playback_requests >= 1);
    engine.forget_sessions();
    let mut viewer = Viewer::of(waiting.reply());
    viewer.take_packets(300);
    assert_whole(&viewer.leave());
    proxy.wait_gone(ID);
    assert_eq!(opens_and_stops(&engine), ["open", "stop", "open", "stop"]);
    let counts = engine.counts();
    assert_eq!(
        (counts.sessions_lost, counts.stops_unknown, counts.sessions_stopped),
        (1, 1, 1),
        "{counts:?}"
    );
    assert_eq!((counts.sessions_open, counts.readers_max), (0, 1), "{counts:?}");
    let mut players: Vec<_> = engine.requests();
    players.retain(|request| request.path == "/ace/getstream");
    assert_ne!(players[0].param("pid"), players[1].param("pid"));
}

/// Its own place and its own turn do not stand in the way of the second one.
#[test]
fn a_session_that_the_engine_says_it_does_not_know_is_opened_anew_at_once() {
    let start = || {
        let lost = Steps::first(1, PlaybackStep::status(403, "unknown playback session id"));
        let engine = scripted(Script::new().playback(lost));
        let proxy = Proxy::start_with(&[&engine], |config| {
            (config.engines[0].max_streams, config.engines[0].max_starts) = (1, 1);
        });
        let began = Instant::now();
        let mut viewer = Viewer::open(proxy.address, ID);
        let took = began.elapsed();
        viewer.take_packets(100);
        assert_whole(&viewer.leave());
        assert_all_stopped(&engine, 2);
        assert_eq!(opens_and_stops(&engine), ["open", "stop", "open", "stop"]);
        took
    };
    // At best of several, on a machine however busy; who waits for a turn waits for two seconds.
    let took = (0..3).map(|_| start()).min().expect("three");
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn an_engine_that_forgets_every_session_is_given_up_after_the_second() {
    check_playback(
        PlaybackStep::status(403, "unknown playback session id"),
        &Refusal { says: "does not know its playback session", opened: 2, stopped: 2, ..ENGINE_ERROR },
    );
    // And that is remembered, as any failure of the engine is: who asks again at once costs it nothing.
    let engine = scripted(Script::new().playback(PlaybackStep::status(403, "unknown playback session id")));
    let proxy = Proxy::start(&[&engine]);
    for _ in 0..3 {
        assert_eq!(proxy.get(&stream_path(ID)).status, 502);
    }
    assert_eq!(engine.counts().getstreams, 2);
}

/// An engine that is busy with what it loads is no reason to leave a player in the dark for longer than was configured.
#[test]
fn a_start_is_bounded_however_much_the_engine_loads() {
    let never = Script::new().playback(PlaybackStep::never_a_byte()).stat(Call::Filling(Fill::Rises));
    check_refused(
        &scripted(never),
        |config| config.stream.first_data_timeout = Duration::from_secs(8),
        |_| {},
        &Refusal { says: "no picture within 8.0 s", after: Duration::from_secs(8), ..START_TIMEOUT },
    );
}
