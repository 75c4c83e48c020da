//! The guide of the house's channels.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use acerelay::config::{Channel, Config};
use acerelay::id::ContentKey;
use acerelay::threads::Threads;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::harness::{Connection, ID, LONG, Proxy, Reply, STACK_BYTES, engine};

/// A server that answers every question with what it has now: status line and further headers, and a body.
struct GuideServer {
    address: SocketAddr,
    answer: Arc<Mutex<(String, Vec<u8>)>>,
    questions: Arc<Mutex<Vec<String>>>,
    threads: Threads,
}

impl GuideServer {
    fn start(body: &[u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let answer = Arc::new(Mutex::new(("200 OK\r\nETag: \"one\"".to_owned(), body.to_vec())));
        let questions = Arc::new(Mutex::new(Vec::new()));
        let (threads, given, asked) = (Threads::new(), Arc::clone(&answer), Arc::clone(&questions));
        let serve = move || {
            while let Ok((mut socket, _)) = listener.accept() {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.extend(byte);
                }
                if head.is_empty() {
                    return;
                }
                asked.lock().push(String::from_utf8_lossy(&head).into_owned());
                let (status, body) = given.lock().clone();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _gone = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&body));
            }
        };
        threads.spawn("guide-server", STACK_BYTES, serve).expect("a thread");
        Self { address, answer, questions, threads }
    }

    fn url(&self) -> String {
        format!("http://{}/guide.xml.gz?token=secret", self.address)
    }
}

impl Drop for GuideServer {
    fn drop(&mut self) {
        // Says nothing: that ends it.
        drop(TcpStream::connect(self.address));
        let ended = self.threads.join_all(Instant::now() + LONG);
        if !std::thread::panicking() {
            ended.expect("the server ends");
        }
    }
}

fn xmltv_time(hours_from_now: i64) -> String {
    let at = OffsetDateTime::from(SystemTime::now()) + time::Duration::hours(hours_from_now);
    let (month, day) = (u8::from(at.month()), at.day());
    format!("{}{month:02}{day:02}{:02}{:02}00 +0000", at.year(), at.hour(), at.minute())
}

fn programme(channel: &str, hours: i64, title: &str) -> String {
    let (start, stop) = (xmltv_time(hours), xmltv_time(hours + 1));
    format!(
        "<programme start=\"{start}\" stop=\"{stop}\" channel=\"{channel}\"><title>{title}</title></programme>\n"
    )
}

fn guide(titles: &[&str]) -> Vec<u8> {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<tv>\n");
    for id in ["faro.XX", "other.xx"] {
        text.push_str(&format!("<channel id=\"{id}\"><display-name>{id}</display-name></channel>\n"));
    }
    for title in titles {
        text.push_str(&programme("faro.XX", 1, title));
        text.push_str(&programme("other.xx", 1, "not wanted"));
    }
    text.push_str(&programme("faro.XX", -30, "over"));
    text.push_str(&programme("faro.XX", 100, "far off"));
    (text + "</tv>\n").into_bytes()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("room");
    encoder.finish().expect("room")
}

fn with_guides<'a>(urls: &'a [String]) -> impl FnOnce(&mut Config) + 'a {
    move |config| {
        let id = ContentKey::from_query(None, [("id", &*ID.to_string())]).expect("an id");
        config.channels = vec![Channel {
            name: "Canal Faro".into(),
            ids: vec![id],
            tvg_id: "Faro.xx".into(),
            ..Channel::default()
        }];
        config.epg.urls = urls.iter().map(|url| url.parse().expect("a URL")).collect();
    }
}

/// Asks until the guide is so.
fn wait_guide(proxy: &Proxy, what: &str, is_met: impl Fn(u16, &str) -> bool) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        let mut reply = proxy.get("/epg.xml");
        let text = reply.text();
        if is_met(reply.status, &text) {
            return text;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}: {} {text}", reply.status);
        crate::harness::pause(std::time::Duration::from_millis(50));
    }
}

fn ask(mut connection: Connection, lines: &str) -> Reply {
    connection.send_request("GET", "/epg.xml", lines);
    connection.reply()
}

#[test]
fn a_packed_guide_is_served_cut_down_to_the_channels_and_the_days() {
    let (engine, server) = (engine(), GuideServer::start(&packed(&guide(&["A &amp; B", "C"]))));
    let urls = [server.url()];
    let proxy = Proxy::start_with(&[&engine], with_guides(&urls));
    let text =
        wait_guide(&proxy, "there is a guide", |status, text| status == 200 && text.contains("<programme"));
    assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"), "{text}");
    assert!(
        text.contains("<channel id=\"Faro.xx\"><display-name>faro.XX</display-name></channel>"),
        "{text}"
    );
    assert!(text.contains("channel=\"Faro.xx\"><title>A &amp; B</title></programme>"), "{text}");
    assert_eq!((text.matches("<programme").count(), text.matches("other").count()), (2, 0), "{text}");

    let reply = ask(proxy.connect(), "");
    let tag = reply.header("ETag").expect("a tag").to_owned();
    assert_eq!(reply.header("Content-Type"), Some("application/xml; charset=utf-8"));
    assert_eq!((reply.header("Content-Encoding"), reply.header("Vary")), (None, Some("Accept-Encoding")));
    assert_eq!(ask(proxy.connect(), &format!("If-None-Match: {tag}\r\n")).status, 304);

    let mut reply = ask(proxy.connect(), "Accept-Encoding: deflate, gzip\r\n");
    assert_eq!(reply.header("Content-Encoding"), Some("gzip"));
    let packed_tag = reply.header("ETag").expect("a tag").to_owned();
    assert_ne!(packed_tag, tag);
    let mut unpacked = String::new();
    GzDecoder::new(&reply.bytes().0[..]).read_to_string(&mut unpacked).expect("gzip");
    assert_eq!(unpacked, text);
    let lines = format!("Accept-Encoding: gzip\r\nIf-None-Match: W/{packed_tag}\r\n");
    assert_eq!(ask(proxy.connect(), &lines).status, 304);

    let mut connection = proxy.connect();
    connection.send_request("HEAD", "/epg.xml", "");
    let reply = connection.reply_to_head();
    assert_eq!(reply.header("Content-Length"), Some(&*text.len().to_string()));
}

#[test]
fn who_asks_before_there_is_a_guide_is_told_why() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get("/epg.xml");
    assert_eq!((reply.status, reply.json()["error"].as_str()), (404, Some("not_found")));

    let server = GuideServer::start(b"<html>no</html>");
    let urls = [server.url()];
    let proxy = Proxy::start_with(&[&engine], with_guides(&urls));
    wait_guide(&proxy, "one is awaited", |status, text| status == 503 && text.contains("no_guide"));
}

#[test]
fn a_guide_that_breaks_costs_nobody_else_and_what_was_before_is_taken() {
    let engine = engine();
    let mut broken = guide(&["Whole"]);
    broken.truncate(broken.len() - 200);
    broken.extend(b"<title>".repeat(200));
    let (bad, gone) = (GuideServer::start(&broken), GuideServer::start(b""));
    *gone.answer.lock() = ("404 Not Found".to_owned(), Vec::new());
    let urls = [gone.url(), bad.url()];
    let proxy = Proxy::start_with(&[&engine], with_guides(&urls));
    wait_guide(&proxy, "the rest is served", |status, text| status == 200 && text.contains("Whole"));
}

#[test]
fn the_last_good_guide_outlives_a_bad_one_and_the_process() {
    let engine = engine();
    let state = crate::harness::directory().join(format!("guide-{}", std::process::id()));
    let server = GuideServer::start(&guide(&["First"]));
    let urls = [server.url()];
    let settings = |config: &mut Config| {
        with_guides(&urls)(config);
        config.state_dir = Some(state.clone());
    };
    let proxy = Proxy::start_with(&[&engine], settings);
    wait_guide(&proxy, "there is a guide", |status, text| status == 200 && text.contains("First"));

    // Asked anew by a reload, the server gives half a guide.
    let mut half = guide(&["Second"]);
    half.truncate(half.len() / 2);
    *server.answer.lock() = ("200 OK".to_owned(), half);
    let asked = server.questions.lock().len();
    let reloaded = |change: &dyn Fn(&mut Config)| {
        let mut config = crate::harness::settings(&[&engine]);
        settings(&mut config);
        config.server.listen = proxy.address;
        change(&mut config);
        proxy.app().reload(config);
    };
    reloaded(&|config| config.epg.days = 4);
    let deadline = Instant::now() + LONG;
    while server.questions.lock().len() == asked {
        assert!(Instant::now() < deadline, "it is asked anew");
        crate::harness::pause(std::time::Duration::from_millis(20));
    }
    // It asks for one guide after the other: once it asks again, it has dealt with the half of one.
    reloaded(&|config| config.epg.days = 5);
    while server.questions.lock().len() == asked + 1 {
        assert!(Instant::now() < deadline, "it is asked once more");
        crate::harness::pause(std::time::Duration::from_millis(20));
    }
    assert!(wait_guide(&proxy, "it is there", |status, _| status == 200).contains("First"));
    *server.answer.lock() = ("200 OK\r\nETag: \"three\"".to_owned(), guide(&["Third"]));
    reloaded(&|config| config.epg.days = 6);
    wait_guide(&proxy, "the new one is there", |status, text| status == 200 && text.contains("Third"));
    drop(proxy);

    *server.answer.lock() = ("500 Internal Server Error".to_owned(), Vec::new());
    let proxy = Proxy::start_with(&[&engine], settings);
    wait_guide(&proxy, "the last good one is there", |status, text| status == 200 && text.contains("Third"));
    drop(proxy);
    std::fs::remove_dir_all(&state).expect("it is ours");
}

#[test]
fn the_playlist_names_the_guide_and_both_call_a_channel_the_same() {
    let engine = engine();
    let mut body =
        String::from("<tv><channel id=\"Faro, &quot;one&quot;\"><display-name>x</display-name></channel>");
    body.push_str(&programme("Faro, &quot;one&quot;", 1, "On air"));
    let server = GuideServer::start((body + "</tv>").as_bytes());
    let urls = [server.url()];
    let proxy = Proxy::start_with(&[&engine], |config| {
        with_guides(&urls)(config);
        config.channels[0].tvg_id = "Faro, \"one\"".into();
    });
    // Also before it has come.
    let playlist = proxy.get("/playlist.m3u").text();
    assert!(playlist.contains(&format!("url-tvg=\"http://{}/epg.xml\"", proxy.address)), "{playlist}");
    let written = playlist.split("tvg-id=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
    let guide = wait_guide(&proxy, "it is there", |status, text| status == 200 && text.contains("On air"));
    assert!(guide.contains(&format!("<channel id=\"{written}\"")), "{written}: {guide}");
    assert!(guide.contains(&format!(" channel=\"{written}\"")), "{written}: {guide}");
}
