//! An engine that is frozen, as a stopped process is: what it keeps waiting, and what comes of it at the thaw.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use super::super::{Delivery, SessionRules, Settings, SimEngine};
use super::client::*;

const MOMENT: Duration = Duration::from_millis(100);

fn says_nothing(socket: &TcpStream) -> bool {
    socket.set_read_timeout(Some(MOMENT)).expect("a live socket");
    let read = (&*socket).read(&mut [0]);
    socket.set_read_timeout(Some(LONG)).expect("a live socket");
    read.is_err()
}

/// Sends a stop and waits until the engine has it.
fn stop_while_frozen(engine: &SimEngine, started: &Started) -> TcpStream {
    let before = engine.counts().kept_waiting;
    let path = started.url("command_url").replacen(&engine.url(), "", 1);
    let socket = send(engine, &format!("{path}?method=stop"));
    assert!(engine.wait_for(LONG, |counts| counts.kept_waiting > before));
    socket
}

#[test]
fn a_frozen_engine_accepts_and_is_silent_and_answers_everything_at_the_thaw() {
    let engine = empty(Settings::default());
    engine.add(content(ID, INFOHASH).delivery(Delivery { skip_bytes: 0, ..Delivery::default() }));
    let mut body = play(&engine);
    body.take(1000);
    engine.freeze();
    body.fall_silent();
    let targets = [
        "/webui/api/service?method=get_version".to_owned(),
        "/server/api?api_version=3&method=get_status".to_owned(),
        format!("/ace/getstream?format=json&id={ID}&pid=2"),
    ];
    let sockets: Vec<_> = targets.iter().map(|target| send(&engine, target)).collect();
    assert!(engine.wait_for(LONG, |counts| counts.kept_waiting >= 3));
    assert!(sockets.iter().all(says_nothing));
    let counts = engine.counts();
    assert_eq!((counts.health_checks, counts.getstreams, counts.sessions_opened), (0, 1, 1));
    engine.thaw();
    for socket in sockets {
        assert_eq!(Answer::read(socket).status, 200);
    }
    assert_eq!(engine.counts().sessions_opened, 2);
    body.take(200_000);
}

#[test]
fn a_stop_takes_effect_at_the_thaw_although_its_client_has_gone() {
    let engine = engine();
    let started = start_as(&engine, "1");
    engine.freeze();
    drop(stop_while_frozen(&engine, &started));
    assert_eq!(engine.counts().sessions_open, 1);
    engine.thaw();
    assert!(engine.wait_for(LONG, |counts| counts.sessions_stopped == 1));
}

#[test]
fn a_stop_that_came_in_a_freeze_ends_the_newest_session_if_the_rule_holds() {
    for (ends_newest, left) in [(true, 0), (false, 1)] {
        let rules = SessionRules {
            late_stop_ends_newest: ends_newest,
            stop_ends_all_of_content: false,
            ..SessionRules::default()
        };
        let engine = empty(Settings { rules, ..Settings::default() });
        engine.add(content(ID, INFOHASH));
        engine.add(content(OTHER_ID, OTHER_INFOHASH));
        let old = start_as(&engine, "1");
        // The player zaps away, which ends the old session, and back, as somebody else.
        start(&engine, &format!("id={OTHER_ID}&pid=1"));
        let mut body = start_as(&engine, "2").play(&engine);
        body.take(1000);
        engine.freeze();
        let stop = stop_while_frozen(&engine, &old);
        engine.thaw();
        let text = Answer::read(stop).text();
        assert_eq!(text.contains("ok"), ends_newest, "{text}");
        assert_eq!(engine.counts_of(ID).sessions_open, left);
    }
}

#[test]
fn a_frozen_engine_can_be_killed() {
    let engine = engine();
    let mut body = play(&engine);
    body.take(1000);
    engine.freeze();
    let mut asking = send(&engine, &format!("/ace/getstream?format=json&id={ID}&pid=2"));
    assert!(engine.wait_for(LONG, |counts| counts.kept_waiting >= 1));
    engine.crash().expect("the port is kept");
    body.read_to_end();
    let mut rest = Vec::new();
    // Closed or reset.
    let _ended = asking.read_to_end(&mut rest);
    assert_eq!((rest.len(), engine.counts().sessions_open), (0, 0));
    engine.accept().expect("it listens again");
    start_as(&engine, "3");
}

#[test]
fn a_frozen_engine_can_be_dropped() {
    let engine = engine();
    let mut body = play(&engine);
    body.take(1000);
    engine.freeze();
    drop(engine);
    body.read_to_end();
}
