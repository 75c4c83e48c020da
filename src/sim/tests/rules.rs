//! Who ends whom (engine-contract.md 8.3), and what becomes of sessions that nobody wants.

use std::time::Duration;

use super::super::{EndedReaders, Getstream, Order, Script, SessionRules, Settings, Steps};
use super::client::*;

#[test]
fn a_player_without_pid_gets_the_same_urls_again() {
    let engine = engine();
    let first = start(&engine, &format!("id={ID}"));
    let second = start(&engine, &format!("infohash={INFOHASH}"));
    assert_eq!(first.0, second.0);
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.sessions_opened, counts.sessions_reused), (2, 1, 1));
}

#[test]
fn another_content_with_the_same_pid_ends_the_first() {
    let engine = engine();
    let mut body = start_as(&engine, "1").play(&engine);
    body.take(1000);
    let other = start(&engine, &format!("id={OTHER_ID}&sid=1"));
    assert_eq!(body.read_to_end().1, End::Clean);
    assert_eq!(engine.counts_of(ID).sessions_superseded, 1);
    other.play(&engine).take(1000);
}

#[test]
fn distinct_pids_do_not_disturb_each_other() {
    let engine = engine();
    let mut first = start_as(&engine, "1").play(&engine);
    let mut second = start(&engine, &format!("id={OTHER_ID}&pid=2")).play(&engine);
    first.take(100_000);
    second.take(100_000);
    assert_eq!(engine.counts().readers_max, 2);
    assert_eq!(engine.counts_of(OTHER_ID).readers_max, 1);
}

#[test]
fn a_stop_ends_the_other_players_of_the_same_content_too() {
    let engine = engine();
    let (first, second) = (start_as(&engine, "1"), start_as(&engine, "2"));
    assert_ne!(first.url("command_url"), second.url("command_url"));
    let mut body = second.play(&engine);
    body.take(1000);
    let stat = |started: &Started| {
        get(&engine, started.url("stat_url")).json()["response"]["playback_session_id"].clone()
    };
    let (one, two) = (stat(&first), stat(&second));
    // Either may be the empty first answer, if the machine is very slow or very fast; never two ids.
    assert!(one.is_null() || two.is_null() || one == two, "{one} {two}");
    first.stop(&engine);
    assert_eq!(body.read_to_end().1, End::Clean);
    let counts = engine.counts();
    assert_eq!((counts.sessions_stopped, counts.sessions_stopped_along, counts.sessions_open), (1, 1, 0));
}

#[test]
fn the_readers_of_a_stopped_session_can_be_left_in_silence() {
    let rules = SessionRules { ended_readers: EndedReaders::Stall, ..SessionRules::default() };
    let engine = empty(Settings { rules, ..Settings::default() });
    let mut content = content(ID, INFOHASH);
    content.delivery = super::super::Delivery::default();
    engine.add(content);
    let started = start_as(&engine, "1");
    let mut body = started.play(&engine);
    body.take(1000);
    started.stop(&engine);
    // What was sent before the stop may still be under way.
    body.fall_silent();
    assert_eq!(engine.order(ID, Order::End), 1);
    assert_eq!(body.read_to_end().1, End::Clean);
}

#[test]
fn a_second_reader_of_a_session_gets_two_status_lines() {
    let engine = engine();
    let started = start_as(&engine, "1");
    let mut first = started.play(&engine);
    first.take(1000);
    let redirect = get(&engine, started.url("playback_url"));
    let target = redirect.header("Location").expect("a Location").replacen(&engine.url(), "", 1);
    let mut socket = send(&engine, &target);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut socket, &mut text).expect("it ends");
    assert_eq!(text, "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\n");
    first.take(100_000);
    let counts = engine.counts();
    assert_eq!((counts.second_readers, counts.readers_max, counts.playbacks), (1, 1, 1));
}

#[test]
fn a_reader_who_left_is_not_in_the_way_of_the_next() {
    let engine = engine();
    let started = start_as(&engine, "1");
    for _ in 0..10 {
        let mut body = started.play(&engine);
        assert_eq!(body.status, 200);
        body.take(1000);
    }
    let counts = engine.counts();
    assert_eq!((counts.second_readers, counts.playbacks), (0, 10));
}

#[test]
fn the_newest_reader_takes_over_if_the_session_was_opened_so() {
    let engine = engine();
    let started = start(&engine, &format!("id={ID}&stop_prev_read_thread=1"));
    let mut first = started.play(&engine);
    first.take(1000);
    let mut second = started.play(&engine);
    second.take(1000);
    assert_eq!(first.read_to_end().1, End::Clean);
    assert_eq!(engine.counts().second_readers, 0);
}

#[test]
fn a_session_without_reader_expires_and_one_with_a_reader_does_not() {
    let engine = engine();
    let mut body = start_as(&engine, "1").play(&engine);
    body.take(1000);
    start(&engine, &format!("id={OTHER_ID}&pid=2"));
    engine.set_idle_expiry(Duration::from_millis(50));
    assert!(engine.wait_for(LONG, |counts| counts.sessions_expired == 1));
    assert_eq!(engine.counts_of(ID).sessions_open, 1);
    body.take(1000);
    drop(body);
    assert!(engine.wait_for(LONG, |counts| counts.sessions_expired == 2));
    assert_eq!(engine.counts().sessions_open, 0);
}

#[test]
fn a_client_that_gives_up_leaves_a_session_that_nobody_can_stop() {
    let slow = Getstream::Slow(Duration::from_millis(100));
    let engine = scripted(Script::new().getstream(Steps::first(1, slow)));
    let socket = send(&engine, &format!("/ace/getstream?format=json&id={ID}&pid=1"));
    assert!(engine.wait_for(LONG, |counts| counts.getstreams_now == 1));
    drop(socket);
    assert!(engine.wait_for(LONG, |counts| counts.sessions_leaked == 1));
    let counts = engine.counts();
    assert_eq!((counts.sessions_opened, counts.sessions_open), (1, 1));
}

#[test]
fn without_the_rules_nobody_disturbs_anybody() {
    let engine = empty(Settings {
        rules: SessionRules {
            one_content_per_player: false,
            stop_ends_all_of_content: false,
            second_reader_is_broken: false,
            reuse: false,
            late_stop_ends_newest: false,
            ended_readers: EndedReaders::End,
        },
        ..Settings::default()
    });
    engine.add(content(ID, INFOHASH));
    engine.add(content(OTHER_ID, OTHER_INFOHASH));
    let (first, second) = (start_as(&engine, "1"), start_as(&engine, "1"));
    assert_ne!(first.url("command_url"), second.url("command_url"));
    let mut other = start(&engine, &format!("id={OTHER_ID}&pid=1")).play(&engine);
    let mut bodies = [first.play(&engine), first.play(&engine), second.play(&engine)];
    for body in &mut bodies {
        body.take(1000);
    }
    first.stop(&engine);
    let [mut one, mut two, mut three] = bodies;
    assert_eq!(one.read_to_end().1, End::Clean);
    assert_eq!(two.read_to_end().1, End::Clean);
    three.take(1_000_000);
    other.take(1_000_000);
    let counts = engine.counts_of(ID);
    assert_eq!((counts.second_readers, counts.readers_max), (1, 3));
    assert_eq!((counts.sessions_stopped, counts.sessions_stopped_along, counts.sessions_open), (1, 0, 1));
}

#[test]
fn every_session_is_accounted_for() {
    let engine = engine();
    start(&engine, &format!("id={ID}"));
    start(&engine, &format!("id={OTHER_ID}"));
    for pid in ["1", "2"] {
        start_as(&engine, pid);
    }
    start_as(&engine, "3").stop(&engine);
    start(&engine, &format!("id={OTHER_ID}&pid=1&force_session_restart=1"));
    engine.set_idle_expiry(Duration::ZERO);
    assert!(engine.wait_for(LONG, |counts| counts.sessions_open == 0));
    engine.set_idle_expiry(LONG);
    start_as(&engine, "4");
    engine.crash().expect("the port is kept");
    engine.accept().expect("it listens again");
    start_as(&engine, "5");
    let counts = engine.counts();
    let ended = counts.sessions_stopped
        + counts.sessions_stopped_along
        + counts.sessions_superseded
        + counts.sessions_expired
        + counts.sessions_lost;
    assert_eq!(counts.sessions_opened, ended + counts.sessions_open);
    assert_eq!((counts.sessions_opened, counts.sessions_open), (8, 1));
    assert_eq!((counts.sessions_stopped, counts.sessions_stopped_along), (1, 2));
    assert_eq!((counts.sessions_superseded, counts.sessions_expired, counts.sessions_lost), (1, 2, 1));
}
