//! The stream as HLS: lists, segments, and viewers without a connection.

mod lists;
mod poller;
mod stage;
mod viewers;

use std::net::SocketAddr;
use std::time::Duration;

use acerelay::id::Digest;
use acerelay::sim::{Burst, Content, Delivery};

use super::harness::{Connection, ID, INFOHASH, Proxy, Reply, broadcast};

/// A broadcast that begins with so many seconds at once, like an engine's.
fn with_burst(seconds: u64) -> Content {
    let burst = Burst::Time(Duration::from_secs(seconds));
    broadcast(ID, INFOHASH).delivery(Delivery { burst, ..Delivery::default() })
}

/// The path of a first list.
fn manifest_path(id: Digest) -> String {
    format!("/ace/manifest.m3u8?id={id}")
}

/// The only URI in a first list, as a path.
fn uri_in(text: &str) -> String {
    let mut uris = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let uri = uris.next().expect("a URI").to_owned();
    assert_eq!(uris.next(), None, "one alone: {text}");
    uri.strip_prefix("..").expect("it is relative to the directory above").to_owned()
}

/// A player by HLS.
struct Player {
    proxy: SocketAddr,
    /// The path of its own list.
    list: String,
}

impl Player {
    /// Asks for the first list.
    fn open(proxy: &Proxy) -> Self {
        Self::open_at(proxy, &manifest_path(ID), "")
    }

    fn open_at(proxy: &Proxy, path: &str, lines: &str) -> Self {
        let mut connection = proxy.connect();
        connection.send_request("GET", path, lines);
        let mut reply = connection.reply();
        assert_eq!(
            (reply.status, reply.header("Content-Type")),
            (200, Some("application/vnd.apple.mpegurl"))
        );
        Self { proxy: proxy.address, list: uri_in(&reply.text()) }
    }

    fn get(&self, path: &str) -> Reply {
        Connection::open(self.proxy).get(path)
    }

    /// Its own list.
    fn list(&self) -> String {
        let mut reply = self.get(&self.list);
        let status = reply.status;
        assert_eq!(status, 200, "{}: {}", self.list, reply.text());
        assert_eq!(reply.header("Content-Type"), Some("application/vnd.apple.mpegurl"));
        assert_eq!(reply.header("Cache-Control"), Some("no-store"));
        reply.text()
    }

    /// The path of what its list names.
    fn path_of(&self, uri: &str) -> String {
        let directory = self.list.rsplit_once('/').expect("an absolute path").0;
        format!("{directory}/{uri}")
    }

    /// The segments that are listed now: URI and seconds.
    fn segments(&self) -> Vec<(String, f64)> {
        segments_in(&self.list())
    }

    /// Waits until so many segments are listed.
    fn wait_segments(&self, count: usize) -> Vec<(String, f64)> {
        let deadline = std::time::Instant::now() + super::harness::LONG;
        loop {
            let segments = self.segments();
            if segments.len() >= count {
                return segments;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "waited in vain for {count} segments: {segments:?}"
            );
            super::harness::pause(Duration::from_millis(100));
        }
    }

    /// A segment's bytes.
    fn segment(&self, uri: &str) -> Vec<u8> {
        let mut reply = self.get(&self.path_of(uri));
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("video/mp2t")));
        let length: usize =
            reply.header("Content-Length").and_then(|text| text.parse().ok()).expect("a length");
        let (bytes, end) = reply.bytes();
        assert_eq!((bytes.len(), end), (length, super::harness::End::Complete));
        bytes
    }
}

fn segments_in(list: &str) -> Vec<(String, f64)> {
    let mut segments = Vec::new();
    let mut seconds = None;
    for line in list.lines() {
        if let Some(text) = line.strip_prefix("#EXTINF:") {
            seconds = Some(text.trim_end_matches(',').parse().expect("seconds"));
        } else if !line.starts_with('#') {
            segments.push((line.to_owned(), seconds.take().expect("a length before each URI")));
        }
    }
    segments
}
