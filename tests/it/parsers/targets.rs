//! Requests over a real connection, of which no player would think.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use acerelay::sim::{Settings, SimEngine};
use proptest::prelude::*;

use super::check;
use crate::harness::{LONG, Proxy};

/// Every status of the API, and none else.
const OURS: [u16; 11] = [200, 204, 400, 401, 403, 404, 405, 501, 502, 503, 504];

/// What `tiny_http` says by itself: silence, an expectation it does not know, a version it does not speak.
const OF_THE_LIBRARY: [u16; 3] = [408, 417, 505];

/// Nothing else may have it, so whoever says it has heard it from the client.
const MARK: &str = "zqjxMark";

/// An engine that knows no content, and says so at once.
fn engine_without_content() -> SimEngine {
    let settings = Settings {
        unknown_id_delay: Duration::ZERO,
        unknown_infohash_delay: Duration::ZERO,
        ..Settings::default()
    };
    SimEngine::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), settings)
        .expect("a free port and a thread")
}

/// Says this, ends its own half if it is told to, and gives all that comes.
fn say(address: SocketAddr, head: &[u8], end: Option<Shutdown>) -> Result<String, TestCaseError> {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(LONG)).expect("a live socket");
    // Whoever has heard enough may close before all is said.
    let _said = socket.write_all(head);
    let _ended = end.map(|half| socket.shutdown(half));
    let mut answers = Vec::new();
    match socket.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => return Err(TestCaseError::fail(format!("it neither answers nor ends: {error}"))),
    }
    String::from_utf8(answers).map_err(|error| TestCaseError::fail(error.to_string()))
}

/// Holds that these are clear answers, one behind the other, or none. Those to HEAD have no bodies.
fn check_answers(mut rest: &str, statuses: &[u16], is_head: bool) -> Result<(), TestCaseError> {
    prop_assert!(!rest.contains(MARK), "it says what it has heard: {rest}");
    while !rest.is_empty() {
        let all = rest;
        let broken = |what: &str| TestCaseError::fail(format!("{what} in {all}"));
        let (head, behind) = rest.split_once("\r\n\r\n").ok_or_else(|| broken("no whole head"))?;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/").and_then(|line| line.get(4..7)?.parse().ok());
        let status: u16 = status.ok_or_else(|| broken("no status"))?;
        prop_assert!(statuses.contains(&status), "{status_line}");
        let (mut length, mut is_json) = (0, false);
        for line in lines {
            let (name, value) = line.split_once(": ").ok_or_else(|| broken("no header"))?;
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-'), "{line}");
            prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{line}");
            is_json |= line == "Content-Type: application/json";
            if name == "Content-Length" {
                length = value.parse().map_err(|_| broken("no length"))?;
            }
        }
        let body = if is_head { "" } else { behind.get(..length).ok_or_else(|| broken("half a body"))? };
        rest = &behind[body.len()..];
        if status >= 400 && is_json && !is_head {
            let json: serde_json::Value = serde_json::from_str(body).map_err(|_| broken("no JSON"))?;
            let detail = json["detail"].as_str().unwrap_or_default();
            prop_assert!(
                json["error"].is_string() && detail.contains(' ') && !detail.contains('\n'),
                "{body}"
            );
        }
    }
    Ok(())
}

/// Bytes that do not end the line by themselves.
fn bytes_of_a_line(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(|mut bytes| {
        bytes.retain(|byte| *byte != b'\n');
        bytes
    })
}

/// Targets in the words of the API.
fn likely_target() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "ace", "proxy", "getstream", "sessions", "clients", "status", "engines", "metrics", "healthz", "readyz",
            "manifest.m3u8", "..", ".", "%2e%2e", "%2F", "%00", "%ff", "%", "+", "7", MARK, "",
        ]).prop_map(str::to_owned),
        1 => "[0-9a-f]{40}(\\.ts)?",
        1 => "[!-~]{0,20}",
    ];
    let parameter = prop_oneof![
        2 => "(id|content_id|infohash)=[0-9a-fA-F]{40}",
        1 => "(id|content_id|infohash)=[!-~]{0,50}",
        1 => "(_idx|quality|pid|stream_id|x|transcode_audio)=[!-~]{0,20}",
        1 => Just(format!("id={MARK}")),
        1 => "[!-~]{0,30}",
    ];
    let authority = prop_oneof![3 => Just(String::new()), 1 => "(http://|HTTPS://|//)([!-.0-~]{0,12})?"];
    let path = prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("/{}", pieces.join("/")));
    let query = prop::collection::vec(parameter, 0..4).prop_map(|all| all.join("&"));
    let path = prop_oneof![1 => path, 1 => "/ace/getstream/?|/ace/[0-9a-f]{40}(\\.ts)?|/proxy/sessions/[0-9a-f]{40}"];
    (authority, path, "[?#]?", query)
        .prop_map(|(authority, path, mark, query)| format!("{authority}{path}{mark}{query}"))
}

#[test]
fn any_target_has_a_clear_answer_or_none() {
    let engine = engine_without_content();
    let proxy = Proxy::start(&[&engine]);
    let target = prop_oneof![
        3 => likely_target().prop_map(String::into_bytes),
        1 => bytes_of_a_line(200),
        1 => (bytes_of_a_line(20), bytes_of_a_line(20)).prop_map(|(before, behind)| [&before, MARK.as_bytes(), &behind].concat()),
    ];
    let method =
        prop::sample::select(vec!["GET", "GET", "GET", "HEAD", "OPTIONS", "DELETE", "POST", "get", MARK]);
    check(800, &(method, target), |(method, target)| {
        let head =
            [method.as_bytes(), b" ", &target, b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"];
        check_answers(&say(proxy.address, &head.concat(), None)?, &OURS, method == "HEAD")
    });
    // Whatever was asked for, the engine was asked for nothing but contents, in the proxy's own words.
    let known = [
        "id",
        "infohash",
        "content_id",
        "format",
        "pid",
        "sid",
        "api_version",
        "method",
        "_idx",
        "quality",
        "stream_id",
        "transcode_audio",
    ];
    let requests = engine.requests();
    assert!(requests.iter().any(|request| request.path == "/ace/getstream"), "nothing came through");
    for request in requests {
        assert!(request.query.len() > 1 || request.path != "/ace/getstream", "{request:?}");
        let mut names: Vec<_> = request.query.iter().map(|(name, _)| name.as_str()).collect();
        let is_known = names.iter().all(|name| known.contains(name));
        names.sort_unstable();
        names.dedup();
        assert!(is_known && names.len() == request.query.len(), "{request:?}");
    }
    assert_eq!(proxy.get("/healthz").status, 200);
}

#[test]
fn any_head_has_clear_answers_or_none() {
    let engine = engine_without_content();
    let proxy = Proxy::start(&[&engine]);
    let name = prop_oneof![
        6 => prop::sample::select(vec![
            "Host", "Connection", "Content-Length", "Transfer-Encoding", "Expect", "Range", "Origin", "Upgrade",
            "Authorization", "User-Agent", "Icy-MetaData", "host", "CONTENT-LENGTH", MARK, "", " ", "X:",
        ]).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
    ];
    let value = prop_oneof![
        4 => prop::sample::select(vec![
            "localhost", "close", "keep-alive", "upgrade", "Upgrade, HTTP2-Settings", "h2c", "0", "1", "7", "1025",
            "100000", "-1", "1, 1", "chunked", "identity", "100-continue", "bytes=0-", "http://evil.example", "Bearer x", MARK,
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => bytes_of_a_line(60),
    ];
    let line = (name, "(: ?)?", value)
        .prop_map(|(name, colon, value)| [name.as_bytes(), colon.as_bytes(), &value].concat());
    let request_line = prop_oneof![
        8 => ("(GET|OPTIONS|DELETE|POST)", "(/|/proxy/status|/ace/getstream\\?id=[0-9a-f]{40}|/proxy/sessions/7)", "HTTP/(1\\.[01]|0\\.9|2|9\\.9)")
            .prop_map(|(method, target, version)| format!("{method} {target} {version}").into_bytes()),
        1 => bytes_of_a_line(60),
    ];
    let end =
        prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "", "\n", "body", "\r\nGET / HTTP/1.1\r\n\r\n"]);
    let head = (request_line, prop::collection::vec(line, 0..6), end).prop_map(|(first, lines, end)| {
        let mut head = first;
        for line in lines {
            head.extend(b"\r\n");
            head.extend(line);
        }
        head.extend(b"\r\n");
        head.extend(end.as_bytes());
        head
    });
    let statuses = [&OURS[..], &OF_THE_LIBRARY].concat();
    check(600, &head, |head| {
        // There is no more to come, else half a head would be waited for.
        check_answers(&say(proxy.address, &head, Some(Shutdown::Write))?, &statuses, false)
    });
    assert_eq!(proxy.get("/healthz").status, 200);
}
