//! Engines that die in the wrong moment, and sessions that do not live long.

use std::net::TcpStream;
use std::time::Duration;

use super::super::{EndedReaders, Getstream, Script, SessionRules, Settings};
use super::client::*;

#[test]
fn an_engine_can_be_gone_once_getstream_is_answered() {
    let engine = engine();
    let mut body = start_as(&engine, "0").play(&engine);
    engine.refuse_after_getstream(2);
    start_as(&engine, "1");
    let last = start_as(&engine, "2");
    assert!(last.url("playback_url").starts_with(&engine.url()));
    assert!(TcpStream::connect(engine.addr()).is_err());
    body.take(100_000);
    engine.crash().expect("the port is kept");
    engine.accept().expect("it listens again");
    start_as(&engine, "3");
    start_as(&engine, "4");
    assert_eq!(get(&engine, last.url("stat_url")).json()["error"], "unknown playback session id");
}

#[test]
fn getstream_can_be_answered_by_an_error_and_the_end_of_the_connection() {
    let engine = scripted(Script::new().getstream(Getstream::StatusAndClose(503, "busy".to_owned())));
    let mut answer = get(&engine, &format!("/ace/getstream?format=json&id={ID}&pid=1"));
    assert_eq!((answer.status, answer.header("Connection")), (503, Some("close")));
    assert_eq!(answer.read_to_end().1, End::Clean);
    assert_eq!(engine.counts().sessions_opened, 0);
}

#[test]
fn an_engine_can_forget_its_sessions_by_their_age_and_leave_readers_hanging() {
    for ended_readers in [EndedReaders::End, EndedReaders::Stall] {
        let engine = empty(Settings {
            rules: SessionRules { ended_readers, ..SessionRules::default() },
            ..Settings::default()
        });
        engine.add(content(ID, INFOHASH));
        let started = start_as(&engine, "1");
        let mut body = started.play(&engine);
        body.take(1000);
        engine.set_session_lifetime(Some(Duration::from_millis(50)));
        assert!(engine.wait_for(LONG, |counts| counts.sessions_lost == 1));
        match ended_readers {
            EndedReaders::End => assert_eq!(body.read_to_end().1, End::Clean),
            EndedReaders::Stall => body.fall_silent(),
        }
        assert_eq!(get(&engine, started.url("stat_url")).json()["error"], "unknown playback session id");
        engine.set_session_lifetime(None);
        start_as(&engine, "2").play(&engine).take(1000);
    }
}
