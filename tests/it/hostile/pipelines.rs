//! Requests behind requests, on one connection.

use std::io::{Read, Write};

use super::{ID, OTHER_ID, Victim, read_to_end};
use crate::harness::stream_path;

/// A request of HTTP/1.1.
fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[test]
fn fifty_requests_behind_a_stream_end_it_and_hold_nobody_up() {
    let victim = Victim::start();
    let stream = get(&stream_path(ID));
    for behind in [
        get("/proxy/status").repeat(50),
        stream.repeat(50),
        get(&stream_path(OTHER_ID)),
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n".to_owned(),
    ] {
        // At once, and after the stream has begun.
        let mut socket = victim.say(&format!("{stream}{behind}"));
        victim.assert_answers();
        read_to_end(&mut socket);

        let mut socket = victim.say(&stream);
        socket.read_exact(&mut [0; 20_000]).expect("a stream");
        socket.write_all(behind.as_bytes()).expect("room in the buffer");
        victim.assert_answers();
        read_to_end(&mut socket);
    }
    // Garbage there is nothing to answer to: it ends with the stream at the latest.
    let mut socket = victim.say(&format!("{stream}nonsense\r\n\r\n"));
    socket.read_exact(&mut [0; 20_000]).expect("a stream");
    drop(socket);
    victim.assert_recovers("behind a stream", 0);
}

#[test]
fn requests_in_a_row_are_answered_in_their_order() {
    let victim = Victim::start();
    let row: String =
        (0..60).map(|number| get(if number % 2 == 0 { "/healthz" } else { "/nowhere" })).collect();
    let last = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut socket = victim.say(&format!("{row}{last}"));
    let text = read_to_end(&mut socket);
    let statuses: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once("HTTP/1.1 "))
        .map(|(_, status)| status.split(' ').next().unwrap_or_default())
        .collect();
    let mut expected = ["200", "404"].repeat(30);
    expected.push("200");
    assert_eq!(statuses, expected);
    victim.assert_recovers("in a row", 0);
}

#[test]
fn requests_without_end_end_the_connection() {
    let victim = Victim::start();
    let many = get("/proxy/status").repeat(200);
    for _ in 0..10 {
        let mut socket = victim.connect();
        // Nobody reads the answers.
        let mut sent = 0;
        while sent < 50_000_000 && socket.write_all(many.as_bytes()).is_ok() {
            sent += many.len();
        }
        assert!(sent < 50_000_000, "it takes requests for ever");
        victim.assert_answers();
    }
    victim.assert_recovers("requests without end", 0);
}
