//! A source is lost and found again under the feet of its clients.

use std::time::{Duration, Instant};

use acerelay::config::Config;
use acerelay::sim::{
    BodyEvent, Burst, Call, Content, Delivery, EndedReaders, Entry, Framing, Getstream, Head, Health, Media,
    Numbered, Order, PlaybackStep, RequestRecord, Script, SessionRules, Settings, SimEngine, Steps,
};

use super::harness::{
    Bystander, End, ID, INFOHASH, LONG, OTHER_ID, OTHER_INFOHASH, Proxy, SLACK, Viewer, assert_all_stopped,
    assert_seamed, broadcast, engine, engine_with, pause, scripted, stream_path, wait_engine,
};

/// Long enough for everything here.
fn recovering(config: &mut Config) {
    config.stream.recover_timeout = LONG;
}

/// A source that is lost in this way for its first readers, once so much of it was sent.
fn lost_first(count: usize, event: BodyEvent) -> Script {
    Script::new().playback(Steps::first(count, PlaybackStep::after(400_000, event)))
}

fn requests_of(engine: &SimEngine, path: &str) -> Vec<RequestRecord> {
    engine.requests().into_iter().filter(|request| request.path.starts_with(path)).collect()
}

#[track_caller]
fn check_clients_stay(change: fn(&mut Config), order: Order) {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        recovering(config);
        change(config);
    });
    let bystander = Bystander::watch(&proxy);
    let mut viewers = [ID, ID].map(|id| Viewer::open(proxy.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(300));
    assert_eq!(engine.order(ID, order), 1);
    viewers.iter_mut().for_each(|viewer| viewer.take_seams(1));
    let session = proxy.session(ID);
    assert_eq!((&session["state"], &session["restarts"]), (&"active".into(), &1.into()), "{session:#}");
    assert_eq!(session["client_count"], 2);
    let getstreams: Vec<_> = requests_of(&engine, "/ace/")
        .into_iter()
        .filter(|request| request.path.contains(&INFOHASH.to_string()) || request.param("id").is_some())
        .filter(|request| request.param("id") != Some(&OTHER_ID.to_string()))
        .filter(|request| !request.path.contains("/stat/") && !request.path.contains("/r/"))
        .collect();
    let what: Vec<_> = getstreams.iter().map(|request| request.param("method").unwrap_or("open")).collect();
    assert_eq!(what, ["open", "stop", "open"], "the old session is stopped before the new one is opened");
    assert_ne!(getstreams[0].param("pid"), getstreams[2].param("pid"));
    for viewer in viewers {
        assert_seamed(&viewer.leave(), 1);
    }
    bystander.assert_undisturbed();
    proxy.wait_gone(ID);
    let counts = engine.counts_of(ID);
    assert_eq!((counts.sessions_opened, counts.stops, counts.readers_max), (2, 2, 1), "{counts:?}");
}

#[test]
fn clients_stay_when_the_body_ends() {
    check_clients_stay(|_| {}, Order::End);
}

#[test]
fn clients_stay_when_the_body_is_reset() {
    check_clients_stay(|_| {}, Order::Reset);
}

#[test]
fn clients_stay_when_the_source_falls_silent() {
    check_clients_stay(|config| config.stream.stall_timeout = Duration::from_secs(1), Order::Stall);
}

#[test]
fn a_source_that_comes_back_within_the_stall_limit_is_not_lost() {
    let script =
        Script::new().playback(PlaybackStep::after(400_000, BodyEvent::Pause(Duration::from_millis(1500))));
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(4000);
    super::harness::assert_whole(&viewer.leave());
    assert_all_stopped(&engine, 1);
}

/// For four seconds nothing but null packets, 50 of them every 200 ms.
#[test]
fn null_packets_alone_are_silence() {
    const NULLS: u64 = 50;
    // The body begins 71 bytes into a packet; this is the end of one.
    let from = 117 + 188 * 2000;
    let mut playback = PlaybackStep::normal();
    for round in 0..20 {
        let at = from + round * NULLS * 188;
        playback = playback
            .and_after(at, BodyEvent::Pause(Duration::from_millis(200)))
            .and_after(at, BodyEvent::NullPackets(NULLS as usize));
    }
    let engine = scripted(Script::new().playback(Steps::each([playback])));
    let proxy = Proxy::start_with(&[&engine], |config| {
        recovering(config);
        config.stream.stall_timeout = Duration::from_secs(1);
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(1);
    let nulls = viewer.report().null_packets;
    assert!((NULLS..15 * NULLS).contains(&nulls), "{:?}", viewer.report());
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 2);
}

#[test]
fn an_engine_that_is_ill_is_given_3_s_of_silence() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        recovering(config);
        config.health.failures = 1;
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(300);
    engine.order(ID, Order::Stall);
    engine.set_health(Health::Fails(500, "ill".to_owned()));
    let began = Instant::now();
    proxy.wait_session(ID, "the source counts as lost", |session| session["state"] == "recovering");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(3) + SLACK, "{took:?}");
    // While it is ill nothing is asked of it; then the stream goes on.
    assert_eq!(engine.counts().getstreams, 1);
    engine.set_health(Health::Ready);
    viewer.take_seams(1);
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 2);
}

/// Somebody else stops the content on the engine; the readers of an ended session see only silence.
#[test]
fn a_session_that_the_engine_does_not_know_any_more_is_lost_after_5_s() {
    let rules = SessionRules { ended_readers: EndedReaders::Stall, ..SessionRules::default() };
    let settings = Settings { rules, ..Settings::default() };
    let engine = SimEngine::start_with(([127, 0, 0, 1], 0).into(), settings).expect("a free port");
    engine.add(broadcast(ID, INFOHASH));
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(300);
    let mut other = super::harness::Connection::open(engine.addr())
        .get(&format!("/ace/getstream?id={ID}&format=json&pid=other"));
    let opened: serde_json::Value = serde_json::from_slice(&other.bytes().0).expect("an answer");
    let command = opened["response"]["command_url"].as_str().expect("a URL").to_owned();
    let path = command.strip_prefix(&engine.url()).expect("it is of this engine");
    let stop = super::harness::Connection::open(engine.addr()).get(&format!("{path}?method=stop"));
    assert_eq!(stop.status, 200);
    let began = Instant::now();
    viewer.take_seams(1);
    // The stall limit is 30 s.
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(12), "{took:?}");
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn a_source_that_flows_is_not_given_up_for_a_word_of_its_engine() {
    let error = Call::Error("unknown playback session id".to_owned());
    let engine = scripted(Script::new().stat(error));
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    let asked = engine.counts_of(ID).stats;
    while engine.counts_of(ID).stats < asked + 2 {
        viewer.take_packets(100);
    }
    super::harness::assert_whole(&viewer.leave());
    assert_all_stopped(&engine, 1);
}

#[test]
fn null_packets_keep_the_clients_of_a_lost_source() {
    let late = PlaybackStep::first_byte_after(Duration::from_secs(3));
    let script = Script::new().playback(Steps::each([PlaybackStep::after(400_000, BodyEvent::End), late]));
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], |config| {
        recovering(config);
        config.stream.keepalive = Some(Duration::from_millis(200));
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(1);
    assert!((2..40).contains(&viewer.report().null_packets), "{:?}", viewer.report());
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 2);
}

#[test]
fn who_comes_while_the_source_is_recovered_waits_and_begins_behind_the_gap() {
    let late = PlaybackStep::head(Head::Late(Duration::from_secs(3)));
    let script = Script::new().playback(Steps::each([PlaybackStep::after(400_000, BodyEvent::End), late]));
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut early = Viewer::open(proxy.address, ID);
    proxy.wait_session(ID, "it is lost", |session| session["state"] == "recovering");
    let mut late = proxy.ask(ID);
    let session = proxy.wait_session(ID, "somebody waits", |session| session["waiting_count"] == 1);
    assert_eq!((&session["state"], &session["is_active"]), (&"recovering".into(), &true.into()));
    assert!(late.is_silent_for(Duration::from_millis(300)));
    let mut late = Viewer::of(late.reply());
    late.take_packets(300);
    early.take_seams(1);
    let gap = early.report().gaps.first().copied().expect("the source was away for seconds");
    let late = late.leave();
    assert!(late.begins_with_key_frame && late.first > Some(gap.after), "{gap:?} {late:?}");
    assert_seamed(&late, 1.min(late.announced_breaks));
    assert_seamed(&early.leave(), 1);
    assert_all_stopped(&engine, 2);
}

#[test]
fn attempts_follow_each_other_after_0_1_and_2_s() {
    let refused = || Getstream::Error("not now".to_owned());
    let script =
        lost_first(1, BodyEvent::End).getstream(Steps::each([Getstream::Normal, refused(), refused()]));
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], recovering);
    let bystander = Bystander::watch(&proxy);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(1);
    let ours = ID.to_string();
    let asked: Vec<_> = requests_of(&engine, "/ace/getstream")
        .into_iter()
        .filter(|request| request.param("id") == Some(&ours))
        .map(|request| request.at)
        .collect();
    assert_eq!(asked.len(), 4);
    for (pair, pause) in asked[1..].windows(2).zip([1, 2]) {
        let pause = Duration::from_secs(pause);
        let took = pair[1].saturating_sub(pair[0]);
        assert!(took >= pause && took < pause + SLACK, "{took:?} in place of {pause:?}");
    }
    assert_seamed(&viewer.leave(), 1);
    bystander.assert_undisturbed();
    assert_all_stopped(&engine, 3);
}

#[test]
fn a_source_that_does_not_come_back_in_time_ends_its_clients() {
    let error = Getstream::Error("gone off the air".to_owned());
    let script = lost_first(1, BodyEvent::End).getstream(Steps::first(1, Getstream::Normal).then(error));
    let engine = scripted(script);
    let limit = Duration::from_secs(2);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = limit);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(300);
    let began = Instant::now();
    let (report, end) = viewer.finish();
    let took = began.elapsed();
    assert_eq!(end, End::Closed);
    super::harness::assert_whole(&report);
    assert!(took >= limit && took < limit + SLACK + Duration::from_secs(2), "{took:?}");
    proxy.wait_gone(ID);
    let error = proxy.session(ID)["error"].as_str().expect("an error").to_owned();
    assert_eq!(error, "the engine ended the stream, and it did not come back within 2.0 s");
    assert_all_stopped(&engine, 1);
}

#[test]
fn who_waits_for_a_source_that_does_not_come_back_is_told_why() {
    let error = Getstream::Error("gone off the air".to_owned());
    let script = lost_first(1, BodyEvent::End).getstream(Steps::first(1, Getstream::Normal).then(error));
    let engine = scripted(script);
    let proxy =
        Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = Duration::from_secs(3));
    let viewer = Viewer::open(proxy.address, ID);
    proxy.wait_session(ID, "it is lost", |session| session["state"] == "recovering");
    let mut reply = proxy.get(&stream_path(ID));
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (502, &"engine_error".into()), "{json}");
    let detail = "the engine ended the stream, and it did not come back within 3.0 s";
    assert_eq!(json["detail"], detail);
    assert_eq!(viewer.finish().1, End::Closed);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_stream_can_be_deleted_while_its_source_is_lost() {
    let script = lost_first(1, BodyEvent::End).playback(
        Steps::each([PlaybackStep::after(400_000, BodyEvent::End)]).then(PlaybackStep::entry(Entry::Never)),
    );
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], recovering);
    let viewer = Viewer::open(proxy.address, ID);
    wait_engine(&engine, "it is asked again", |counts| counts.playback_requests == 2);
    let waiting = proxy.ask(ID);
    proxy.wait_session(ID, "somebody waits", |session| session["waiting_count"] == 1);
    let mut connection = proxy.connect();
    connection.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
    assert_eq!(connection.reply().status, 204);
    let (report, end) = viewer.finish();
    assert_eq!(end, End::Complete);
    super::harness::assert_whole(&report);
    assert_eq!(waiting.reply().status, 404);
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 2);
}

/// Its clients take nothing for a while, so neither is anything taken from it.
#[test]
fn a_source_that_is_made_to_wait_is_not_silent() {
    let stall = Duration::from_secs(1);
    let media = Media::Numbered(Numbered::at_rate(20_000_000));
    let engine = engine_with(Content::live(ID, INFOHASH, media).delivery(Delivery::unlimited()));
    let proxy = Proxy::start_with(&[&engine], |config| {
        recovering(config);
        config.stream.stall_timeout = stall;
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(100);
    let sent = |engine: &SimEngine| engine.counts().bytes_sent;
    let mut last = (sent(&engine), Instant::now());
    let began = Instant::now();
    // The engine stands still for longer than a silent source may, and not because of itself.
    while last.1.elapsed() < 3 * stall {
        assert!(began.elapsed() < LONG, "the engine is never made to wait");
        pause(Duration::from_millis(50));
        let now = sent(&engine);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    viewer.take_packets(100_000);
    super::harness::assert_whole(&viewer.leave());
    let session = proxy.session(ID);
    assert_eq!(session["restarts"], 0, "{session:#}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_source_that_gives_next_to_nothing_three_times_is_unstable() {
    let engine = scripted(Script::new().playback(PlaybackStep::after(20_000, BodyEvent::End)));
    let proxy = Proxy::start_with(&[&engine], recovering);
    let (_, end) = Viewer::open(proxy.address, ID).finish();
    assert_eq!(end, End::Closed);
    proxy.wait_gone(ID);
    let session = proxy.session(ID);
    assert_eq!(session["error"], "the engine ended the stream 3 times at once");
    assert_all_stopped(&engine, 3);
}

/// As a source that ends every five seconds, six times as fast.
#[test]
fn a_source_that_ends_again_and_again_keeps_its_clients_for_ever() {
    let shape = Numbered { key_every: 5, ..Numbered::default() };
    let delivery = Delivery { burst: Burst::Time(Duration::ZERO), ..Delivery::default() };
    let script = Script::new().playback(PlaybackStep::after(800_000, BodyEvent::End));
    let content = Content::live(ID, INFOHASH, Media::Numbered(shape)).delivery(delivery).script(script);
    let engine = engine_with(content);
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(6);
    let report = viewer.leave();
    assert_seamed(&report, 6);
    // Each is looked for at once, so a gap is below a second of this stream of 8 Mbit/s, as long as the machine has time.
    let missing: Vec<_> = report.gaps.iter().map(|gap| gap.missing).collect();
    assert!(missing.iter().filter(|missing| **missing > 5000).count() <= 2, "{missing:?}");
    assert!(proxy.session(ID)["restarts"].as_u64() >= Some(6));
    proxy.wait_gone(ID);
    let counts = engine.counts();
    assert_eq!((counts.sessions_opened, counts.readers_max), (counts.stops, 1), "{counts:?}");
}

#[test]
fn when_everybody_leaves_a_lost_source_nothing_more_is_tried() {
    let script = lost_first(1, BodyEvent::End).playback(
        Steps::each([PlaybackStep::after(400_000, BodyEvent::End)]).then(PlaybackStep::entry(Entry::Never)),
    );
    let engine = scripted(script);
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(300);
    wait_engine(&engine, "it is asked again", |counts| counts.playback_requests == 2);
    drop(viewer.leave());
    proxy.wait_gone(ID);
    assert!(proxy.session(ID)["error"].is_null());
    assert_all_stopped(&engine, 2);
}

#[test]
fn the_end_of_a_film_is_its_end() {
    let media = Media::Numbered(Numbered::at_rate(2_000_000).end_after(3000));
    let engine = engine_with(Content::film(ID, INFOHASH, media).delivery(super::harness::whole()));
    let proxy = Proxy::start_with(&[&engine], recovering);
    let (report, end) = Viewer::open(proxy.address, ID).finish();
    assert_eq!((report.numbered, end), (3000, End::Complete));
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_film_that_is_lost_in_its_middle_is_not_begun_anew() {
    let media = Media::Numbered(Numbered::at_rate(2_000_000).end_after(9000));
    let delivery = Delivery { framing: Framing::Length(9000 * 188), ..super::harness::whole() };
    let film = Content::film(ID, INFOHASH, media).delivery(delivery);
    let engine = engine_with(film.script(lost_first(1, BodyEvent::Reset)));
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    let end = viewer.take_to_end();
    assert!(end != End::Complete && viewer.report().numbered < 3000, "{end:?}: {:?}", viewer.report());
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
}

#[test]
fn an_engine_that_is_warming_up_is_asked_again_until_it_plays() {
    let content = broadcast(ID, INFOHASH)
        .delivery(Delivery { prebuffer: Duration::from_millis(1500), ..Delivery::default() })
        .script(Script::new().playback(PlaybackStep::entry(Entry::StartTimeout)));
    let engine = engine_with(content);
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(100);
    super::harness::assert_whole(&viewer.leave());
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.playback_requests), (1, 3), "{counts:?}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn an_engine_that_never_gets_warm_is_given_up_with_its_last_text() {
    let script = Script::new().playback(PlaybackStep::status(500, "start timeout")).stat(Call::Prebuffering);
    let engine = scripted(script);
    let limit = Duration::from_millis(2500);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.connect_timeout = limit);
    let mut reply = proxy.get(&stream_path(ID));
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (504, &"start_timeout".into()));
    let detail = json["detail"].as_str().expect("a sentence");
    assert!(detail.contains("start timeout"), "{detail}");
    assert!(engine.counts().playback_requests >= 2);
    assert_all_stopped(&engine, 1);
}

#[test]
fn an_id_that_is_an_infohash_is_asked_for_as_one() {
    let engine = engine();
    engine.add(broadcast(OTHER_INFOHASH, acerelay::id::Digest::new([0x77; 20])));
    let proxy = Proxy::start(&[&engine]);
    // Known as an infohash only.
    let mut viewer = Viewer::open(proxy.address, INFOHASH);
    viewer.take_packets(50);
    let names: Vec<_> = requests_of(&engine, "/ace/getstream")
        .iter()
        .map(|request| request.query.first().expect("a name").0.clone())
        .collect();
    assert_eq!(names, ["id", "infohash"]);
    assert_eq!(proxy.session(INFOHASH)["infohash"], INFOHASH.to_string());
    super::harness::assert_whole(&viewer.leave());
    assert_all_stopped(&engine, 1);
}
