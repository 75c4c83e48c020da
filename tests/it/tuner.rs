//! The HDHomeRun that programs without playlists take us for.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use acerelay::config::{Channel, Config};
use acerelay::id::{ContentKey, Digest};
use acerelay::sim::{Getstream, Script};
use acerelay::threads::Threads;
use acerelay::tuner::device::Device;
use acerelay::tuner::discover;
use serde_json::{Value, json};

use crate::harness::{ID, LONG, OTHER_ID, Proxy, Reply, STACK_BYTES, engine, scripted};

/// The question of a client that looks for any device (playlist-facts.md section 3.3).
const QUESTION: &str = "0002000c0104ffffffff0204ffffffff73cc7d8f";

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hex")).collect()
}

/// The body of an answer in a device's own type of JSON.
fn of_device(reply: &mut Reply) -> Value {
    assert_eq!(reply.header("Content-Type"), Some("application/json; charset=\"utf-8\""));
    serde_json::from_str(&reply.text()).expect("JSON")
}

fn on(config: &mut Config) {
    config.tuner.enabled = true;
    config.tuner.device_id = Some("1ACE1234".parse().expect("an id"));
}

#[test]
fn there_is_no_tuner_unless_it_is_switched_on() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for path in [
        "/discover.json",
        "/lineup.json",
        "/lineup.xml",
        "/lineup.m3u",
        "/lineup_status.json",
        "/device.xml",
        "/capability",
        "/auto/v1",
    ] {
        let reply = proxy.get(path);
        assert_eq!((reply.status, reply.header("X-HDHomeRun-Error")), (404, None), "{path}");
    }
    let mut connection = proxy.connect();
    connection.send_request("POST", "/lineup.post?scan=start", "Content-Length: 0\r\n");
    assert_eq!(connection.reply().status, 404);
}

#[test]
fn a_tuner_says_who_it_is_under_the_name_it_was_asked_by() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], on);
    let base = format!("http://{}", proxy.address);
    let mut reply = proxy.get("/discover.json");
    assert_eq!(
        (reply.status, reply.header("Content-Type")),
        (200, Some("application/json; charset=\"utf-8\""))
    );
    assert_eq!(
        of_device(&mut reply),
        json!({
            "FriendlyName": "acerelay", "ModelNumber": "HDHR5-4US", "FirmwareName": "hdhomerun5_atsc",
            "FirmwareVersion": "20250815", "DeviceID": "1ACE1234", "DeviceAuth": "acerelay", "BaseURL": base,
            "LineupURL": format!("{base}/lineup.json"), "TunerCount": 10,
        })
    );
    let status = json!({"ScanInProgress": 0, "ScanPossible": 1, "Source": "Cable", "SourceList": ["Cable"]});
    assert_eq!(of_device(&mut proxy.get("/lineup_status.json")), status);
    for path in ["/device.xml", "/capability"] {
        let mut reply = proxy.get(path);
        assert_eq!(reply.header("Content-Type"), Some("application/xml; charset=\"utf-8\""));
        let text = reply.text();
        assert!(text.contains("<UDN>uuid:1ace1234-ace0-5ace-8ace-00001ace1234</UDN>"), "{text}");
        assert!(text.contains(&format!("<URLBase>{base}</URLBase>")), "{text}");
    }
}

#[test]
fn a_scan_is_asked_for_by_post_alone() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], on);
    let mut connection = proxy.connect();
    connection.send_request("POST", "/lineup.post?scan=start&source=Cable", "Content-Length: 0\r\n");
    let mut reply = connection.reply();
    assert_eq!((reply.status, of_device(&mut reply)), (200, json!({})));
    let reply = proxy.get("/lineup.post?scan=start");
    assert_eq!((reply.status, reply.header("Allow")), (405, Some("POST, OPTIONS")));
    let mut connection = proxy.connect();
    connection.send_request("POST", "/discover.json", "Content-Length: 0\r\n");
    let reply = connection.reply();
    assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn a_number_that_no_channel_has_is_told_in_the_words_of_a_device() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], on);
    for path in ["/auto/v9999", "/auto/v0", "/auto/vx", "/tuner0/v9999?transcode=none"] {
        let mut reply = proxy.get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.header("X-HDHomeRun-Error"), Some("801 Unknown Channel"), "{path}");
        assert_eq!(reply.json()["error"], "not_found", "{path}");
    }
}

/// A channel of the configuration with this content.
fn channel(name: &str, number: u32, id: Digest) -> Channel {
    let id = ContentKey::from_query(None, [("id", &*id.to_string())]).expect("an id");
    Channel { name: name.into(), number: Some(number), ids: vec![id], ..Channel::default() }
}

/// The lineup, as soon as there is one.
fn lineup(proxy: &Proxy) -> Value {
    let deadline = Instant::now() + LONG;
    loop {
        let listed = of_device(&mut proxy.get("/lineup.json"));
        if listed != json!([]) {
            return listed;
        }
        assert!(Instant::now() < deadline, "the channels of the configuration are there at once");
    }
}

#[test]
fn the_channels_are_listed_and_play_by_their_numbers() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| {
        on(config);
        config.channels = vec![channel("Canal Faro HD", 101, ID), channel("Cine, \"Rojo\"", 7, OTHER_ID)];
    });
    let base = format!("http://{}", proxy.address);
    assert_eq!(
        lineup(&proxy),
        json!([
            {"GuideNumber": "7", "GuideName": "Cine, \"Rojo\"", "URL": format!("{base}/auto/v7")},
            {"GuideNumber": "101", "GuideName": "Canal Faro HD", "HD": 1, "URL": format!("{base}/auto/v101")},
        ])
    );
    assert!(proxy.get("/lineup.m3u").text().contains(&format!("{base}/auto/v101")));
    assert!(proxy.get("/lineup.xml").text().contains("<GuideNumber>101</GuideNumber>"));

    // As Plex and Emby ask.
    let mut connection = proxy.connect();
    let lines = "Range: bytes=0-\r\nIcy-MetaData: 1\r\n";
    connection.send_request("GET", "/auto/v101?transcode=none", lines);
    let mut reply = connection.reply();
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("video/mp2t")));
    assert_eq!(reply.read().expect("packets")[0], 0x47);
    // The same content under its id is the same engine session.
    assert_eq!(proxy.get(&format!("/ace/getstream?id={ID}")).status, 200);
    assert_eq!(engine.counts().sessions_opened, 1);
    let mut connection = proxy.connect();
    connection.send_request("HEAD", "/auto/v7", "");
    assert_eq!(connection.reply_to_head().status, 200);
    assert_eq!(engine.counts().sessions_opened, 1, "HEAD starts nothing");
}

#[test]
fn a_channel_that_does_not_start_is_refused_in_the_words_of_a_device() {
    let refusal = Getstream::Error("failed to load content".to_owned());
    let engine = scripted(Script::new().getstream(refusal));
    let proxy = Proxy::start_with(&[&engine], |config| {
        on(config);
        config.channels = vec![channel("Canal Faro", 101, ID)];
    });
    lineup(&proxy);
    let mut reply = proxy.get("/auto/v101");
    assert_eq!((reply.status, reply.header("X-HDHomeRun-Error")), (503, Some("806 Tune Failed")));
    assert_eq!(reply.json()["error"], "engine_error");
    let reply = proxy.get(&format!("/ace/getstream?id={ID}"));
    assert_eq!((reply.status, reply.header("X-HDHomeRun-Error")), (502, None));
}

#[test]
fn who_looks_for_a_tuner_finds_it_and_who_asks_nonsense_is_not_answered() {
    let device = Device { id: "1ACE1234".parse().expect("an id"), name: "acerelay".to_owned(), tuners: 4 };
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000));
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = ours.local_addr().expect("an address");
    let (threads, (stop, stopped)) = (Threads::new(), crossbeam_channel::bounded::<()>(0));
    let beats = threads.heartbeats().add("discovery", discover::SILENCE_LIMIT);
    let answer = move || {
        let served = discover::serve(&ours, listen, || Some(device.clone()), &stopped, || beats.beat());
        served.expect("its socket lives");
    };
    threads.spawn("discovery", STACK_BYTES, answer).expect("a thread");

    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    client.set_read_timeout(Some(LONG)).expect("a live socket");
    // In the order in which they are sent: what comes back first is the answer to the last.
    let mut for_another = bytes(QUESTION);
    for_another[13] = 0x10;
    for nonsense in [&b""[..], b"M-SEARCH * HTTP/1.1\r\n\r\n", &[0; 2000], &for_another] {
        client.send_to(nonsense, address).expect("it is sent");
    }
    client.send_to(&bytes(QUESTION), address).expect("it is sent");
    let mut packet = [0; 1500];
    let (length, from) = client.recv_from(&mut packet).expect("an answer");
    assert_eq!(from, address);
    let text = String::from_utf8_lossy(&packet[..length]);
    assert_eq!(
        packet[..16],
        bytes("00030053010400000001")[..].iter().copied().chain(bytes("02041ace1234")).collect::<Vec<_>>()[..]
    );
    assert!(text.contains("http://127.0.0.1:8000/lineup.json"), "{text}");

    drop(stop);
    threads.join_all(Instant::now() + LONG).expect("it ends with the proxy");
}
