//! Which pages of health an engine has, and who closes the door before it can answer.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::super::{CallKind, Health, SimEngine};
use super::client::*;

const SERVICE: &str = "/webui/api/service?method=get_version";
const STATUS: &str = "/server/api?api_version=3&method=get_status";
const SERVER_VERSION: &str = "/server/api?api_version=3&method=get_version";

/// Whether a page gives a result; `None` if it is not found.
fn asks(engine: &SimEngine, target: &str) -> Option<bool> {
    let mut answer = get(engine, target);
    if answer.status == 404 {
        assert_eq!(answer.text(), "", "{target}");
        return None;
    }
    Some(answer.json()["result"].is_object())
}

#[test]
fn any_page_of_health_can_be_missing_while_streams_play() {
    let check = |health: Health, service, status, server_version| {
        let engine = engine();
        engine.set_health(health.clone());
        let found = [SERVICE, STATUS, SERVER_VERSION].map(|target| asks(&engine, target));
        assert_eq!(found, [service, status, server_version], "{health:?}");
        assert_eq!(play(&engine).take(1)[0], 0x47, "{health:?}");
    };
    check(Health::Ready, Some(true), Some(true), Some(false));
    check(Health::NoService, None, Some(true), Some(true));
    check(Health::NoStatus, Some(true), None, None);
    check(Health::NoPages, None, None, None);
    check(Health::OnlyServerVersion, None, Some(false), Some(true));
}

/// Whether the connection ends before a byte of an answer, closed or reset.
fn is_slammed(engine: &SimEngine, target: &str) -> bool {
    let mut socket = connect(engine);
    let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    // The engine may have closed already.
    let _written = socket.write_all(head.as_bytes());
    !matches!(socket.read(&mut [0]), Ok(1..))
}

#[test]
fn a_forwarder_in_front_of_a_dead_engine_accepts_and_closes() {
    let engine = engine();
    engine.crash().expect("the port is kept");
    assert!(TcpStream::connect(engine.addr()).is_err());
    engine.slam().expect("it listens");
    for target in [SERVICE, STATUS, "/ace/getstream?format=json"] {
        assert!(is_slammed(&engine, target), "{target}");
    }
    let counts = engine.counts();
    assert_eq!((counts.slammed, counts.getstreams, counts.health_checks), (3, 0, 0));
    assert!(engine.requests().is_empty());
    engine.accept().expect("it listens");
    assert_eq!(asks(&engine, SERVICE), Some(true));
    start_as(&engine, "1");
}

#[test]
fn a_door_can_be_slammed_on_chosen_calls() {
    let engine = engine();
    let started = start_as(&engine, "1");
    let path = |name| started.url(name).replacen(&engine.url(), "", 1);
    let redirect = get(&engine, started.url("playback_url"));
    let body = redirect.header("Location").expect("a Location").replacen(&engine.url(), "", 1);
    let calls = [
        (CallKind::Check, SERVICE.to_owned()),
        (CallKind::Check, STATUS.to_owned()),
        (CallKind::Getstream, format!("/ace/getstream?format=json&id={OTHER_ID}&pid=2")),
        (CallKind::Stat, path("stat_url")),
        (CallKind::Playback, path("playback_url")),
        (CallKind::Playback, body),
        (CallKind::Stop, path("command_url") + "?method=stop"),
    ];
    for (slammed, _) in &calls {
        engine.slam_calls(&[*slammed]);
        for (kind, target) in calls.iter().filter(|(kind, _)| kind == slammed || *kind != CallKind::Stop) {
            assert_eq!(is_slammed(&engine, target), kind == slammed, "{slammed:?}: {target}");
        }
    }
    // The engine has not heard of the stop.
    assert_eq!(engine.counts().stops, 0);
    engine.accept().expect("it listens");
    assert!(started.stop(&engine).contains("ok"));
}
