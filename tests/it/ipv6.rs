//! Engines, listener and clients over IPv6, and over both at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use acerelay::sim::SimEngine;

use super::harness::{
    Connection, ID, INFOHASH, Proxy, Viewer, assert_all_stopped, assert_whole, broadcast, command, engine,
    stream_path,
};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// Whether this machine has none, which is said aloud.
fn is_without_ipv6() -> bool {
    let outcome = TcpListener::bind(LOOPBACK);
    if let Err(error) = &outcome {
        eprintln!("!! SKIPPED: there is no ::1 here ({error}), so IPv6 was NOT tried !!");
    }
    outcome.is_err()
}

fn engine_on_ipv6() -> SimEngine {
    let engine = SimEngine::start(LOOPBACK).expect("a free port and a thread");
    engine.add(broadcast(ID, INFOHASH));
    engine
}

#[test]
fn a_stream_goes_over_ipv6_from_engine_to_player() {
    if is_without_ipv6() {
        return;
    }
    let engine = engine_on_ipv6();
    let proxy = Proxy::start_with(&[&engine], |config| config.server.listen = LOOPBACK);
    assert!(proxy.address.is_ipv6() && engine.addr().is_ipv6());
    let mut viewers = [(); 2].map(|()| Viewer::open(proxy.address, ID));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(500));
    let session = proxy.session(ID);
    let clients = session["clients"].as_array().expect("a list");
    assert_eq!(clients.len(), 2, "{session:#}");
    for client in clients {
        let address: SocketAddr = client["address"].as_str().and_then(|text| text.parse().ok()).expect("one");
        assert_eq!(address.ip(), Ipv6Addr::LOCALHOST, "{session:#}");
    }
    let engines = proxy.get("/proxy/engines").json();
    assert_eq!(engines["engines"][0]["healthy"], true, "{engines:#}");
    for viewer in viewers {
        assert_whole(&viewer.leave());
    }
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
    assert!(engine.requests().iter().all(|request| {
        request.header("Host") == Some(format!("[::1]:{}", engine.addr().port()).as_str())
    }));
}

#[test]
fn who_asks_by_an_ipv6_address_is_known_and_may_delete() {
    if is_without_ipv6() {
        return;
    }
    let engine = engine_on_ipv6();
    let proxy = Proxy::start_with(&[&engine], |config| config.server.listen = LOOPBACK);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(10);
    for (host, status) in
        [("[::1]", 200), ("[::1]:8000", 200), ("[fd00::1]:8000", 200), ("evil.example", 403)]
    {
        let mut connection = proxy.connect();
        connection.send(&format!("GET /proxy/status HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(connection.reply().status, status, "{host}");
    }
    let mut connection = proxy.connect();
    connection.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
    assert_eq!(connection.reply().status, 204);
    viewer.take_to_end();
    assert_all_stopped(&engine, 1);
}

#[test]
fn one_port_serves_both_and_one_house_may_have_both_kinds_of_engines() {
    if is_without_ipv6() {
        return;
    }
    let (old, new) = (engine(), engine_on_ipv6());
    let proxy = Proxy::start_with(&[&new, &old], |config| {
        config.server.listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    });
    let port = proxy.address.port();
    let of = |ip: IpAddr| SocketAddr::new(ip, port);
    let mut viewers = [of(Ipv4Addr::LOCALHOST.into()), of(Ipv6Addr::LOCALHOST.into())].map(|address| {
        let mut viewer = Viewer::of(Connection::open(address).get(&stream_path(ID)));
        viewer.take_packets(100);
        viewer
    });
    let status = Connection::open(of(Ipv4Addr::LOCALHOST.into())).get("/proxy/status").json();
    let session = &status["sessions"][0];
    let clients = session["clients"].as_array().expect("a list").iter();
    let mut ips: Vec<_> = clients
        .map(|client| client["address"].as_str().and_then(|text| text.parse().ok()).expect("an address"))
        .map(|address: SocketAddr| address.ip().to_string())
        .collect();
    ips.sort();
    assert_eq!(ips, ["127.0.0.1", "::1"], "one stream, and each as it is: {session:#}");
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(100));
    for viewer in viewers {
        assert_whole(&viewer.leave());
    }
    let asked = |engine: &SimEngine| engine.counts().getstreams;
    assert_eq!(asked(&old) + asked(&new), 1);
}

#[test]
fn the_limit_per_address_holds_for_a_network_of_ipv6() {
    if is_without_ipv6() {
        return;
    }
    let engine = engine_on_ipv6();
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.listen = LOOPBACK;
        config.server.max_clients_per_address = NonZeroUsize::new(1);
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(1);
    assert_eq!(proxy.get(&stream_path(ID)).status, 503);
    drop(viewer);
    proxy.wait_clients(ID, 0);
}

#[test]
fn health_is_asked_for_over_ipv6() {
    if is_without_ipv6() {
        return;
    }
    let engine = engine_on_ipv6();
    let proxy = Proxy::start_with(&[&engine], |config| config.server.listen = LOOPBACK);
    let url = format!("http://{}/healthz", proxy.address);
    for arguments in [&["--health", &url][..], &["--health", "--listen", &proxy.address.to_string()]] {
        let output = command(arguments).output().expect("the program");
        assert!(output.status.success(), "{output:?}");
    }
}
