//! Stopping a stream, disconnecting a client, and who may.

use acerelay::sim::{Entry, PlaybackStep, Script};
use serde_json::Value;

use super::harness::{
    End, ID, INFOHASH, OTHER_ID, Proxy, Reply, Viewer, assert_all_stopped, assert_whole, broadcast, engine,
    scripted, stream_path,
};

fn delete(proxy: &Proxy, target: &str, lines: &str) -> Reply {
    let mut connection = proxy.connect();
    connection.send_request("DELETE", target, lines);
    connection.reply()
}

fn session_path(id: impl std::fmt::Display) -> String {
    format!("/proxy/sessions/{id}")
}

#[test]
fn a_stream_is_stopped_for_everybody_and_their_bodies_end_properly() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for name in [ID, INFOHASH] {
        let mut viewers = [ID; 3].map(|id| Viewer::open(proxy.address, id));
        viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
        let reply = delete(&proxy, &session_path(name), "");
        assert_eq!(reply.status, 204, "{name}");
        assert_eq!(reply.into_connection().get("/healthz").status, 200);
        for viewer in viewers {
            let (report, end) = viewer.finish();
            assert_whole(&report);
            assert_eq!(end, End::Complete);
        }
        proxy.wait_gone(ID);
        let mut again = delete(&proxy, &session_path(name), "");
        assert_eq!((again.status, &again.json()["error"]), (404, &"not_found".into()));
    }
    assert_all_stopped(&engine, 2);
    assert_eq!(delete(&proxy, &session_path("x"), "").status, 404);
}

#[test]
fn after_the_end_of_a_stream_its_connection_goes_on() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    for _ in 0..3 {
        let mut reply = connection.get("/proxy/status");
        reply.json();
        let mut viewer = Viewer::of(reply.into_connection().get(&stream_path(ID)));
        viewer.take_packets(20);
        assert_eq!(delete(&proxy, &session_path(ID), "").status, 204);
        assert_eq!(viewer.take_to_end(), End::Complete);
        connection = viewer.reply.into_connection();
    }
    assert_eq!(connection.get("/healthz").status, 200);
}

#[test]
fn a_start_is_stopped_too_and_those_who_wait_are_told() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    proxy.wait_session(ID, "it waits", |session| session["waiting_count"] == 1);
    assert_eq!(delete(&proxy, &session_path(ID), "").status, 204);
    let mut reply = waiting.reply();
    let json = reply.json();
    // Not 503, which asks it to come back in a moment.
    assert_eq!((reply.status, &json["error"], reply.header("Retry-After")), (404, &"not_found".into(), None));
    assert!(json["detail"].as_str().is_some_and(|detail| detail.contains("request")), "{json}");
}

fn client_ids(session: &Value) -> Vec<String> {
    let clients = session["clients"].as_array().expect("a list");
    clients.iter().map(|client| client["client_id"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn one_client_is_disconnected_and_the_others_stay() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut first = Viewer::open(proxy.address, ID);
    first.take_packets(10);
    let id = client_ids(&proxy.session(ID)).remove(0);
    let mut second = Viewer::open(proxy.address, ID);
    let mut other = Viewer::open(proxy.address, OTHER_ID);
    second.take_packets(10);
    other.take_packets(10);
    let of_other = client_ids(&proxy.session(OTHER_ID)).remove(0);
    let path = |client: &str| format!("/proxy/sessions/{ID}/clients/{client}");
    for unknown in ["999", "x", "-1", &of_other] {
        let mut reply = delete(&proxy, &path(unknown), "");
        assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()), "{unknown}");
    }
    assert_eq!(delete(&proxy, &path(&id), "").status, 204);
    let (report, end) = first.finish();
    assert_whole(&report);
    assert_eq!(end, End::Complete);
    proxy.wait_clients(ID, 1);
    assert_eq!(delete(&proxy, &path(&id), "").status, 404);
    for mut viewer in [second, other] {
        viewer.take_packets(300);
        assert_whole(&viewer.leave());
    }
}

#[track_caller]
fn check_denied(proxy: &Proxy, lines: &str, status: u16, code: &str) {
    for target in [session_path(ID), format!("{}/clients/1", session_path(ID)), session_path("unknown")] {
        let mut connection = proxy.connect();
        connection.send(&format!("DELETE {target} HTTP/1.1\r\n{lines}\r\n"));
        let mut reply = connection.reply();
        let json = reply.json();
        assert_eq!((reply.status, &json["error"]), (status, &code.into()), "{lines}: {json}");
        assert!(json["detail"].as_str().is_some_and(|detail| detail.len() > 10 && !detail.contains("evil")));
        let challenge = reply.header("WWW-Authenticate");
        assert_eq!(challenge, (status == 401).then_some("Bearer"));
    }
}

#[test]
fn strangers_change_nothing() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.admin_token = Some("secret".parse().expect("a token"));
        config.server.public_url = Some("https://tv.example.org".parse().expect("a URL"));
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(10);
    let right = "Authorization: Bearer secret\r\n";
    for wrong in
        ["", "Authorization: Bearer secre\r\n", "Authorization: Basic c2VjcmV0\r\n", "X-Token: secret\r\n"]
    {
        check_denied(&proxy, &format!("Host: box:8000\r\n{wrong}"), 401, "unauthorized");
    }
    // A page whose name was rebound to our address asks as if it were its own host.
    for host in ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"] {
        let lines = format!("Host: {host}\r\nOrigin: http://{host}\r\n{right}");
        check_denied(&proxy, &lines, 403, "forbidden");
    }
    check_denied(&proxy, right, 403, "forbidden");
    for origin in ["http://evil.example", "null", "http://box", "https://box:8001"] {
        check_denied(&proxy, &format!("Host: box:8000\r\nOrigin: {origin}\r\n{right}"), 403, "forbidden");
    }
    // The name in the target stands above the header.
    let mut connection = proxy.connect();
    let target = format!("http://evil.example{}", session_path(ID));
    connection.send_request("DELETE", &target, right);
    assert_eq!(connection.reply().status, 403);
    // By no other method, whatever it says.
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT"] {
        let mut connection = proxy.connect();
        connection.send_request(
            method,
            &session_path(ID),
            &format!("X-HTTP-Method-Override: DELETE\r\n{right}"),
        );
        let reply = connection.reply_to_head();
        if method == "OPTIONS" {
            for name in ["Allow", "Access-Control-Allow-Methods"] {
                assert_eq!(reply.header(name), Some("GET, HEAD, OPTIONS"));
            }
        }
        if method == "POST" {
            assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, HEAD, DELETE, OPTIONS")));
        }
    }
    viewer.take_packets(300);
    assert_whole(viewer.report());
    // And those who may, may.
    let lines = format!("Host: tv.example.org\r\nOrigin: https://tv.example.org\r\n{right}");
    let mut connection = proxy.connect();
    connection.send(&format!("DELETE {} HTTP/1.1\r\n{lines}\r\n", session_path(ID)));
    assert_eq!(connection.reply().status, 204);
    assert_eq!(viewer.take_to_end(), End::Complete);
}

#[test]
fn a_name_that_two_streams_have_is_the_same_to_get_and_delete() {
    // The digits are an id to one client, an infohash to the other, and the first part of a variant's name.
    let engines = [(); 3].map(|()| {
        let engine = engine();
        engine.add(broadcast(OTHER_ID, ID));
        engine
    });
    let proxy = Proxy::start(&[&engines[0], &engines[1], &engines[2]]);
    for round in 0..8 {
        let targets = [
            format!("/ace/getstream?id={ID}"),
            format!("/ace/getstream?infohash={ID}"),
            format!("/ace/getstream?id={ID}&_idx=1"),
        ];
        let mut viewers: Vec<_> = targets
            .iter()
            .map(|target| {
                let mut viewer = Viewer::of(proxy.get(target));
                viewer.take_packets(5);
                viewer
            })
            .collect();
        // Whichever has it, each client of any of them is found by the common name.
        let sessions = proxy.status()["sessions"].clone();
        let sessions = sessions.as_array().expect("a list");
        let live: Vec<_> = sessions.iter().filter(|session| session["state"] == "active").collect();
        assert_eq!(live.len(), 3, "{sessions:#?}");
        let client = client_ids(live[round % 3]).remove(0);
        let path = format!("/proxy/sessions/{ID}/clients/{client}");
        assert_eq!(delete(&proxy, &path, "").status, 204, "round {round}");
        for left in (0..3).rev() {
            let shown = proxy.get(&session_path(ID)).json();
            let created = shown["created_at"].clone();
            assert_eq!(delete(&proxy, &session_path(ID), "").status, 204);
            let status = proxy.wait_status("the one that was shown has stopped", |status| {
                let sessions = status["sessions"].as_array().expect("a list");
                let it = sessions.iter().find(|session| session["created_at"] == created);
                it.is_none_or(|session| session["state"] == "stopped")
            });
            let sessions = status["sessions"].as_array().expect("a list");
            let live = sessions.iter().filter(|session| session["ended_at"].is_null()).count();
            assert!(live <= left, "round {round}: {live} live on");
        }
        viewers.clear();
        assert_eq!(delete(&proxy, &session_path(ID), "").status, 404, "all have stopped");
    }
}

#[test]
fn a_page_under_a_foreign_name_sees_nobody() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.public_url = Some("https://tv.example.org".parse().expect("a URL"));
    });
    let ask = |method: &str, target: &str, host: &str| {
        let mut connection = proxy.connect();
        connection.send(&format!("{method} {target} HTTP/1.1\r\n{host}\r\n"));
        if method == "HEAD" { connection.reply_to_head() } else { connection.reply() }
    };
    let unknown = session_path("x");
    let private =
        ["/", "/proxy/status", "/proxy/sessions", &unknown, "/proxy/engines", "/metrics", "/ace/status"];
    for target in private {
        for host in
            ["Host: evil.example\r\n", "Host: evil.example:8000\r\nOrigin: http://evil.example:8000\r\n"]
        {
            let mut reply = ask("GET", target, host);
            let json = reply.json();
            assert_eq!((reply.status, &json["error"]), (403, &"forbidden".into()), "{target}");
            assert!(json["detail"].as_str().is_some_and(|text| text.contains("public_url")), "{json}");
            assert_eq!(reply.header("Access-Control-Allow-Origin"), None);
            assert_eq!(ask("HEAD", target, host).status, 403, "{target}");
        }
        let absolute = format!("http://evil.example{target}");
        assert_eq!(ask("GET", &absolute, "Host: box\r\n").status, 403, "{absolute}");
        for host in ["Host: box:8000\r\n", "Host: 192.168.1.5\r\n", "Host: tv.example.org\r\n", ""] {
            assert_ne!(ask("GET", target, host).status, 403, "{target} {host}");
        }
    }
    // Players ask under any name, and whoever looks after the proxy.
    let stream = stream_path(ID);
    for target in ["/healthz", "/readyz", stream.as_str()] {
        proxy.wait_status("an engine is up", |status| status["engines"][0]["healthy"] == true);
        assert_eq!(ask("GET", target, "Host: evil.example\r\n").status, 200, "{target}");
    }
    assert_eq!(ask("GET", "/nowhere", "Host: evil.example\r\n").status, 404);
}

#[test]
fn a_web_player_may_read_why_there_is_no_picture() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let unknown = stream_path(acerelay::id::Digest::new([0x77; 20]));
    for (method, target, status) in [
        ("GET", unknown.as_str(), 502),
        ("GET", "/ace/getstream?id=x", 400),
        ("HEAD", "/ace/getstream?id=x", 400),
        ("POST", unknown.as_str(), 405),
        ("GET", "/ace/manifest.m3u8?id=x", 400),
    ] {
        let mut connection = proxy.connect();
        connection.send_request(method, target, "Origin: https://player.example\r\n");
        let reply = if method == "HEAD" { connection.reply_to_head() } else { connection.reply() };
        assert_eq!(reply.status, status, "{method} {target}");
        let allowed = reply.headers.iter().filter(|(name, _)| name == "Access-Control-Allow-Origin");
        assert_eq!(allowed.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["*"], "{method} {target}");
    }
    assert_eq!(proxy.get("/proxy/status").header("Access-Control-Allow-Origin"), None);
}
