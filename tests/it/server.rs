//! The server beside its streams: what is answered, and that nobody can keep it from answering.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use acerelay::http::guard::Patience;
use acerelay::http::socket::Options;
use acerelay::sim::{Entry, Getstream, Order, PlaybackStep, Script};
use serde_json::Value;

use super::harness::{
    BareServer, Connection, ID, INFOHASH, LONG, OTHER_ID, Proxy, Running, Viewer, assert_whole, engine,
    in_parallel, pause, scripted, stream_path,
};

#[test]
fn a_burst_of_connections_that_stay_open_is_answered_at_once() {
    const CLIENTS: usize = 50;
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let address = proxy.address;
    let (gate, exit) = (Arc::new(Barrier::new(CLIENTS)), Arc::new(Barrier::new(CLIENTS)));
    let times = in_parallel(CLIENTS, move |_| {
        gate.wait();
        let began = Instant::now();
        let reply = Connection::open(address).get("/ace/status");
        let took = began.elapsed();
        assert_eq!(reply.status, 200);
        exit.wait();
        took
    });
    let longest = times.into_iter().max().expect("fifty times");
    // One that was left unread waits 5 s for a thread of the pool to give up idling, or 10 s for its read deadline.
    assert!(longest < Duration::from_millis(4800), "{longest:?}");
}

#[test]
fn an_answer_says_whether_its_connection_goes_on() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for (version, wish, said) in [
        ("1.1", "", None),
        ("1.1", "Connection: keep-alive\r\n", None),
        ("1.1", "Connection: close\r\n", Some("close")),
        ("1.0", "", Some("close")),
        ("1.0", "Connection: Keep-Alive\r\n", Some("keep-alive")),
    ] {
        let mut connection = proxy.connect();
        connection.send(&format!("GET /ace/status HTTP/{version}\r\nHost: box\r\n{wish}\r\n"));
        let mut reply = connection.reply();
        assert_eq!((reply.status, reply.header("Connection")), (200, said), "HTTP/{version} {wish}");
        assert!(reply.header("Date").is_some_and(|date| date.ends_with(" GMT")));
        reply.json();
        // And so it is.
        let mut connection = reply.into_connection();
        if said == Some("close") {
            assert_eq!(connection.read_to_end(), "");
        } else {
            connection.send("GET /healthz HTTP/1.1\r\nHost: box\r\n\r\n");
            assert_eq!(connection.reply().status, 200, "HTTP/{version} {wish}");
        }
    }
}

/// Every field of a Session in the API.
const SESSION_FIELDS: [&str; 28] = [
    "stream_id",
    "channel",
    "ace_id",
    "infohash",
    "engine",
    "engine_host",
    "engine_port",
    "playback_session_id",
    "is_live",
    "is_active",
    "state",
    "client_count",
    "waiting_count",
    "created_at",
    "started_at",
    "ended_at",
    "error",
    "idle_seconds",
    "bytes_in",
    "bytes_out",
    "bitrate_bps",
    "first_data_ms",
    "restarts",
    "keyframe_interval_s",
    "picture_missing_s",
    "media",
    "swarm",
    "clients",
];

#[track_caller]
fn assert_fields(value: &Value, fields: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    let mut fields = fields.to_vec();
    fields.sort_unstable();
    let mut found: Vec<_> = object.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, fields, "{value:#}");
}

#[test]
fn head_is_answered_at_once_and_starts_nothing() {
    let engine = engine();
    engine.set_health(acerelay::sim::Health::Hangs);
    let proxy = Proxy::start(&[&engine]);
    for target in [stream_path(ID), format!("/ace/{ID}.ts"), format!("/ace/{ID}")] {
        let mut connection = proxy.connect();
        connection.send_request("HEAD", &target, "");
        let reply = connection.reply_to_head();
        assert_eq!(reply.status, 200);
        for (name, value) in STREAM_HEADERS {
            assert_eq!(reply.header(name), Some(value), "{target}");
        }
        // There is no body: the next answer follows.
        let mut health = reply.into_connection().get("/healthz");
        assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    }
    assert_eq!((engine.counts().getstreams, proxy.status()["total_sessions"].as_u64()), (0, Some(0)));
    let mut connection = proxy.connect();
    connection.send_request("HEAD", "/ace/getstream?id=x", "");
    assert_eq!(connection.reply_to_head().status, 400);
}

const STREAM_HEADERS: [(&str, &str); 5] = [
    ("Content-Type", "video/mp2t"),
    ("Cache-Control", "no-store"),
    ("Accept-Ranges", "none"),
    ("X-Accel-Buffering", "no"),
    ("Access-Control-Allow-Origin", "*"),
];

#[test]
fn get_has_the_headers_that_head_has() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let reply = proxy.get(&stream_path(ID));
    let mut connection = proxy.connect();
    connection.send_request("HEAD", &stream_path(ID), "");
    let head = connection.reply_to_head();
    assert_eq!(reply.headers, head.headers);
    for (name, value) in STREAM_HEADERS {
        assert_eq!(reply.header(name), Some(value));
    }
    assert_eq!((reply.version.as_str(), reply.header("Transfer-Encoding")), ("HTTP/1.1", Some("chunked")));
}

#[test]
fn options_are_the_same_everywhere() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    for target in [stream_path(ID).as_str(), "/proxy/status", "/nowhere", "/", "/proxy/sessions/abc"] {
        connection.send_request(
            "OPTIONS",
            target,
            "Origin: http://x\r\nAccess-Control-Request-Method: DELETE\r\n",
        );
        let reply = connection.reply();
        assert_eq!(reply.status, 204, "{target}");
        assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(reply.header("Access-Control-Allow-Methods"), Some("GET, HEAD, OPTIONS"));
        connection = reply.into_connection();
    }
    assert_eq!(engine.counts().getstreams, 0);
}

#[test]
fn other_methods_are_refused_with_those_that_are_allowed() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    for method in ["POST", "DELETE", "PUT", "PATCH", "BREW"] {
        connection.send_request(method, &stream_path(ID), "Content-Length: 0\r\n");
        let mut reply = connection.reply();
        assert_eq!((reply.status, &reply.json()["error"]), (405, &"method_not_allowed".into()), "{method}");
        assert_eq!(reply.header("Allow"), Some("GET, HEAD, OPTIONS"));
        connection = reply.into_connection();
    }
    assert_eq!(engine.counts().getstreams, 0);
}

#[test]
fn a_path_that_is_not_there_is_told_with_those_that_are() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for target in
        ["/nowhere", "/ace", "/ace/0123", "/proxy", "//", "/ace/getstream/x?id=1", "/%ff", "/..%2fetc"]
    {
        let mut reply = proxy.get(target);
        let json = reply.json();
        assert_eq!((reply.status, &json["error"]), (404, &"not_found".into()), "{target}");
        let detail = json["detail"].as_str().expect("a sentence");
        assert!(detail.contains("/ace/getstream") && detail.contains("/proxy/status"), "{detail}");
    }
    for method in ["POST", "DELETE", "PUT"] {
        let mut connection = proxy.connect();
        connection.send_request(method, "/nowhere", "Content-Length: 0\r\n");
        let mut reply = connection.reply();
        assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()), "{method}");
    }
}

#[test]
fn the_status_has_every_field_from_the_first_moment_on() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start(&[&engine]);
    let fields = [
        "running",
        "version",
        "uptime_s",
        "total_sessions",
        "active_sessions",
        "total_clients",
        "bytes_in",
        "bytes_out",
        "engines",
        "sessions",
    ];
    let status = proxy.status();
    assert_fields(&status, &fields);
    assert_eq!((&status["running"], &status["sessions"]), (&true.into(), &Value::Array(Vec::new())));
    assert_fields(
        &status["engines"][0],
        &[
            "name",
            "host",
            "port",
            "healthy",
            "version",
            "forwarded",
            "streams",
            "max_streams",
            "last_error",
            "last_checked_at",
        ],
    );
    let _waiting = proxy.ask(ID);
    let session = proxy.wait_session(ID, "its engine is known", |session| session["infohash"].is_string());
    assert_fields(&session, &SESSION_FIELDS);
    assert_eq!((&session["state"], &session["waiting_count"]), (&"starting".into(), &1.into()));
    for unknown in ["started_at", "ended_at", "error", "first_data_ms", "keyframe_interval_s"] {
        assert!(session[unknown].is_null(), "{unknown} in {session:#}");
    }

    let mut viewer = Viewer::open(proxy.address, OTHER_ID);
    viewer.take_packets(100);
    let session = proxy.wait_session(OTHER_ID, "it has a bit rate", |session| session["bitrate_bps"] != 0);
    assert_fields(&session, &SESSION_FIELDS);
    assert_fields(
        &session["clients"][0],
        &[
            "client_id",
            "address",
            "user_agent",
            "connected_at",
            "protocol",
            "bytes_sent",
            "lag_ms",
            "skipped",
        ],
    );
    assert_eq!((&session["state"], &session["is_live"]), (&"active".into(), &true.into()));
    assert_eq!(session["infohash"], super::harness::OTHER_INFOHASH.to_string());
    assert_eq!(session["engine_port"], engine.addr().port());
    assert!(
        session["first_data_ms"].is_number() && session["clients"][0]["client_id"].is_string(),
        "{session:#}"
    );
    for time in ["created_at", "started_at"] {
        let text = session[time].as_str().expect("a time");
        assert!(text.len() >= 20 && text.contains('T') && text.ends_with('Z'), "{text}");
    }
    let status = proxy.status();
    assert_eq!((&status["active_sessions"], &status["total_sessions"]), (&1.into(), &2.into()));
}

#[test]
fn a_session_is_found_by_each_of_its_names() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(1);
    let upper = ID.to_string().to_uppercase();
    for name in [ID.to_string(), INFOHASH.to_string(), upper] {
        let mut reply = proxy.get(&format!("/proxy/sessions/{name}"));
        let json = reply.json();
        assert_eq!((reply.status, &json["ace_id"]), (200, &ID.to_string().into()), "{name}");
        assert_fields(&json, &SESSION_FIELDS);
    }
    let mut list = proxy.get("/proxy/sessions");
    assert_eq!(list.json()["sessions"].as_array().expect("a list").len(), 1);
    for name in [OTHER_ID.to_string(), "x".to_owned(), String::from("%20")] {
        let mut reply = proxy.get(&format!("/proxy/sessions/{name}"));
        assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()), "{name}");
    }
    // In the shape that acexy gives it.
    let mut reply = proxy.get("/ace/status");
    assert_eq!(reply.json(), serde_json::json!({"streams": 1}));
    let mut reply = proxy.get(&format!("/ace/status?id={ID}"));
    let json = reply.json();
    assert_eq!((&json["clients"], &json["stream_id"]), (&1.into(), &ID.to_string().into()));
    assert!(json["stat_url"].is_string(), "{json}");
    assert_eq!(proxy.get(&format!("/ace/status?id={OTHER_ID}")).status, 404);
}

#[test]
fn a_connection_carries_a_status_and_then_a_stream() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    for target in ["/proxy/status", "/healthz", "/nowhere"] {
        let mut reply = connection.get(target);
        reply.text();
        connection = reply.into_connection();
    }
    let mut viewer = Viewer::of(connection.get(&stream_path(ID)));
    viewer.take_packets(100);
    assert_whole(&viewer.leave());
}

#[test]
fn a_quiet_source_is_filled_with_null_packets_and_a_start_never_is() {
    let late = PlaybackStep::first_byte_after(Duration::from_secs(1));
    let engine = scripted(Script::new().playback(late));
    let keepalive = Duration::from_millis(200);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.keepalive = Some(keepalive));
    let mut waiting = proxy.ask(ID);
    assert!(waiting.is_silent_for(Duration::from_millis(600)), "nothing before the first packets");
    let mut viewer = Viewer::of(waiting.reply());
    viewer.take_packets(1);
    assert_eq!(viewer.report().null_packets, 0);
    engine.order(ID, Order::Stall);
    viewer.take_until("null packets", |report| report.null_packets >= 3);
    let last = viewer.report().last;
    engine.order(ID, Order::Resume);
    viewer.take_until("the stream goes on", |report| report.last > last.map(|last| last + 500));
    assert_whole(viewer.report());
    assert_eq!(viewer.report().damaged, 0);
}

#[test]
fn without_keepalive_a_quiet_source_is_quiet() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(100);
    engine.order(ID, Order::Stall);
    // What was on its way may still come, nothing after it.
    while !viewer.reply.is_silent_for(Duration::from_secs(1)) {
        viewer.take().expect("the stream goes on");
    }
    assert_eq!(viewer.report().null_packets, 0);
    assert_whole(viewer.report());
}

#[test]
fn a_client_too_many_is_refused_and_the_next_has_room_again() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.server.max_clients = 2);
    let mut viewers = [ID, OTHER_ID].map(|id| Viewer::open(proxy.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(10));
    let mut reply = proxy.get(&stream_path(ID));
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (503, &"at_capacity".into()));
    assert!(json["detail"].as_str().is_some_and(|detail| detail.contains("max_clients")), "{json}");
    assert!(reply.header("Retry-After").is_some());
    // Everything else is answered.
    assert_eq!(proxy.status()["total_clients"], 2);
    let [first, mut second] = viewers;
    drop(first.leave());
    proxy.wait_status("there is room", |status| status["total_clients"] == 1);
    let mut next = Viewer::open(proxy.address, OTHER_ID);
    next.take_packets(10);
    second.take_packets(300);
    assert_whole(&second.leave());
    assert_whole(&next.leave());
}

#[test]
fn a_stream_too_many_is_refused_and_a_client_of_one_that_runs_is_not() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.max_streams = 1);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(10);
    let mut reply = proxy.get(&stream_path(OTHER_ID));
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (503, &"at_capacity".into()));
    assert!(json["detail"].as_str().is_some_and(|detail| detail.contains("max_streams")), "{json}");
    assert!(reply.header("Retry-After").is_some());
    let mut second = Viewer::open(proxy.address, ID);
    second.take_packets(10);
    assert_eq!(engine.counts().getstreams, 1);
}

#[test]
fn a_request_with_a_body_is_refused() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    connection.send_request("GET", "/healthz", "Content-Length: 3\r\n");
    connection.send("abc");
    assert_eq!(connection.reply().status, 400);
    let mut connection = proxy.connect();
    connection.send_request("GET", &stream_path(ID), "Transfer-Encoding: chunked\r\n");
    connection.send("1\r\nx\r\n0\r\n\r\n");
    let mut reply = connection.reply();
    assert_eq!((reply.status, &reply.json()["error"]), (400, &"bad_request".into()));
    assert_eq!(reply.into_connection().read_to_end(), "", "nothing behind it can be trusted");
    assert_eq!(engine.counts().getstreams, 0);
}

#[test]
fn what_peers_say_is_one_line_of_the_log_and_no_more() {
    let evil = "gone\r\n2026-01-01T00:00:00.000Z [ERROR] forged \u{1b}[2J\u{202e}\u{0}";
    let engine = scripted(Script::new().getstream(Getstream::Error(evil.to_owned())));
    let program = Running::start(&["--engine", &engine.addr().to_string(), "--log-level", "trace"]);
    let mut connection = Connection::open(program.address);
    connection.send_request("GET", &stream_path(ID), "");
    let mut reply = connection.reply();
    let json = reply.json();
    let detail = json["detail"].as_str().expect("a sentence");
    assert!(detail.contains(r"gone\r\n") && !detail.contains(char::is_control), "{detail:?}");
    let mut connection = Connection::open(program.address);
    connection
        .send(&format!("GET {} HTTP/1.1\r\nUser-Agent: a\tb \\n [ERROR]\r\n\r\n", stream_path(OTHER_ID)));
    let mut viewer = Viewer::of(connection.reply());
    viewer.take_packets(20);
    drop(viewer);
    let mut connection = Connection::open(program.address);
    connection.send("DELETE /proxy/sessions/%0a%1b[2J HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(connection.reply().status, 403);
    let lines = program.end();
    for line in &lines {
        let is_clean = !line.contains(|letter: char| letter.is_control() || !letter.is_ascii());
        assert!(is_clean && !line.starts_with("2026-01-01T00:00:00.000Z"), "{line:?}");
    }
    for told in [r"gone\r\n2026", r"forged \u{1b}[2J\u{202e}\u{0}", r"(a\tb \\n [ERROR])"] {
        assert!(lines.iter().any(|line| line.contains(told)), "{told} in {lines:#?}");
    }
}

#[test]
fn whoever_sends_what_is_no_request_is_told_in_the_log() {
    let running = Running::start(&["--engine", "127.0.0.1:1"]);
    let say = |head: &[u8]| {
        let mut socket = TcpStream::connect(running.address).expect("it listens");
        socket.write_all(head).expect("room in the buffer");
        socket.set_read_timeout(Some(LONG)).expect("a live socket");
        socket
    };
    // What they are told is up to tiny_http: 400 without a sentence, or nothing.
    let told_nothing = |mut socket: TcpStream| {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an end");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    };
    told_nothing(say(b"GET /ace/getstream?id=x&name=Sky Sport HTTP/1.1\r\nHost: x\r\n\r\n"));
    told_nothing(say("GET /caf\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n".as_bytes()));
    told_nothing(say("GET / HTTP/1.1\r\nUser-Agent: Caf\u{e9}\r\n\r\n".as_bytes()));
    let slow = [&b"GET / HTTP/1.1\nHost: x\n\n"[..], b"\x16\x03\x01\x02"].map(say);
    // Those who ask, say nothing, or leave are not meant.
    let _silent = TcpStream::connect(running.address).expect("it listens");
    drop(TcpStream::connect(running.address).expect("it listens"));
    for lines in ["", "Connection: close\r\n"] {
        let mut connection = Connection::open(running.address);
        connection.send_request("GET", "/healthz", lines);
        assert_eq!(connection.reply().text(), "ok\n");
    }
    let line = running.wait_log("is no HTTP request");
    assert!(line.contains("[WARN] 3 connections from 127.0.0.1 sent something"), "{line}");
    slow.into_iter().for_each(told_nothing);
    let rest = running.end();
    assert!(!rest.iter().any(|line| line.contains("no HTTP request")), "not again so soon: {rest:#?}");
}

#[test]
fn an_idle_connection_is_ended_and_one_with_half_a_request_is_reset() {
    // Without this the library ends idle connections by itself, before the guard does.
    let options = Options { read_limit: LONG, write_slice: LONG };
    let patience = Patience { head: Duration::from_secs(2), ..Patience::default() };
    let server = BareServer::start_with(options, patience, LONG, |request| {
        request.respond(acerelay::http::response::Response::text(200, "ok"));
    });
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut sockets = [request, &format!("{request}GET / HTTP/1.1\r\nX"), ""].map(|text| {
        let mut socket = TcpStream::connect(server.address()).expect("it listens");
        socket.write_all(text.as_bytes()).expect("room in the buffer");
        socket.set_read_timeout(Some(LONG)).expect("a live socket");
        socket
    });
    // The half comes when the answer has been seen.
    pause(Duration::from_millis(1200));
    sockets[1].write_all(b": y").expect("room in the buffer");
    let ends = sockets.map(|mut socket| {
        let mut bytes = Vec::new();
        let read = socket.read_to_end(&mut bytes);
        // A reset may follow an end that was read.
        pause(Duration::from_millis(300));
        (!bytes.is_empty(), read.is_err() || socket.take_error().expect("a live socket").is_some())
    });
    assert_eq!(ends, [(true, false), (true, true), (false, false)]);
}
