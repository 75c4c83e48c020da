//! Films by every other way than getstream: an engine's URLs, a channel, HLS, a row of relays.

use acerelay::config;
use acerelay::id::ContentKey;

use super::{LARGE, SMALL, ask, assert_part, film, take};
use crate::harness::{ID, LONG, Proxy, assert_all_stopped, engine_with, stream_path, wait_engine};

/// More readings than a film may have, by one: the bound is 128.
const TOO_MANY: usize = 129;

#[test]
fn a_program_that_wants_an_engine_seeks_in_a_film() {
    let engine = engine_with(film(SMALL));
    let proxy = Proxy::start(&[&engine]);
    let answer = proxy.get(&format!("{}&format=json", stream_path(ID))).json();
    let url = answer["response"]["playback_url"].as_str().expect("a URL");
    let (_, path) = url.split_once(&proxy.address.to_string()).expect("it is ours");
    assert!(path.starts_with("/ace/r/"), "{path}");
    let mut connection = proxy.connect();
    for (from, to) in [(0, 100), (5000, 5010)] {
        connection.send_request("GET", path, &format!("Range: bytes={from}-{}\r\n", to - 1));
        let mut reply = connection.reply();
        assert_part(&mut reply, SMALL, from, to);
        connection = reply.into_connection();
    }
    assert_eq!(engine.counts().sessions_opened, 1);
}

#[test]
fn a_channel_may_have_a_film_for_its_source() {
    let engine = engine_with(film(SMALL));
    let proxy = Proxy::start_with(&[&engine], |config| {
        let id = ContentKey::from_query(None, [("id", ID.to_string())]).expect("an id");
        config.channels =
            vec![config::Channel { name: "Again".to_owned(), ids: vec![id], ..config::Channel::default() }];
    });
    let mut connection = proxy.connect();
    connection.send_request("GET", "/ch/again.ts", "Range: bytes=1000-1999\r\n");
    assert_part(&mut connection.reply(), SMALL, 1000, 2000);
}

#[test]
fn a_film_is_not_listed_as_segments() {
    let engine = engine_with(film(SMALL));
    let proxy = Proxy::start(&[&engine]);
    let mut refused = proxy.get(&format!("/ace/manifest.m3u8?id={ID}"));
    let told = refused.json();
    assert_eq!((refused.status, &told["error"]), (404, &"not_found".into()));
    assert!(told["detail"].as_str().is_some_and(|why| why.contains("this is a film")), "{told}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_film_is_read_over_so_many_connections_and_no_more() {
    let engine = engine_with(film(LARGE));
    let proxy = Proxy::start(&[&engine]);
    let readers: Vec<_> = (1..TOO_MANY)
        .map(|number| {
            let reply = ask(proxy.connect(), Some(&format!("bytes={}-", number * 1000)));
            assert_eq!(reply.status, 206, "reader {number}");
            reply
        })
        .collect();
    let mut refused = ask(proxy.connect(), Some("bytes=5-6"));
    assert_eq!((refused.status, &refused.json()["error"]), (503, &"at_capacity".into()));
    drop(readers);
    wait_engine(&engine, "all have left", |counts| counts.readers == 0);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_film_comes_through_two_relays_with_its_length_and_its_parts() {
    let engine = engine_with(film(LARGE));
    let inner = Proxy::start(&[&engine]);
    let outer = Proxy::start_with(&[], |config| {
        config.engines = vec![config::Engine::at(inner.address.ip().into(), inner.address.port())];
        config.stream.linger = LONG;
    });
    let mut watcher = ask(outer.connect(), Some("bytes=0-"));
    take(&mut watcher, 100_000);
    assert_part(&mut ask(outer.connect(), Some("bytes=20000000-20099999")), LARGE, 20_000_000, 20_100_000);
    let mut connection = outer.connect();
    connection.send_request("HEAD", &stream_path(ID), "");
    let head = connection.reply_to_head();
    let length = LARGE.length().to_string();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some(length.as_str())));
    assert_eq!(head.header("Accept-Ranges"), Some("bytes"));
    assert_eq!(engine.counts().sessions_opened, 1);
}
