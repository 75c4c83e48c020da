//! What players and their libraries do that is odd but right, and how soon it is noticed that they left.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use acerelay::sim::{Content, Entry, Getstream, Media, Numbered, Order, PlaybackStep, Script};

use super::harness::{
    Connection, End, ID, INFOHASH, OTHER_ID, Proxy, SLACK, Viewer, assert_whole, engine, engine_with, pause,
    reset, scripted, stream_path, whole,
};

#[test]
fn a_get_that_expects_to_be_told_to_continue_is_just_answered() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for target in ["/healthz", &stream_path(ID)] {
        let mut connection = proxy.connect();
        connection.send_request("GET", target, "Expect: 100-continue\r\n");
        assert_eq!(connection.reply().status, 200, "{target}");
    }
}

#[test]
fn a_target_may_be_a_whole_url() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    for base in ["http://", "HTTP://"] {
        let mut reply = connection.get(&format!("{base}{}/proxy/status", proxy.address));
        assert!(reply.json()["running"].is_boolean());
        connection = reply.into_connection();
    }
    let mut viewer = Viewer::of(connection.get(&format!("http://box.lan:8000{}", stream_path(ID))));
    viewer.take_packets(20);
    assert_whole(&viewer.leave());
}

#[test]
fn http_1_0_gets_a_raw_stream_and_its_end_even_if_it_wants_to_go_on() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for lines in ["", "Connection: keep-alive\r\n", "Connection: close\r\n"] {
        let mut connection = proxy.connect();
        connection.send(&format!("GET {} HTTP/1.0\r\n{lines}\r\n", stream_path(ID)));
        let reply = connection.reply();
        assert_eq!((reply.version.as_str(), reply.header("Transfer-Encoding")), ("HTTP/1.0", None));
        assert_eq!(reply.header("Connection"), Some("close"), "{lines}");
        let mut viewer = Viewer::of(reply);
        viewer.take_packets(20);
        let mut connection = proxy.connect();
        connection.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
        assert_eq!(connection.reply().status, 204);
        let (report, end) = viewer.finish();
        assert_whole(&report);
        assert_eq!(end, End::Closed);

        let mut connection = proxy.connect();
        connection.send(&format!("HEAD {} HTTP/1.0\r\n{lines}\r\n", stream_path(ID)));
        let reply = connection.reply_to_head();
        assert_eq!((reply.status, reply.header("Connection")), (200, Some("close")));
        assert_eq!(reply.into_connection().read_to_end(), "", "{lines}");
    }
    // Without a stream the connection does go on.
    let mut connection = proxy.connect();
    for _ in 0..3 {
        connection.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let mut reply = connection.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok\n"));
        connection = reply.into_connection();
    }
}

#[test]
fn whoever_leaves_while_waiting_gives_its_seat_back_within_a_second() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let proxy = Proxy::start(&[&engine]);
    let _stays = proxy.ask(ID);
    let waiting = |count: u64| {
        proxy.wait_session(ID, "so many wait", |session| session["waiting_count"] == count);
    };
    waiting(1);
    let ask = |lines: &str| {
        let mut socket = TcpStream::connect(proxy.address).expect("it listens");
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n{lines}\r\n", stream_path(ID));
        std::io::Write::write_all(&mut socket, request.as_bytes()).expect("it reads");
        socket
    };
    for lines in ["", "Connection: close\r\n", "Connection: keep-alive\r\n"] {
        for leave in [drop::<TcpStream>, reset] {
            let socket = ask(lines);
            waiting(2);
            let began = Instant::now();
            leave(socket);
            waiting(1);
            assert!(began.elapsed() < Duration::from_secs(1) + SLACK, "{lines}: {:?}", began.elapsed());
        }
        // One that closes its half alone still waits, and leaves later like any other.
        for leave in [drop::<TcpStream>, reset] {
            let socket = ask(lines);
            waiting(2);
            socket.shutdown(Shutdown::Write).expect("a live socket");
            pause(Duration::from_millis(1200));
            waiting(2);
            let began = Instant::now();
            leave(socket);
            // Its next sign of life is due after a second.
            waiting(1);
            assert!(began.elapsed() < Duration::from_secs(3) + SLACK, "{lines}: {:?}", began.elapsed());
        }
    }
}

/// Asks, and says that this was all.
fn ask_and_close_half(proxy: &Proxy, request: &str) -> Connection {
    let socket = TcpStream::connect(proxy.address).expect("it listens");
    let mut connection = Connection::of(socket.try_clone().expect("a descriptor"), proxy.address);
    connection.send(request);
    socket.shutdown(Shutdown::Write).expect("a live socket");
    connection
}

#[test]
fn a_client_that_closes_its_half_plays_as_the_first_and_as_a_later_one() {
    for slow in [Duration::ZERO, Duration::from_millis(2500)] {
        let engine = scripted(Script::new().getstream(Getstream::Slow(slow)));
        let proxy = Proxy::start(&[&engine]);
        for (version, lines) in [
            ("1.1", ""),
            ("1.1", "Connection: close\r\n"),
            ("1.0", ""),
            ("1.0", "Connection: keep-alive\r\n"),
        ] {
            let request = format!("GET {} HTTP/{version}\r\nHost: x\r\n{lines}\r\n", stream_path(ID));
            let mut first = Viewer::of(ask_and_close_half(&proxy, &request).reply());
            let mut later = Viewer::of(ask_and_close_half(&proxy, &request).reply());
            for viewer in [&mut first, &mut later] {
                assert_eq!(viewer.reply.version, format!("HTTP/{version}"));
                viewer.take_packets(50);
            }
            // The source falls silent for a while, and goes on: they are still there.
            assert_eq!(engine.order(ID, Order::Stall), 1);
            pause(Duration::from_millis(1700));
            assert_eq!(engine.order(ID, Order::Resume), 1);
            for mut viewer in [first, later] {
                viewer.take_packets(1000);
                assert_whole(&viewer.leave());
            }
            proxy.wait_gone(ID);
        }
    }
    // And whoever gets no picture is told why, in one piece.
    for version in ["1.1", "1.0"] {
        let engine = scripted(Script::new().getstream(Getstream::Slow(Duration::from_secs(3))));
        let proxy =
            Proxy::start_with(&[&engine], |config| config.stream.connect_timeout = Duration::from_secs(2));
        let request = format!("GET {} HTTP/{version}\r\nHost: x\r\n\r\n", stream_path(ID));
        let mut reply = ask_and_close_half(&proxy, &request).reply();
        assert_eq!((reply.status, &reply.json()["error"]), (504, &"start_timeout".into()), "{version}");
    }
}

#[test]
fn a_client_with_half_a_connection_that_leaves_a_silent_stream_is_noticed() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream_path(ID));
    let mut viewer = Viewer::of(ask_and_close_half(&proxy, &request).reply());
    viewer.take_packets(50);
    assert_eq!(engine.order(ID, Order::Stall), 1);
    let began = Instant::now();
    drop(viewer);
    proxy.wait_clients(ID, 0);
    assert!(began.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", began.elapsed());
}

#[test]
fn an_empty_chunked_body_that_a_proxy_adds_does_no_harm() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let head = |method: &str, target: &str, lines: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut connection = proxy.connect();
    connection.send(&(head("GET", "/healthz", chunked) + "0\r\n\r\n"));
    let mut reply = connection.reply();
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.header("Connection")),
        (200, "ok\n", Some("close"))
    );
    assert_eq!(reply.into_connection().read_to_end(), "", "it is closed");
    // The end of the body in a packet of its own, and something behind it that is not answered.
    let mut connection = proxy.connect();
    connection.send(&head("GET", "/healthz", "transfer-encoding: Chunked\r\n"));
    pause(Duration::from_millis(50));
    connection.send("0\r\n");
    connection.send("\r\n");
    connection.send(&head("GET", "/proxy/status", ""));
    assert!(!connection.read_to_end().contains("uptime_s"), "it was the last");
    let mut connection = proxy.connect();
    connection.send(&(head("HEAD", &stream_path(ID), chunked) + "0\r\n\r\n"));
    let reply = connection.reply_to_head();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.into_connection().read_to_end(), "", "it is closed");
    let mut connection = proxy.connect();
    connection.send(&(head("GET", &stream_path(ID), chunked) + "0\r\n\r\n"));
    let mut viewer = Viewer::of(connection.reply());
    viewer.take_packets(100);
    let mut stop = proxy.connect();
    stop.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
    assert_eq!(stop.reply().status, 204);
    assert_eq!(viewer.take_to_end(), End::Complete);
    assert_whole(viewer.report());
    assert_eq!(viewer.reply.into_connection().read_to_end(), "", "it is closed");
    // What is none, or none of theirs, is refused, and the sentence names who may be to blame.
    for (method, lines, body) in [
        ("GET", chunked, "1\r\nx\r\n0\r\n\r\n"),
        ("GET", chunked, "x"),
        ("GET", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("GET", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("GET", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "0\r\n\r\n"),
        ("DELETE", chunked, "0\r\n\r\n"),
        ("POST", chunked, "0\r\n\r\n"),
    ] {
        let mut connection = proxy.connect();
        connection.send(&(head(method, "/healthz", lines) + body));
        let mut reply = connection.reply();
        let json = reply.json();
        assert_eq!((reply.status, &json["error"]), (400, &"bad_request".into()), "{lines}{body}");
        assert!(json["detail"].as_str().is_some_and(|detail| detail.contains("a proxy in front")), "{json}");
        assert_eq!(reply.into_connection().read_to_end(), "");
    }
    // Both lengths at once is what a request is smuggled with.
    let mut connection = proxy.connect();
    connection.send(
        &(head("GET", "/healthz", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
    );
    assert_eq!(connection.reply().status, 400);
}

#[test]
fn an_address_has_as_many_clients_as_it_may() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.max_clients_per_address = NonZeroUsize::new(2);
    });
    let [first, mut second] = [ID, OTHER_ID].map(|id| Viewer::open(proxy.address, id));
    let mut reply = proxy.get(&stream_path(ID));
    let json = reply.json();
    assert_eq!((reply.status, &json["error"]), (503, &"at_capacity".into()));
    assert!(
        json["detail"].as_str().is_some_and(|detail| detail.contains("max_clients_per_address")),
        "{json}"
    );
    // Another address has its own.
    let elsewhere =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let address: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    elsewhere.bind(&address.into()).expect("all of 127/8 is ours");
    elsewhere.connect(&proxy.address.into()).expect("it listens");
    let mut third = Viewer::of(Connection::of(elsewhere.into(), proxy.address).get(&stream_path(ID)));
    third.take_packets(20);
    drop(first);
    proxy.wait_status("there is room", |status| status["total_clients"] == 2);
    let mut next = Viewer::open(proxy.address, ID);
    next.take_packets(20);
    second.take_packets(100);
    assert_whole(&second.leave());
}

#[test]
fn whatever_a_player_says_beside_what_it_asks_for_it_gets_the_same_stream() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for lines in [
        // No User-Agent, and the least that HTTP/1.1 asks for.
        "Host: x\r\n",
        // Less than that.
        "",
        "Host: x\r\nRange: bytes=0-\r\n",
        "Host: x\r\nRange: bytes=1000-1999\r\nIf-Range: \"x\"\r\n",
        "Host: x\r\nIcy-MetaData: 1\r\nUser-Agent: VLC/3.0.18 LibVLC/3.0.18\r\n",
        "Host: x\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*;q=0.1\r\nTE: trailers\r\n",
        "Host: x\r\nGetContentFeatures.DLNA.ORG: 1\r\nTransferMode.DLNA.ORG: Streaming\r\n",
        "Host: x\r\nConnection: Keep-Alive\r\nKeep-Alive: 300\r\n",
        // curl, when it may: it is content with HTTP/1.1.
        "Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAA\r\n",
        // A web player on another site's page.
        "Host: box.lan\r\nOrigin: https://player.example\r\nReferer: https://player.example/tv\r\nSec-Fetch-Mode: cors\r\n",
        "Host: evil.example\r\nUser-Agent: <script>alert(1)</script>\r\n",
        "Host: x\r\nIf-None-Match: *\r\nIf-Modified-Since: Sat, 01 Jan 2022 00:00:00 GMT\r\n",
    ] {
        let mut connection = proxy.connect();
        connection.send(&format!("GET {} HTTP/1.1\r\n{lines}\r\n", stream_path(ID)));
        let reply = connection.reply();
        assert_eq!(reply.status, 200, "{lines}");
        assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"), "{lines}");
        for absent in
            ["Content-Range", "Content-Encoding", "Content-Length", "Upgrade", "ETag", "icy-metaint"]
        {
            assert_eq!(reply.header(absent), None, "{lines}");
        }
        let mut viewer = Viewer::of(reply);
        viewer.take_packets(20);
        assert_whole(&viewer.leave());
    }
}

#[test]
fn a_connection_carries_one_thing_after_the_other() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    for id in [ID, OTHER_ID] {
        let mut reply = connection.get("/proxy/status");
        reply.json();
        connection = reply.into_connection();
        connection.send_request("HEAD", &stream_path(id), "");
        connection = connection.reply_to_head().into_connection();
        let mut viewer = Viewer::of(connection.get(&stream_path(id)));
        viewer.take_packets(20);
        let mut remote = proxy.connect();
        remote.send_request("DELETE", &format!("/proxy/sessions/{id}"), "");
        assert_eq!(remote.reply().status, 204);
        assert_eq!(viewer.take_to_end(), End::Complete);
        assert_whole(viewer.report());
        let mut reply = viewer.reply.into_connection().get("/nowhere");
        assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()));
        let mut reply = reply.into_connection().get(&format!("/ace/{id}x.ts"));
        assert_eq!(reply.status, 404);
        reply.text();
        let mut reply = reply.into_connection().get("/ace/getstream?id=x");
        assert_eq!((reply.status, &reply.json()["error"]), (400, &"bad_request".into()));
        connection = reply.into_connection();
    }
    assert_eq!(connection.get("/healthz").status, 200);
}

#[test]
fn a_stream_that_ends_is_ended_as_each_kind_of_client_understands() {
    const PACKETS: u64 = 3000;
    let kinds = [
        ("HTTP/1.1", "Host: x\r\n", End::Complete),
        ("HTTP/1.1", "Host: x\r\nConnection: close\r\n", End::Complete),
        ("HTTP/1.1", "Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", End::Complete),
        ("HTTP/1.0", "", End::Closed),
        ("HTTP/1.0", "Connection: keep-alive\r\n", End::Closed),
    ];
    let media = Media::Numbered(Numbered::at_rate(2_000_000).end_after(PACKETS));
    let engine = engine_with(Content::film(ID, INFOHASH, media).delivery(whole()));
    for (version, lines, expected) in kinds {
        let proxy = Proxy::start(&[&engine]);
        let mut connection = proxy.connect();
        connection.send(&format!("GET {} {version}\r\n{lines}\r\n", stream_path(ID)));
        let reply = connection.reply();
        let is_last = version == "HTTP/1.0" || lines.contains("close") || lines.contains("Upgrade");
        let mut viewer = Viewer::of(reply);
        assert_eq!(viewer.take_to_end(), expected, "{version} {lines}");
        assert_eq!(viewer.report().last, Some(PACKETS - 1), "{version} {lines}");
        assert_whole(viewer.report());
        if expected == End::Complete && is_last {
            assert_eq!(viewer.reply.into_connection().read_to_end(), "", "{lines}");
        } else if expected == End::Complete {
            assert_eq!(viewer.reply.into_connection().get("/healthz").status, 200);
        }
    }
}

#[test]
fn two_players_of_one_make_behind_one_address_are_two_clients() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewers = [(); 2].map(|()| {
        let mut connection = proxy.connect();
        connection.send(&format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nUser-Agent: VLC/3.0.18\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
            stream_path(ID)
        ));
        Viewer::of(connection.reply())
    });
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(20));
    let session = proxy.wait_session(ID, "both watch", |session| session["client_count"] == 2);
    let clients = session["clients"].as_array().expect("a list");
    let agents: Vec<_> = clients.iter().map(|client| &client["user_agent"]).collect();
    assert_eq!(agents, ["VLC/3.0.18"; 2]);
    // Ids rise, so the second has the higher one. It is sent away, and the first does not notice.
    let ids = clients.iter().map(|client| client["client_id"].as_str().expect("an id").parse::<u64>());
    let newest = ids.map(|id| id.expect("a number")).max().expect("two clients");
    let [mut stays, mut goes] = viewers;
    let mut remote = proxy.connect();
    remote.send_request("DELETE", &format!("/proxy/sessions/{ID}/clients/{newest}"), "");
    assert_eq!(remote.reply().status, 204);
    assert_eq!(goes.take_to_end(), End::Complete);
    stays.take_packets(300);
    assert_whole(&stays.leave());
    assert_eq!(engine.counts().getstreams, 1);
}

#[test]
fn an_answer_to_head_never_has_a_body() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for (target, lines, status) in [
        ("/healthz", "", 200),
        ("/proxy/status", "", 200),
        ("/nowhere", "", 404),
        ("/ace/getstream?id=x", "", 400),
        // Refused before anybody has looked at what it asks for.
        ("/healthz\0", "", 400),
        ("/healthz", "Transfer-Encoding: chunked\r\n", 400),
        ("/healthz", "Content-Length: 5\r\nExpect: 100-continue\r\n", 400),
    ] {
        let mut connection = proxy.connect();
        connection.send_request("HEAD", target, &format!("{lines}Connection: close\r\n"));
        let reply = connection.reply_to_head();
        assert_eq!(reply.status, status, "{target:?} {lines}");
        assert!(reply.header("Content-Length").is_some_and(|length| length != "0"), "{target:?} {lines}");
        assert_eq!(reply.into_connection().read_to_end(), "", "{target:?} {lines}");
    }
}

#[test]
fn a_player_that_comes_back_from_the_same_port_is_served() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut stays = Viewer::open(proxy.address, ID);
    stays.take_packets(1);
    let mut port = 0;
    for _ in 0..20 {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        // A reset leaves no connection behind that would keep the port.
        socket.set_linger(Some(Duration::ZERO)).expect("a new socket");
        socket.set_reuse_address(true).expect("a new socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("its own port");
        socket.connect(&proxy.address.into()).expect("it listens");
        let mut connection = Connection::of(socket.into(), proxy.address);
        port = connection.address().port();
        connection.send_get(&stream_path(ID));
        let mut viewer = Viewer::of(connection.reply());
        viewer.take_packets(1);
    }
    stays.take_packets(100);
    assert_whole(&stays.leave());
}

#[test]
fn an_address_of_ipv4_is_shown_as_one_on_a_port_of_ipv6() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.listen = "[::]:0".parse().expect("an address");
    });
    for (ip, shown) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        let ip: std::net::IpAddr = ip.parse().expect("an address");
        let connection = Connection::open(SocketAddr::new(ip, proxy.address.port()));
        let expected = format!("{shown}:{}", connection.address().port());
        let mut viewer = Viewer::of(connection.get(&stream_path(ID)));
        viewer.take_packets(5);
        assert_eq!(proxy.session(ID)["clients"][0]["address"], expected.as_str());
        drop(viewer);
        proxy.wait_gone(ID);
    }
}
