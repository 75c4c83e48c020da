//! What players and their libraries do that is odd but right, and how soon it is noticed that they left.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use acerelay::sim::{Entry, Playback, Script};

use super::harness::{
    Connection, End, ID, OTHER_ID, Proxy, SLACK, Viewer, assert_whole, engine, scripted, stream_path,
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
    let engine = scripted(Script::new().playback(Playback::entry(Entry::Never)));
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
        for leave in [drop::<TcpStream> as fn(TcpStream), |socket| {
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a live socket");
        }] {
            let socket = ask(lines);
            waiting(2);
            let began = Instant::now();
            leave(socket);
            waiting(1);
            assert!(began.elapsed() < Duration::from_secs(1) + SLACK, "{lines}: {:?}", began.elapsed());
        }
        // One that closes its half alone cannot be told from one that left, and is let go.
        let mut socket = ask(lines);
        waiting(2);
        socket.shutdown(Shutdown::Write).expect("a live socket");
        waiting(1);
        assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0, "{lines}");
    }
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
    let address: std::net::SocketAddr = "127.0.0.2:0".parse().expect("an address");
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
