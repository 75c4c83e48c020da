//! A channel that is an HLS list at the engine is one stream like any other.

use std::time::{Duration, Instant};

use acerelay::config::Config;
use acerelay::sim::{Content, Hls, HlsKind, HostName, Media, Numbered, Settings, SimEngine};

use super::harness::{
    Connection, End, ID, INFOHASH, LONG, Proxy, SLACK, Viewer, assert_all_stopped, assert_seamed,
    assert_whole, engine_with, in_parallel, stream_path, wait_engine,
};

/// Numbered packets a second.
const RATE: u64 = 1300;

const SECOND: Duration = Duration::from_secs(1);

fn numbered() -> Media {
    Media::Numbered(Numbered::at_rate(2_000_000))
}

fn listed(hls: Hls) -> Content {
    Content::live(ID, INFOHASH, numbered()).hls(hls)
}

fn recovering(config: &mut Config) {
    config.stream.recover_timeout = LONG;
}

fn is_on(proxy: &Proxy, engine: &SimEngine) -> bool {
    proxy.session(ID)["engine_port"] == engine.addr().port()
}

/// The numbers of the segments that were asked for.
fn segments_of(engine: &SimEngine) -> Vec<u64> {
    let number =
        |path: &str| path.strip_prefix(&format!("/ace/c/{INFOHASH}/"))?.strip_suffix(".ts")?.parse().ok();
    engine.requests().iter().filter_map(|request| number(&request.path)).collect()
}

#[test]
fn every_packet_of_a_list_comes_once_and_in_order() {
    // The segments' URLs lead nowhere but by the configured engine.
    let settings = Settings { host: HostName::Fixed("container:6878".to_owned()), ..Settings::default() };
    let engine = SimEngine::start_with("127.0.0.1:0".parse().expect("an address"), settings).expect("a port");
    engine.add(listed(Hls::of(SECOND)));
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(8 * RATE);
    assert_whole(&viewer.leave());
    let segments = segments_of(&engine);
    // Three targets before the end, which may have moved on since.
    assert!((3..6).contains(&segments[0]), "{segments:?}");
    assert!(segments.windows(2).all(|pair| pair[1] == pair[0] + 1), "each once: {segments:?}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn twenty_clients_share_one_following() {
    let engine = engine_with(listed(Hls::of(SECOND)));
    let proxy = Proxy::start(&[&engine]);
    let (address, began) = (proxy.address, Instant::now());
    let reports = in_parallel(20, move |_| {
        let mut viewer = Viewer::open(address, ID);
        viewer.take_packets(5 * RATE);
        viewer.leave()
    });
    let counts = engine.counts();
    reports.iter().for_each(assert_whole);
    // Twice a second at the most, were there never anything new.
    let most = 2 * began.elapsed().as_secs() + 3;
    assert!((2..=most).contains(&counts.lists), "{counts:?}");
    assert_eq!((counts.getstreams, counts.playback_requests), (1, 1), "{counts:?}");
    let segments = segments_of(&engine);
    assert!(segments.windows(2).all(|pair| pair[1] == pair[0] + 1), "each once: {segments:?}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn of_several_qualities_one_is_followed() {
    let engine = engine_with(listed(Hls { has_variants: true, ..Hls::of(SECOND) }));
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(5 * RATE);
    assert_whole(&viewer.leave());
    assert!(engine.requests().iter().all(|request| !request.path.ends_with("low.m3u8")));
}

#[test]
fn a_discontinuity_is_announced_to_the_clients() {
    let engine = engine_with(listed(Hls { jump: Some((7, 100)), ..Hls::of(SECOND) }));
    let proxy = Proxy::start(&[&engine]);
    let mut viewers = [ID, ID].map(|id| Viewer::open(proxy.address, id));
    for viewer in &mut viewers {
        viewer.take_seams(1);
        viewer.take_packets(3 * RATE);
    }
    // Who comes later begins behind it.
    let mut late = Viewer::open(proxy.address, ID);
    late.take_packets(RATE);
    assert_whole(&late.leave());
    let session = proxy.session(ID);
    assert_eq!((&session["state"], &session["restarts"]), (&"active".into(), &0.into()), "{session:#}");
    for viewer in viewers {
        let report = viewer.leave();
        assert_seamed(&report, 1);
        // Nothing but what the broadcaster left out.
        let left_out = 100 * 2_000_000 / (188 * 8);
        assert!(report.missing.abs_diff(left_out) < left_out / 50, "{report:?}");
    }
    assert_all_stopped(&engine, 1);
}

#[test]
fn segments_that_are_not_there_yet_are_waited_for() {
    let engine = engine_with(listed(Hls { late: 1500 * SECOND / 1000, ..Hls::of(SECOND) }));
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(5 * RATE);
    assert!(viewer.report().doubles == 0 && viewer.report().damaged == 0, "{:?}", viewer.report());
    assert_eq!(proxy.session(ID)["restarts"], 0);
    drop(viewer);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_segment_that_never_comes_is_left_out() {
    let engine = engine_with(listed(Hls { missing: Some(7), ..Hls::of(SECOND) }));
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_seams(1);
    viewer.take_packets(2 * RATE);
    assert_eq!(proxy.session(ID)["restarts"], 0);
    assert_seamed(&viewer.leave(), 1);
    assert_all_stopped(&engine, 1);
}

#[test]
fn the_end_of_a_list_is_the_end_of_the_stream() {
    let film = Content::film(ID, INFOHASH, numbered()).hls(Hls { end_after: Some(9), ..Hls::of(SECOND) });
    let engine = engine_with(film);
    let proxy = Proxy::start(&[&engine]);
    let (report, end) = Viewer::open(proxy.address, ID).finish();
    assert_eq!(end, End::Complete);
    assert_whole(&report);
    assert!(report.numbered > 5 * RATE, "{report:?}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_list_that_stands_still_is_silence() {
    let engine = engine_with(listed(Hls { stop_after: Some(8), ..Hls::of(SECOND) }));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.stall_timeout = 4 * SECOND);
    let (report, end) = Viewer::open(proxy.address, ID).finish();
    assert_eq!(end, End::Closed);
    assert_whole(&report);
    assert_all_stopped(&engine, 1);
}

#[test]
fn an_engine_that_dies_in_mid_list_is_recovered_from() {
    let engine = engine_with(listed(Hls::of(SECOND)));
    let proxy = Proxy::start_with(&[&engine], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(4 * RATE);
    engine.crash().expect("the port is kept");
    wait_engine(&engine, "it is noticed", |counts| counts.sessions_open == 0);
    engine.accept().expect("it listens again");
    viewer.take_seams(1);
    viewer.take_packets(RATE);
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn a_list_whose_session_is_over_is_recovered_from() {
    let forget = |engine: &SimEngine| engine.forget_sessions();
    // Another player of the same content takes the list away: 403.
    let supersede = |engine: &SimEngine| {
        let reply =
            Connection::open(engine.addr()).get(&format!("/ace/getstream?id={ID}&format=json&pid=other"));
        assert_eq!(reply.status, 200);
    };
    for end in [forget as fn(&SimEngine), supersede] {
        let engine = engine_with(listed(Hls::of(SECOND)));
        let proxy = Proxy::start_with(&[&engine], recovering);
        let mut viewer = Viewer::open(proxy.address, ID);
        viewer.take_packets(4 * RATE);
        end(&engine);
        viewer.take_seams(1);
        viewer.take_packets(RATE);
        assert_seamed(&viewer.leave(), 1);
    }
}

#[test]
fn an_engine_that_freezes_in_mid_list_is_left_for_another() {
    let [frozen, well] = [(); 2].map(|()| engine_with(listed(Hls::of(SECOND))));
    let proxy = Proxy::start_with(&[&frozen, &well], recovering);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(4 * RATE);
    assert!(is_on(&proxy, &frozen));
    frozen.freeze();
    viewer.take_seams(1);
    viewer.take_packets(RATE);
    assert!(is_on(&proxy, &well));
    frozen.thaw();
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn an_engine_that_dies_before_its_first_segment_is_left_for_another() {
    let [dead, well] =
        [LONG, Duration::ZERO].map(|late| engine_with(listed(Hls { late, ..Hls::of(SECOND) })));
    let proxy = Proxy::start(&[&dead, &well]);
    let waiting = proxy.ask(ID);
    wait_engine(&dead, "its list is read", |counts| counts.lists > 0);
    dead.crash().expect("the port is kept");
    let mut viewer = Viewer::of(waiting.reply());
    viewer.take_packets(RATE);
    assert!(is_on(&proxy, &well));
    assert_whole(&viewer.leave());
    assert_all_stopped(&well, 1);
}

#[test]
fn a_session_that_is_over_before_the_first_segment_is_opened_anew() {
    let engine = engine_with(listed(Hls { late: 3 * SECOND, ..Hls::of(SECOND) }));
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "its list is read", |counts| counts.lists > 0);
    engine.forget_sessions();
    let mut viewer = Viewer::of(waiting.reply());
    viewer.take_packets(RATE);
    assert_whole(&viewer.leave());
    assert_eq!(engine.counts().getstreams, 2);
}

#[track_caller]
fn assert_refused(kind: HlsKind, says: &str) {
    let engine = engine_with(listed(Hls { kind, ..Hls::of(SECOND) }));
    let proxy = Proxy::start(&[&engine]);
    let began = Instant::now();
    let mut reply = proxy.get(&stream_path(ID));
    let (status, text) = (reply.status, reply.text());
    assert!(began.elapsed() < SECOND + SLACK, "{:?}", began.elapsed());
    assert_eq!(status, 502, "{text}");
    let sentence =
        format!("this channel is HLS at the engine, and its segments are {says}, which is not passed on");
    assert!(text.contains(&sentence), "{text}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn what_cannot_be_joined_is_refused_in_a_sentence() {
    assert_refused(HlsKind::Encrypted, "encrypted");
    assert_refused(HlsKind::Fragmented, "fragmented MP4");
}

#[test]
fn a_follower_that_waits_ends_at_once() {
    // What is listed comes at once, then nothing for a while.
    let hls = || Hls { window: 1, ..Hls::of(20 * SECOND) };
    for deletes in [true, false] {
        let engine = engine_with(listed(hls()));
        let proxy = Proxy::start(&[&engine]);
        let mut viewer = Viewer::open(proxy.address, ID);
        viewer.take_packets(18 * RATE);
        let began = Instant::now();
        if deletes {
            let mut connection = proxy.connect();
            connection.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
            assert_eq!(connection.reply().status, 204);
            assert_eq!(viewer.finish().1, End::Complete);
        } else {
            let took = proxy.shutdown();
            assert!(took < SECOND + SLACK, "{took:?}");
            // It may have been behind.
            assert_ne!(viewer.finish().1, End::Complete);
        }
        assert!(began.elapsed() < SECOND + SLACK, "{:?}", began.elapsed());
        assert_all_stopped(&engine, 1);
    }
}
