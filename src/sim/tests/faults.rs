//! Everything that can go wrong, each as a client sees it.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{
    BodyEvent, Call, Entry, Fill, Getstream, Head, Health, Order, PlaybackStep, Script, SimEngine, Steps,
};
use super::client::*;

const MOMENT: Duration = Duration::from_millis(100);

fn getstream(engine: &SimEngine) -> Answer {
    get(engine, &format!("/ace/getstream?format=json&id={ID}&pid=1"))
}

fn with_getstream(step: Getstream) -> (SimEngine, Answer) {
    let engine = scripted(Script::new().getstream(step));
    let answer = getstream(&engine);
    (engine, answer)
}

fn with_playback(playback: PlaybackStep) -> (SimEngine, Answer) {
    let engine = scripted(Script::new().playback(playback));
    let answer = play(&engine);
    (engine, answer)
}

fn is_reset(mut socket: TcpStream) -> bool {
    let read = std::io::Read::read(&mut socket, &mut [0]);
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn getstream_can_fail_in_words() {
    let (engine, mut answer) = with_getstream(Getstream::Error("no such thing".to_owned()));
    assert_eq!(answer.text(), r#"{"response": null, "error": "no such thing"}"#);
    assert_eq!(engine.counts().sessions_opened, 0);
    let (_, mut answer) = with_getstream(Getstream::ErrorObject("no".to_owned()));
    assert_eq!(answer.text(), r#"{"response": null, "error": {"code": 0, "message": "no"}}"#);
    let (_, mut answer) = with_getstream(Getstream::Status(404, "nothing".to_owned()));
    assert_eq!((answer.status, answer.text().as_str()), (404, "nothing"));
    let (_, mut answer) = with_getstream(Getstream::Html);
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/html")));
    assert!(answer.text().starts_with("<html>"));
}

#[test]
fn getstream_can_answer_what_is_no_start_answer() {
    let (engine, mut answer) = with_getstream(Getstream::BrokenJson);
    assert!(serde_json::from_str::<Value>(&answer.text()).is_err());
    assert_eq!(engine.counts().sessions_open, 1);
    let (_, mut answer) = with_getstream(Getstream::NoPlaybackUrl);
    let json = answer.json();
    assert!(json["response"]["playback_url"].is_null() && json["response"]["command_url"].is_string());
    let (_, mut answer) = with_getstream(Getstream::EmptyResponse);
    assert_eq!(answer.text(), r#"{"response": {}, "error": null}"#);
    let (_, mut answer) = with_getstream(Getstream::NumbersAsStrings);
    assert_eq!(answer.json()["response"]["is_live"], "1");
    let (_, mut answer) = with_getstream(Getstream::ResultEnvelope);
    let json = answer.json();
    assert!(json["result"]["playback_url"].is_string() && json.get("response").is_none());
}

#[test]
fn getstream_can_be_slow_hang_or_be_reset() {
    let began = Instant::now();
    let (_, answer) = with_getstream(Getstream::Slow(MOMENT));
    assert!(answer.status == 200 && began.elapsed() >= MOMENT);
    let engine = scripted(Script::new().getstream(Steps::each([Getstream::Hang, Getstream::Reset])));
    let target = format!("/ace/getstream?format=json&id={ID}");
    let hanging = send(&engine, &target);
    assert!(engine.wait_for(LONG, |counts| counts.getstreams_now == 1));
    assert!(is_reset(send(&engine, &target)));
    start_as(&engine, "1");
    drop(hanging);
    assert!(engine.wait_for(LONG, |counts| counts.getstreams_now == 0));
    assert_eq!(engine.counts().sessions_opened, 1);
}

#[test]
fn a_script_counts_attempts_and_can_be_replaced() {
    let fail = Getstream::Error("not yet".to_owned());
    let engine = scripted(Script::new().getstream(Steps::first(2, fail.clone())));
    let fails: Vec<_> = (0..4).map(|_| !getstream(&engine).json()["error"].is_null()).collect();
    assert_eq!(fails, [true, true, false, false]);
    let steps = Steps::each([Getstream::Normal]).then(fail);
    engine.set_script(INFOHASH, Script::new().getstream(steps));
    let fails: Vec<_> = (0..3).map(|_| !getstream(&engine).json()["error"].is_null()).collect();
    assert_eq!(fails, [false, true, true]);
}

#[test]
fn the_playback_url_can_refuse_or_lead_astray() {
    let redirect = |entry: Entry| {
        let engine = scripted(Script::new().playback(PlaybackStep::entry(entry)));
        let started = start_as(&engine, "1");
        let url = started.url("playback_url").to_owned();
        let mut answer = get(&engine, &url);
        let text = if answer.status == 302 {
            answer.header("Location").expect("a Location").to_owned()
        } else {
            answer.text()
        };
        (answer.status, text, url)
    };
    let (status, text, _) = redirect(Entry::Status(403, "stale".to_owned()));
    assert_eq!((status, text.as_str()), (403, "stale"));
    let (_, location, url) = redirect(Entry::Loop);
    assert_eq!(location, url);
    for foreign in ["http://192.0.2.1:80/content/x", "/etc/passwd", "https://127.0.0.1/ace/r/x"] {
        let (status, location, _) = redirect(Entry::Elsewhere(foreign.to_owned()));
        assert_eq!((status, location.as_str()), (302, foreign));
    }
    let (_, location, _) = redirect(Entry::Relative);
    assert!(location.starts_with(&format!("/content/{INFOHASH}/")), "{location}");
}

#[test]
fn the_playback_url_can_be_late_silent_or_not_ready() {
    let engine = scripted(Script::new().playback(Steps::each([
        PlaybackStep::entry(Entry::Direct),
        PlaybackStep::entry(Entry::Never),
        PlaybackStep::entry(Entry::Late(MOMENT)),
    ])));
    let started = start_as(&engine, "1");
    let mut direct = get(&engine, started.url("playback_url"));
    assert_eq!((direct.status, direct.take(1)[0]), (200, 0x47));
    drop(direct);
    let path = started.url("playback_url").replacen(&engine.url(), "", 1);
    let silent = send(&engine, &path);
    assert!(engine.wait_for(LONG, |counts| counts.playback_requests == 2));
    silent.set_read_timeout(Some(MOMENT)).expect("a live socket");
    let read = std::io::Read::read(&mut &silent, &mut [0]);
    assert!(read.is_err(), "{read:?}");
    let began = Instant::now();
    assert_eq!(started.play(&engine).status, 200);
    assert!(began.elapsed() >= MOMENT);
    let mut content = content(ID, INFOHASH);
    content.delivery.prebuffer = MOMENT;
    content.script = Script::new().playback(PlaybackStep::entry(Entry::StartTimeout));
    let engine = empty(super::super::Settings::default());
    engine.add(content);
    let started = start_as(&engine, "1");
    let mut answer = get(&engine, started.url("playback_url"));
    while answer.status == 500 {
        assert_eq!(answer.text(), "start timeout");
        answer = get(&engine, started.url("playback_url"));
    }
    assert_eq!(answer.status, 302);
}

#[test]
fn the_head_of_a_body_can_be_wrong_late_or_missing() {
    let (_engine, mut answer) = with_playback(PlaybackStep::head(Head::Status(404, "gone".to_owned())));
    assert_eq!((answer.status, answer.text().as_str()), (404, "gone"));
    let (_engine, mut answer) = with_playback(PlaybackStep::head(Head::Text {
        content_type: "text/html".to_owned(),
        body: "<p>no</p>".to_owned(),
    }));
    assert_eq!((answer.status, answer.text().as_str()), (200, "<p>no</p>"));
    let began = Instant::now();
    let (_engine, answer) = with_playback(PlaybackStep::head(Head::Late(MOMENT)));
    assert!(answer.status == 200 && began.elapsed() >= MOMENT);
    let engine = scripted(Script::new().playback(PlaybackStep::head(Head::Never)));
    let redirect = get(&engine, start_as(&engine, "1").url("playback_url"));
    let target = redirect.header("Location").expect("a Location").replacen(&engine.url(), "", 1);
    let socket = send(&engine, &target);
    assert!(engine.wait_for(LONG, |counts| counts.readers == 1));
    drop(socket);
    assert!(engine.wait_for(LONG, |counts| counts.readers == 0));
    assert_eq!(engine.counts().playbacks, 0);
}

#[test]
fn a_body_can_be_late_or_never_begin() {
    let began = Instant::now();
    let (_engine, mut answer) = with_playback(PlaybackStep::first_byte_after(MOMENT));
    answer.take(1);
    assert!(began.elapsed() >= MOMENT);
    let (engine, mut answer) = with_playback(PlaybackStep::never_a_byte());
    assert!(answer.is_silent());
    drop(answer);
    assert!(engine.wait_for(LONG, |counts| counts.readers == 0));
    assert_eq!(engine.counts().bytes_sent, 0);
}

#[test]
fn a_body_can_stall_end_or_be_reset_at_any_byte() {
    let (_engine, mut answer) = with_playback(PlaybackStep::after(100_001, BodyEvent::Stall));
    answer.take(100_001);
    assert!(answer.is_silent());
    let (_engine, mut answer) = with_playback(PlaybackStep::after(100_001, BodyEvent::End));
    let (bytes, end) = answer.read_to_end();
    assert_eq!((bytes.len(), end), (100_001, End::Clean));
    // A reset may overtake what the client has not read; it never comes as a clean end.
    let (engine, mut answer) = with_playback(PlaybackStep::after(100_001, BodyEvent::Reset));
    let (bytes, end) = answer.read_to_end();
    assert!(bytes.len() <= 100_001 && end == End::Reset);
    assert_eq!(engine.counts().bytes_sent, 100_001);
    let (_engine, mut answer) = with_playback(PlaybackStep::after(0, BodyEvent::End));
    assert_eq!(answer.read_to_end(), (Vec::new(), End::Clean));
}

#[test]
fn a_body_can_pause_and_go_on() {
    let (_engine, mut answer) = with_playback(PlaybackStep::after(1000, BodyEvent::Pause(MOMENT)));
    let began = Instant::now();
    let report = check(&answer.take(188 * 1000));
    assert!(report.is_perfect() && began.elapsed() >= MOMENT / 2, "{report:?}");
}

#[test]
fn a_body_can_hold_garbage_and_tears() {
    let (_engine, mut answer) = with_playback(PlaybackStep::after(0, BodyEvent::Garbage(1001)));
    let report = check(&answer.take(200_000));
    assert_eq!((report.skipped_bytes, report.gap_count, report.first), (1001, 0, Some(0)));
    let playback =
        PlaybackStep::after(18_850, BodyEvent::Garbage(77)).and_after(188_050 + 77, BodyEvent::Tear(40));
    let (_engine, mut answer) = with_playback(playback);
    let report = check(&answer.take(400_000));
    assert_eq!((report.sync_losses, report.psi_damaged), (2, 0), "{report:?}");
    assert!(report.missing >= 2 && report.missing <= 5, "{report:?}");
}

#[test]
fn running_bodies_obey_orders() {
    let engine = engine();
    let mut body = play(&engine);
    body.take(1000);
    assert_eq!(engine.order(ID, Order::Stall), 1);
    body.fall_silent();
    engine.order(INFOHASH, Order::Resume);
    body.take(1_000_000);
    engine.order(ID, Order::End);
    assert_eq!(body.read_to_end().1, End::Clean);
    assert!(engine.wait_for(LONG, |counts| counts.readers == 0));
    let mut body = play(&engine);
    // This reader does not read: the order must reach a write that blocks.
    body.take(1000);
    engine.order(ID, Order::Reset);
    assert!(engine.wait_for_content(ID, LONG, |counts| counts.readers == 0));
    assert_eq!(body.read_to_end().1, End::Reset);
    assert_eq!(engine.order(ID, Order::End), 0);
}

#[test]
fn stop_can_fail_hang_or_talk_nonsense() {
    let stop = |call: Call| {
        let engine = scripted(Script::new().stop(call));
        let started = start_as(&engine, "1");
        let mut answer = get(&engine, &format!("{}?method=stop", started.url("command_url")));
        let text = answer.text();
        (answer.status, text, engine.counts().sessions_open)
    };
    assert_eq!(stop(Call::Status(500, "no".to_owned())), (500, "no".to_owned(), 1));
    assert_eq!(stop(Call::Text("fine".to_owned())), (200, "fine".to_owned(), 0));
    let refused = r#"{"response": null, "error": "no"}"#.to_owned();
    assert_eq!(stop(Call::Error("no".to_owned())), (200, refused, 1));
    let ok = r#"{"response": "ok", "error": null}"#.to_owned();
    assert_eq!(stop(Call::Slow(MOMENT)), (200, ok, 0));
    let engine = scripted(Script::new().stop(Steps::each([Call::Hang, Call::Reset])));
    for pid in ["1", "2"] {
        let started = start_as(&engine, pid);
        let path = started.url("command_url").replacen(&engine.url(), "", 1);
        let socket = send(&engine, &format!("{path}?method=stop"));
        assert!(engine.wait_for(LONG, |counts| counts.sessions_open == 0));
        assert!(pid == "1" || is_reset(socket));
    }
    assert_eq!(engine.counts().sessions_stopped, 2);
}

#[test]
fn stat_can_fail_or_never_get_on() {
    let unknown = "unknown playback session id";
    let steps = [
        Call::Status(500, "no".to_owned()),
        Call::Error(unknown.to_owned()),
        Call::Prebuffering,
        Call::Prebuffering,
    ];
    let engine = scripted(Script::new().stat(Steps::each(steps)));
    let started = start_as(&engine, "1");
    let url = started.url("stat_url");
    assert_eq!(get(&engine, url).status, 500);
    assert_eq!(get(&engine, url).json()["error"], unknown);
    assert_eq!(get(&engine, url).text(), r#"{"response": {}, "error": null}"#);
    let stat = get(&engine, url).json();
    assert_eq!((&stat["response"]["status"], &stat["response"]["downloaded"]), (&"prebuf".into(), &0.into()));
}

#[test]
fn stat_can_tell_of_loading_whatever_is_sent() {
    for (fill, downloads, progresses) in
        [(Fill::Rises, true, false), (Fill::Progresses, false, true), (Fill::StandsStill, false, false)]
    {
        let engine = scripted(Script::new().stat(Call::Filling(fill)));
        let started = start_as(&engine, "1");
        let stat = || get(&engine, started.url("stat_url")).json()["response"].clone();
        let first = stat();
        assert_eq!((&first["status"], &first["peers"]), (&"buf".into(), &5.into()), "{first}");
        let number = |stat: &Value, field: &str| stat[field].as_u64().expect("a number");
        let began = Instant::now();
        let (mut has_downloaded, mut has_progressed) = (false, false);
        while began.elapsed() < Duration::from_millis(1200) {
            engine.wait_for(MOMENT, |_| false);
            let now = stat();
            has_downloaded |= number(&now, "downloaded") > number(&first, "downloaded");
            has_progressed |= number(&now, "progress") > number(&first, "progress");
        }
        assert_eq!((has_downloaded, has_progressed), (downloads, progresses), "{fill:?}");
        assert_eq!(engine.counts().bytes_sent, 0);
    }
}

/// Restarted so fast that nobody finds it closed.
#[test]
fn an_engine_can_forget_its_sessions() {
    let engine = scripted(Script::new());
    let started = start_as(&engine, "1");
    engine.forget_sessions();
    let error = get(&engine, started.url("stat_url")).json()["error"].clone();
    assert_eq!(error, "unknown playback session id");
    let counts = engine.counts();
    assert_eq!((counts.sessions_open, counts.sessions_lost, counts.sessions_opened), (0, 1, 1), "{counts:?}");
    assert_eq!(get(&engine, start_as(&engine, "1").url("stat_url")).status, 200);
}

#[test]
fn an_engine_can_be_ill() {
    let engine = engine();
    let version = "/webui/api/service?method=get_version";
    let status = "/server/api?api_version=3&method=get_status";
    engine.set_health(Health::Loading);
    assert_eq!(get(&engine, status).json()["result"]["playlist_loaded"], false);
    engine.set_health(Health::Fails(503, "busy".to_owned()));
    assert_eq!((get(&engine, status).status, get(&engine, version).status), (503, 503));
    start_as(&engine, "1");
    engine.set_health(Health::StatusHangs);
    assert_eq!(get(&engine, version).status, 200);
    let hanging = send(&engine, status);
    assert!(engine.wait_for(LONG, |counts| counts.health_checks == 5));
    engine.set_health(Health::Hangs);
    let stuck = send(&engine, version);
    let answer = |socket: &TcpStream| {
        socket.set_read_timeout(Some(MOMENT)).expect("a live socket");
        std::io::Read::read(&mut &*socket, &mut [0]).is_ok()
    };
    assert!(!answer(&hanging) && !answer(&stuck));
}

#[test]
fn a_refusing_engine_keeps_its_port_and_comes_back() {
    let engine = engine();
    let mut body = play(&engine);
    engine.refuse().expect("the port is kept");
    let error = TcpStream::connect(engine.addr()).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    body.take(100_000);
    engine.refuse().expect("twice does no harm");
    engine.accept().expect("it listens again");
    engine.accept().expect("twice does no harm");
    start_as(&engine, "2");
}

#[test]
fn a_crash_resets_bodies_and_loses_sessions() {
    let engine = engine();
    let started = start_as(&engine, "1");
    let mut body = started.play(&engine);
    body.take(1000);
    engine.crash().expect("the port is kept");
    assert_eq!(body.read_to_end().1, End::Reset);
    assert!(TcpStream::connect(engine.addr()).is_err());
    engine.accept().expect("it listens again");
    assert_eq!(get(&engine, started.url("stat_url")).json()["error"], "unknown playback session id");
    let counts = engine.counts();
    assert_eq!((counts.sessions_lost, counts.sessions_open), (1, 0));
}

#[test]
fn a_start_that_was_under_way_dies_with_the_engine() {
    let engine = scripted(Script::new().getstream(Steps::first(1, Getstream::Slow(LONG))));
    let mut socket = send(&engine, &format!("/ace/getstream?format=json&id={ID}"));
    assert!(engine.wait_for(LONG, |counts| counts.getstreams_now == 1));
    engine.crash().expect("the port is kept");
    assert!(engine.wait_for(LONG, |counts| counts.getstreams_now == 0));
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut socket, &mut rest);
    assert_eq!((rest.len(), engine.counts().sessions_opened), (0, 0));
}

#[test]
fn a_dropped_engine_ends_whatever_it_was_doing() {
    let hang = Script::new().getstream(Steps::each([Getstream::Normal, Getstream::Hang]));
    let engine = scripted(hang);
    let mut idle = connect(&engine);
    let mut body = play(&engine);
    body.take(1000);
    let hanging = send(&engine, &format!("/ace/getstream?format=json&id={ID}&pid=2"));
    assert!(engine.wait_for(LONG, |counts| counts.getstreams_now == 1 && counts.readers == 1));
    let began = Instant::now();
    drop(engine);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    body.read_to_end();
    for socket in [&mut idle, &mut { hanging }] {
        let mut rest = Vec::new();
        // Closed or reset: ended, in any case.
        let _ = std::io::Read::read_to_end(socket, &mut rest);
        assert!(rest.is_empty());
    }
}
