//! Channels of the configuration: how they are listed, and how one stays on the air when its sources die.

use std::time::{Duration, Instant};

use acerelay::config::{self, Config};
use acerelay::id::ContentKey;
use acerelay::sim::{BodyEvent, Getstream, Order, PlaybackStep, Script, SimEngine};

use super::harness::{
    LONG, Proxy, Viewer, assert_all_stopped, assert_seamed, assert_whole, engine_of_nine, nth_id, pause,
    stream_path,
};

/// A channel that plays these of the nine contents, in this order.
fn channel(name: &str, numbers: &[u8]) -> config::Channel {
    let key =
        |number: &u8| ContentKey::from_query(None, [("id", nth_id(*number).to_string())]).expect("an id");
    config::Channel {
        name: name.to_owned(),
        ids: numbers.iter().map(key).collect(),
        ..config::Channel::default()
    }
}

fn not_there() -> Script {
    Script::new().getstream(Getstream::Error("failed to load content".to_owned()))
}

fn start(engine: &SimEngine, change: impl FnOnce(&mut Config)) -> Proxy {
    Proxy::start_with(&[engine], |config| {
        config.channels = vec![channel("Canal Faro", &[1, 2]), channel("Canal Mar", &[3, 4])];
        config.stream.recover_timeout = LONG;
        change(config);
    })
}

fn watch(proxy: &Proxy, path: &str) -> Viewer {
    Viewer::of(proxy.get(path))
}

fn opened(engine: &SimEngine, number: u8) -> u64 {
    engine.counts_of(nth_id(number)).sessions_opened
}

#[test]
fn channels_are_listed_for_players_and_people() {
    let engine = engine_of_nine(&Script::new());
    let proxy = start(&engine, |_| {});
    let host = proxy.address;
    let mut reply = proxy.get("/playlist.m3u");
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("audio/x-mpegurl; charset=utf-8")));
    let tag = reply.header("ETag").expect("a tag").to_owned();
    let text = reply.text();
    assert_eq!(
        text,
        format!(
            "#EXTM3U\n\
             #EXTINF:-1 channel-id=\"canal-faro\" tvg-id=\"canal-faro\" tvg-name=\"Canal Faro\" tvg-chno=\"1\",Canal Faro\n\
             http://{host}/ch/canal-faro.ts\n\
             #EXTINF:-1 channel-id=\"canal-mar\" tvg-id=\"canal-mar\" tvg-name=\"Canal Mar\" tvg-chno=\"2\",Canal Mar\n\
             http://{host}/ch/canal-mar.ts\n"
        )
    );
    let with = |lines: &str| {
        let mut connection = proxy.connect();
        connection.send_request("GET", "/playlist.m3u", lines);
        connection.reply()
    };
    assert_eq!(with(&format!("If-None-Match: {tag}\r\n")).status, 304);
    assert_eq!(with("If-None-Match: \"other\"\r\n").status, 200);
    assert!(proxy.get("/playlist.m3u8?search=MAR&hls=1").text().ends_with("/ch/canal-mar.m3u8\n"));
    assert_eq!(proxy.get("/playlist.m3u?group=none").text(), "#EXTM3U\n");

    let all = proxy.get("/proxy/channels").json();
    assert_eq!(all["channels"][0]["sources"][1]["id"], nth_id(2).to_string());
    assert_eq!(all["channels"][1]["url"], format!("http://{host}/ch/canal-mar.ts"));
    assert_eq!(proxy.get("/proxy/channels/canal-mar").json(), all["channels"][1]);
    for unknown in ["/proxy/channels/x", "/ch/x.ts", "/ch/x.m3u8", "/ch/%ff.ts", "/ch/Canal-Faro.ts"] {
        assert_eq!(proxy.get(unknown).status, 404, "{unknown}");
    }
    let mut connection = proxy.connect();
    connection.send_request("HEAD", "/ch/canal-faro.ts", "");
    assert_eq!(connection.reply_to_head().header("Content-Type"), Some("video/mp2t"));
    assert_eq!(engine.counts().sessions_opened, 0, "nobody was asked to play");
}

#[test]
fn a_dead_first_source_costs_one_start_and_is_left_alone_then() {
    let engine = engine_of_nine(&Script::new());
    engine.set_script(nth_id(1), not_there());
    let proxy = start(&engine, |_| {});
    let mut viewer = watch(&proxy, "/ch/canal-faro.ts");
    viewer.take_packets(500);
    assert_whole(&viewer.leave());
    let session = proxy.session(nth_id(2));
    assert_eq!(
        (session["channel"].as_str(), session["stream_id"].as_str()),
        (Some("canal-faro"), Some("ch-canal-faro"))
    );
    let source = &proxy.get("/proxy/channels/canal-faro").json()["sources"][0];
    assert!(
        source["last_error"].as_str().is_some_and(|error| error.contains("failed to load content")),
        "{source}"
    );
    proxy.wait_gone(nth_id(2));
    let asked = engine.counts_of(nth_id(1)).getstreams;
    engine.set_script(nth_id(1), Script::new());
    let mut viewer = watch(&proxy, "/ch/canal-faro.ts");
    viewer.take_packets(50);
    assert_eq!((engine.counts_of(nth_id(1)).getstreams, opened(&engine, 2)), (asked, 2));
}

#[test]
fn a_channel_whose_sources_are_all_dead_is_tried_all_the_same_and_the_client_told_of_each() {
    let engine = engine_of_nine(&not_there());
    let proxy = start(&engine, |_| {});
    let mut reply = proxy.get("/ch/canal-faro.ts");
    assert_eq!(reply.status, 502);
    let detail = reply.json()["detail"].as_str().expect("a sentence").to_owned();
    for number in [1, 2] {
        assert!(detail.contains(&format!("{:.8} on ", nth_id(number).to_string())), "{detail}");
    }
    // Not out of memory alone, but for the few seconds for which a failure is told again.
    engine.set_script(nth_id(1), Script::new());
    let deadline = Instant::now() + LONG;
    loop {
        let reply = proxy.get("/ch/canal-faro.ts");
        if reply.status == 200 {
            Viewer::of(reply).take_packets(50);
            break;
        }
        assert!(Instant::now() < deadline);
        pause(Duration::from_millis(200));
    }
    assert_eq!(opened(&engine, 1), 1);
}

#[test]
fn a_source_that_ends_soon_again_and_again_is_left_for_the_next() {
    let engine = engine_of_nine(&Script::new());
    engine.set_script(nth_id(1), Script::new().playback(PlaybackStep::after(500_000, BodyEvent::End)));
    let proxy = start(&engine, |_| {});
    let mut viewer = watch(&proxy, "/ch/canal-faro.ts");
    viewer.take_seams(1);
    viewer.take_packets(2000);
    assert_eq!((opened(&engine, 1), opened(&engine, 2)), (1, 1));
    assert_eq!(proxy.session(nth_id(2))["restarts"], 1);
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn a_content_is_one_engine_session_whether_it_is_asked_for_by_channel_or_by_id() {
    let engine = engine_of_nine(&Script::new());
    let proxy = start(&engine, |_| {});
    for paths in
        [["/ch/canal-faro.ts", &*stream_path(nth_id(1))], [&*stream_path(nth_id(1)), "/ch/canal-faro.ts"]]
    {
        let before = opened(&engine, 1);
        let mut viewers = paths.map(|path| watch(&proxy, path));
        viewers.iter_mut().for_each(|viewer| viewer.take_packets(200));
        assert_eq!(opened(&engine, 1), before + 1, "{paths:?}");
        let session = proxy.session(nth_id(1));
        assert_eq!(
            (session["client_count"].as_u64(), session["channel"].as_str()),
            (Some(2), Some("canal-faro"))
        );
        let channel = proxy.get("/proxy/channels/canal-faro").json();
        assert_eq!(channel["stream_id"], session["stream_id"]);
        viewers.into_iter().for_each(|viewer| assert_whole(&viewer.leave()));
        proxy.wait_gone(nth_id(1));
    }
    drop(proxy);
    assert_all_stopped(&engine, 2);
}

#[test]
fn who_joins_a_content_as_a_channel_brings_the_other_sources_along() {
    let engine = engine_of_nine(&Script::new());
    engine.set_script(nth_id(1), Script::new().playback(PlaybackStep::after(3_000_000, BodyEvent::End)));
    let proxy = start(&engine, |_| {});
    let by_id = watch(&proxy, &stream_path(nth_id(1)));
    let by_channel = watch(&proxy, "/ch/canal-faro.ts");
    for mut viewer in [by_channel, by_id] {
        viewer.take_seams(1);
        viewer.take_packets(500);
        assert_seamed(&viewer.leave(), 1);
    }
    assert_eq!((opened(&engine, 1), opened(&engine, 2)), (1, 1));
}

#[test]
fn a_source_that_was_good_is_asked_once_more_and_one_that_needs_its_time_gets_it() {
    let engine = engine_of_nine(&Script::new());
    let proxy = start(&engine, |config| {
        config.stream.stall_timeout = Duration::from_secs(4);
        config.stream.recover_timeout = 3 * LONG;
    });
    let mut viewer = watch(&proxy, "/ch/canal-faro.ts");
    // Half a minute of picture makes it good.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(32) {
        viewer.take_packets(200);
    }
    // Then silence; asked once more it is not there, and the next one takes five seconds.
    engine.set_script(nth_id(1), not_there());
    let slow = PlaybackStep::first_byte_after(Duration::from_secs(5));
    engine.set_script(nth_id(2), Script::new().playback(slow));
    assert_eq!(engine.order(nth_id(1), Order::Stall), 1);
    viewer.take_seams(1);
    viewer.take_packets(500);
    assert_eq!(
        (opened(&engine, 1), opened(&engine, 2)),
        (1, 1),
        "no clock of the old source has burnt the new one"
    );
    assert!(engine.counts_of(nth_id(1)).getstreams >= 2, "it was asked once more");
    assert_seamed(&viewer.leave(), 1);
}

#[test]
fn a_switch_leaves_a_content_alone_that_another_stream_plays() {
    let engine = engine_of_nine(&Script::new());
    engine.set_script(nth_id(1), Script::new().playback(PlaybackStep::after(3_000_000, BodyEvent::End)));
    let proxy = start(&engine, |config| config.channels = vec![channel("Canal Faro", &[1, 2, 5])]);
    let mut viewer = watch(&proxy, "/ch/canal-faro.ts");
    viewer.take_packets(100);
    // Behind it: a channel joins a content of its own that plays already.
    let mut other = watch(&proxy, &stream_path(nth_id(2)));
    other.take_packets(100);
    engine.set_script(nth_id(1), not_there());
    viewer.take_seams(1);
    viewer.take_packets(500);
    assert_seamed(&viewer.leave(), 1);
    assert_whole(&other.leave());
    assert_eq!((opened(&engine, 2), opened(&engine, 5)), (1, 1));
}
