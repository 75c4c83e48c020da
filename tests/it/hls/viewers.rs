//! Viewers are clients.

use std::time::{Duration, Instant};

use acerelay::config::Config;

use super::super::harness::{
    ID, INFOHASH, LONG, Proxy, SLACK, assert_all_stopped, engine_with, pause, stream_path, wait_engine,
};
use super::{Player, manifest_path, with_burst};

fn short_idle(config: &mut Config) {
    config.stream.hls_idle = Duration::from_secs(2);
}

#[test]
fn a_viewer_has_a_row_in_the_status_from_its_first_list_on() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open_at(&proxy, &manifest_path(ID), "X-Nothing: x\r\n");
    let session = proxy.session(ID);
    assert_eq!((&session["client_count"], &session["waiting_count"]), (&1.into(), &0.into()), "{session:#}");
    let row = &session["clients"][0];
    assert_eq!((&row["protocol"], &row["user_agent"]), (&"hls".into(), &"test".into()));
    assert_eq!((&row["bytes_sent"], &row["skipped"]), (&0.into(), &0.into()));
    let segments = player.wait_segments(4);
    let sent: usize =
        [0, 2, 1, 2, 0, 1, 3].map(|at: usize| player.segment(&segments[at].0).len()).iter().sum();
    let session =
        proxy.wait_session(ID, "both are counted", |session| session["clients"][0]["bytes_sent"] == sent);
    let row = &session["clients"][0];
    assert_eq!(row["skipped"], 1, "one was left out");
    assert!(row["lag_ms"].as_u64().expect("a number") < 30_000, "{row}");
    let metrics = proxy.get("/metrics").text();
    for line in [
        "acerelay_streaming_clients{protocol=\"hls\"} 1",
        "acerelay_streaming_clients{protocol=\"ts\"} 0",
        "acerelay_hls_segments_total 7",
        "acerelay_client_joins_total 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in {metrics}");
    }
}

#[test]
fn who_asks_for_nothing_more_has_left_and_the_stream_ends_after_its_linger() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start_with(&[&engine], short_idle);
    let player = Player::open(&proxy);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let _segments = player.segments();
        pause(Duration::from_millis(300));
    }
    assert_eq!(proxy.session(ID)["client_count"], 1, "who asks now and then stays");
    let last = Instant::now();
    proxy.wait_gone(ID);
    let gone_after = last.elapsed();
    assert!(
        gone_after > Duration::from_millis(1900) && gone_after < Duration::from_secs(2) + SLACK,
        "{gone_after:?}"
    );
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_player_that_was_away_comes_back_under_its_own_name() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start_with(&[&engine], short_idle);
    let player = Player::open(&proxy);
    assert!(!player.segments().is_empty());
    proxy.wait_gone(ID);
    assert!(!player.segments().is_empty(), "the stream is started again");
    assert_eq!(proxy.session(ID)["client_count"], 1);
    wait_engine(&engine, "it was started twice", |counts| counts.sessions_opened == 2);
}

#[test]
fn who_asks_twice_before_it_plays_is_one_viewer_and_who_plays_is_its_own() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let one = Player::open(&proxy);
    assert_eq!(Player::open(&proxy).list, one.list);
    assert!(!one.segments().is_empty());
    let other = Player::open(&proxy);
    assert_ne!(other.list, one.list);
    assert_eq!(proxy.session(ID)["client_count"], 2);
}

#[test]
fn a_disconnected_viewer_is_told_so_and_does_not_come_back() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let (player, bystander) = (Player::open(&proxy), {
        let first = Player::open(&proxy);
        let _taken = first.segments();
        Player::open(&proxy)
    });
    let (uri, _) = player.segments().remove(0);
    let _segments = bystander.segments();
    let session = proxy.session(ID);
    let client = session["clients"][0]["client_id"].as_str().expect("a number");
    let mut connection = proxy.connect();
    connection.send_request("DELETE", &format!("/proxy/sessions/{ID}/clients/{client}"), "");
    assert_eq!(connection.reply().status, 204);
    for path in [player.list.clone(), player.path_of(&uri)] {
        let mut reply = player.get(&path);
        assert_eq!((reply.status, &reply.json()["error"]), (410, &"gone".into()));
        assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
    }
    assert_eq!(proxy.session(ID)["client_count"], 1);
    assert!(!bystander.segments().is_empty());
}

#[test]
fn a_stopped_stream_stays_stopped_for_who_watched_it() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let player = Player::open(&proxy);
    let _segments = player.segments();
    let mut connection = proxy.connect();
    connection.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
    assert_eq!(connection.reply().status, 204);
    for _ in 0..3 {
        assert_eq!(player.get(&player.list).status, 410);
    }
    assert_all_stopped(&engine, 1);
    assert!(!Player::open(&proxy).segments().is_empty(), "who asks anew gets it");
}

#[test]
fn the_limits_of_clients_are_for_viewers_too() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.max_clients = 2;
        short_idle(config);
    });
    let player = Player::open(&proxy);
    let _segments = player.segments();
    let ts = proxy.ask(ID).reply();
    assert_eq!(ts.status, 200);
    let mut reply = proxy.get(&manifest_path(ID));
    assert_eq!((reply.status, &reply.json()["error"]), (503, &"at_capacity".into()));
    assert_eq!(proxy.get(&stream_path(ID)).status, 503);
    proxy.wait_session(ID, "the viewer has left", |session| session["client_count"] == 1);
    assert_eq!(proxy.get(&manifest_path(ID)).status, 200);
}

#[test]
fn one_address_has_as_many_viewers_as_it_may() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.max_clients_per_address = std::num::NonZeroUsize::new(1);
    });
    let player = Player::open(&proxy);
    let _segments = player.segments();
    assert_eq!(proxy.get(&manifest_path(ID)).status, 503);
    assert_eq!(proxy.get(&format!("/ace/getstream?infohash={INFOHASH}")).status, 503);
}

#[test]
fn a_viewer_that_takes_nothing_does_not_hold_up_the_shutdown() {
    let engine =
        engine_with(super::super::harness::broadcast(ID, INFOHASH).delivery(acerelay::sim::Delivery {
            burst: acerelay::sim::Burst::Time(Duration::from_secs(60)),
            ..acerelay::sim::Delivery::default()
        }));
    let proxy = Proxy::start_with(&[&engine], |config| config.server.write_timeout = LONG * 2);
    let player = Player::open(&proxy);
    let (uri, _) = player.wait_segments(3).remove(0);
    let mut stuck: Vec<_> = (0..6)
        .map(|_| {
            let mut connection = proxy.connect();
            for _ in 0..12 {
                connection.send_get(&player.path_of(&uri));
            }
            connection
        })
        .collect();
    pause(Duration::from_millis(500));
    assert!(proxy.shutdown() < Duration::from_secs(5));
    stuck.clear();
}

#[test]
fn what_getstream_tells_a_program_of_is_played_and_stopped() {
    let engine = engine_with(with_burst(12));
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get(&format!("{}&format=json", manifest_path(ID)));
    let answer = reply.json();
    let path = |name: &str| {
        let url = answer["response"][name].as_str().expect("a URL").to_owned();
        let (_, path) = url.split_once(&proxy.address.to_string()).expect("it is ours");
        path.to_owned()
    };
    let player = Player { proxy: proxy.address, list: path("playback_url") };
    assert!(player.list.starts_with("/ace/m/") && player.list.ends_with(".m3u8"), "{answer:#}");
    assert!(!player.segments().is_empty());
    let session = proxy.session(ID);
    assert_eq!((&session["client_count"], &session["clients"][0]["protocol"]), (&1.into(), &"hls".into()));
    assert_eq!(proxy.get(&format!("{}?method=stop", path("command_url"))).json()["response"], "ok");
    assert_eq!(player.get(&player.list).status, 410);
    proxy.wait_gone(ID);
}
