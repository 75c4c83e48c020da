//! What is listed and what is sent.

use std::time::Duration;

use acerelay::sim::{Checker, Content, Entry, Getstream, Media, Numbered, Order, PlaybackStep, Script};

use super::super::harness::{
    ID, INFOHASH, LONG, Proxy, Viewer, empty_engine, engine_with, pause, scripted, whole,
};
use super::{Player, manifest_path, segments_in, uri_in, with_burst};

#[test]
fn a_list_is_there_at_once_under_each_of_its_names() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let mut ts = Viewer::open(proxy.address, ID);
    // Seven seconds and a half.
    ts.take_packets(10_000);
    for path in [
        manifest_path(ID),
        format!("/ace/manifest.m3u8?content_id={ID}"),
        format!("/ace/{ID}.m3u8"),
        format!("/ace/{}.M3U8?x=1", ID.to_string().to_uppercase()),
        format!("/hls/manifest.m3u8?id={ID}"),
        format!("/ace/manifest.m3u8?id={ID}.m3u8"),
    ] {
        let mut reply = proxy.get(&path);
        assert_eq!(reply.status, 200, "{path}");
        for (name, value) in [
            ("Content-Type", "application/vnd.apple.mpegurl"),
            ("Cache-Control", "no-store"),
            ("Access-Control-Allow-Origin", "*"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        let text = reply.text();
        assert!(text.starts_with("#EXTM3U\n") && text.contains("#EXT-X-STREAM-INF:BANDWIDTH="), "{text}");
        assert!(uri_in(&text).starts_with(&format!("/ace/m/{ID}")), "{text}");
    }
    let player = Player::open(&proxy);
    let list = player.list();
    assert!(list.contains("#EXT-X-TARGETDURATION:6\n") && !list.contains("ENDLIST"), "{list}");
    assert!(segments_in(&list).len() >= 2, "out of the backlog: {list}");
    let first = Player::open(&proxy).segments();
    assert!(first.len() >= 3, "Chromium takes fewer for broken: {first:?}");
    drop(ts);
}

#[test]
fn a_name_of_the_infohash_is_the_infohash() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open_at(&proxy, &format!("/ace/manifest.m3u8?infohash={INFOHASH}"), "");
    assert!(player.list.starts_with(&format!("/ace/m/{INFOHASH}/")), "{}", player.list);
    assert!(!player.segments().is_empty());
}

#[test]
fn the_first_who_ask_wait_for_the_start_together() {
    let engine = engine_with(with_burst(2));
    let proxy = Proxy::start(&[&engine]);
    let players: Vec<_> = (0..3)
        .map(|number| {
            let mut connection = proxy.connect();
            connection.send_request("GET", &manifest_path(ID), &format!("X-Number: {number}\r\n"));
            connection
        })
        .collect();
    for player in players {
        assert_eq!(player.reply().status, 200);
    }
    assert_eq!(engine.counts().sessions_opened, 1);
    let player = Player::open(&proxy);
    assert!(!player.segments().is_empty(), "the list waits for its first segment");
}

#[test]
fn what_does_not_start_says_why() {
    let script = Script::new().getstream(Getstream::Error("no such channel".into()));
    let engine = scripted(script);
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get(&manifest_path(ID));
    assert_eq!(reply.status, 502);
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
    assert!(reply.text().contains("no such channel"));
}

#[test]
fn a_start_that_takes_too_long_is_a_time_out() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.connect_timeout = Duration::from_millis(500);
    });
    assert_eq!(proxy.get(&manifest_path(ID)).status, 504);
}

#[test]
fn without_an_engine_there_is_no_list() {
    let engine = empty_engine();
    let proxy = Proxy::start(&[&engine]);
    engine.refuse().expect("it listens");
    proxy.wait_status("the engine is down", |status| status["engines"][0]["healthy"] == false);
    let reply = proxy.get(&manifest_path(ID));
    assert_eq!((reply.status, reply.header("Retry-After").is_some()), (503, true));
}

#[test]
fn to_look_starts_nothing() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let head = |path: &str| {
        let mut connection = proxy.connect();
        connection.send_request("HEAD", path, "");
        connection.reply_to_head()
    };
    let reply = head(&manifest_path(ID));
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("application/vnd.apple.mpegurl")));
    assert_eq!(head(&format!("/ace/m/{ID}/0123456789abcdef0123456789abcdef.m3u8")).status, 404);
    assert_eq!(engine.counts().sessions_opened, 0);
    let player = Player::open(&proxy);
    let (uri, _) = player.segments().remove(0);
    let whole = player.segment(&uri);
    let reply = head(&player.path_of(&uri));
    assert_eq!(reply.header("Content-Length"), Some(whole.len().to_string().as_str()));
    assert_eq!(head(&player.list).status, 200);
}

#[test]
fn a_segment_is_whole_whatever_range_is_asked_for() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open(&proxy);
    let (uri, _) = player.segments().remove(0);
    let whole = player.segment(&uri);
    let mut connection = proxy.connect();
    connection.send_request("GET", &player.path_of(&uri), "Range: bytes=188-375\r\nOrigin: http://x\r\n");
    let mut reply = connection.reply();
    assert_eq!((reply.status, reply.header("Accept-Ranges")), (200, Some("none")));
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(reply.bytes().0, whole);
    // PAT, PMT, and then the first packet of a picture.
    let pid = |at: usize| u16::from(whole[at * 188 + 1] & 0x1F) << 8 | u16::from(whole[at * 188 + 2]);
    assert_eq!((pid(0), pid(1), pid(2)), (0, 0x1000, 0x100));
    assert_eq!(whole[2 * 188 + 1] & 0x40, 0x40, "it starts a PES");
}

#[test]
fn what_is_not_there_is_not_found() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open(&proxy);
    let (uri, _) = player.segments().remove(0);
    let (token, _) = uri.split_once('/').expect("token and number");
    for uri in [format!("{token}/1.ts"), format!("{token}/99999999999.ts"), format!("{token}/x.ts")] {
        let mut reply = player.get(&player.path_of(&uri));
        assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()), "{uri}");
    }
    for path in ["/ace/m/x", "/ace/m/x/y.m3u8", "/ace/m/ch-x/0123456789abcdef0123456789abcdef.m3u8"] {
        assert_eq!(proxy.get(path).status, 404, "{path}");
    }
}

#[test]
fn segments_joined_are_the_stream() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open(&proxy);
    let mut checker = Checker::new();
    let mut taken = Vec::new();
    while taken.len() < 4 {
        for (uri, _) in player.segments() {
            if !taken.contains(&uri) {
                let bytes = player.segment(&uri);
                // Tables are repeated in front of each.
                checker.feed(&bytes[2 * 188..]);
                taken.push(uri);
            }
        }
        pause(Duration::from_millis(200));
    }
    let report = checker.finish();
    assert!(report.is_perfect(), "{report:?}");
    let session = proxy.session(ID);
    assert_eq!((&session["clients"][0]["skipped"], &session["restarts"]), (&0.into(), &0.into()));
}

#[test]
fn what_a_client_of_ts_gets_is_what_is_in_the_segments() {
    let engine = engine_with(with_burst(2));
    let proxy = Proxy::start(&[&engine]);
    let mut ts = proxy.ask(ID).reply();
    let player = Player::open(&proxy);
    let mut joined = Vec::new();
    for (uri, _) in player.wait_segments(3) {
        joined.extend_from_slice(&player.segment(&uri)[2 * 188..]);
    }
    let mut stream = Vec::new();
    while stream.len() < joined.len() + 200 * 188 {
        stream.extend_from_slice(ts.read().expect("it goes on"));
    }
    let at =
        stream.chunks(188).position(|packet| packet == &joined[..188]).expect("the first packet is there");
    assert!(at < 100, "both begin at the first keyframe");
    assert!(stream[at * 188..].starts_with(&joined), "not the same bytes");
}

#[test]
fn a_start_that_only_hls_waits_for_is_not_held_back() {
    // More than the engine is let send before the first client takes something.
    let engine = engine_with(with_burst(40));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open(&proxy);
    let began = std::time::Instant::now();
    player.wait_segments(6);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn lists_stay_while_the_source_is_lost_and_then_go_on_behind_a_discontinuity() {
    let engine = engine_with(with_burst(8));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    let player = Player::open(&proxy);
    let before = player.wait_segments(2);
    engine.set_script(ID, Script::new().playback(PlaybackStep::entry(Entry::Late(Duration::from_secs(2)))));
    assert_eq!(engine.order(ID, Order::Reset), 1);
    proxy.wait_session(ID, "it recovers", |session| session["state"] == "recovering");
    let meanwhile = player.segments();
    assert!(meanwhile.starts_with(&before), "{meanwhile:?}, not {before:?}");
    proxy.wait_session(ID, "it has recovered", |session| session["restarts"] == 1);
    player.wait_segments(meanwhile.len() + 2);
    let list = player.list();
    let marked = list.matches("#EXT-X-DISCONTINUITY\n").count();
    assert_eq!(marked, 1, "{list}");
    let segments = segments_in(&list);
    assert!(segments.iter().all(|(_, seconds)| *seconds > 0.0 && *seconds <= 6.0), "{list}");
    for (uri, _) in segments {
        assert_eq!(player.segment(&uri).len() % 188, 0);
    }
}

#[test]
fn a_film_has_parts_and_no_segments_and_its_list_says_so() {
    let media = Media::Numbered(Numbered::at_rate(2_000_000).end_after(12_000));
    let engine = engine_with(Content::film(ID, INFOHASH, media).delivery(whole()));
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get(&manifest_path(ID));
    assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()));
}

#[test]
fn what_is_lost_says_why_and_then_begins_anew_under_the_same_name() {
    let engine = engine_with(with_burst(8));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open(&proxy);
    let before = player.wait_segments(1);
    assert_eq!(engine.order(ID, Order::Reset), 1);
    proxy.wait_session(ID, "it is lost", |session| session["state"] == "stopped");
    let mut reply = player.get(&player.list);
    assert_eq!((reply.status, &reply.json()["error"]), (502, &"engine_error".into()));
    // What failed is remembered for a while; not what had started.
    let after = player.segments();
    let number = |segments: &[(String, f64)]| -> u64 {
        let (_, name) = segments[0].0.rsplit_once('/').expect("token and number");
        name.trim_end_matches(".ts").parse().expect("a number")
    };
    assert!(number(&after) > number(&before), "{after:?} after {before:?}");
    assert_eq!(engine.counts().sessions_opened, 2);
}
