//! Heads of requests that are too large, never end, or are none.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Victim, read_to_end};
use crate::harness::{LONG, pause};

pub(super) fn three_hundred_half_heads_and_those_who_drip_are_closed() {
    let mut victim = Victim::start();
    let head = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: ";
    let mut halves: Vec<_> = (0..300).map(|_| victim.say(head)).collect();
    halves.extend((0..20).map(|_| victim.connect()));
    // A bare LF ends no line here, and a head in UTF-8 none at all.
    halves.extend((0..5).map(|_| victim.say("GET /healthz HTTP/1.1\nHost: x\n\n")));
    halves.extend((0..5).map(|_| victim.say("GET /caf\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n")));
    // Keep-alive connections that ask for nothing more.
    halves.extend((0..20).map(|_| victim.say("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")));
    let mut drips: Vec<_> = (0..20).map(|_| victim.say("GET /")).collect();
    let began = Instant::now();
    victim.assert_answers();
    victim.assert_streams();
    eprintln!("half heads: at their height {:?}", victim.program.usage());
    // A byte a second resets every deadline for reads; the one for whole heads stands.
    while !drips.is_empty() {
        drips.retain_mut(|socket| socket.write_all(b"x").is_ok());
        assert!(began.elapsed() < LONG, "{} of them drip on", drips.len());
        pause(Duration::from_millis(250));
    }
    eprintln!("half heads: the last one that dripped was cut after {:?}", began.elapsed());
    for mut socket in halves {
        read_to_end(&mut socket);
    }
    victim.assert_recovers("half heads", 0);
}

/// The status of the answer, and whether the connection ends behind it.
fn ask(victim: &Victim, head: &str) -> String {
    let mut socket = victim.say(head);
    let text = read_to_end(&mut socket);
    text.lines().next().unwrap_or_default().to_owned()
}

/// `tiny_http` waits for ever to answer one of these, with a thread and two descriptors.
const HTTP_2_REQUESTS: u64 = 20;

#[test]
fn heads_that_are_none_cost_no_more_than_they_must() {
    let mut victim = Victim::start();
    heads_that_are_too_large_or_unclean_are_refused(&victim);
    a_line_of_20_mb_costs_no_memory(&victim);
    requests_of_http_2_are_let_be(&victim);
    victim.assert_recovers("heads that are none", HTTP_2_REQUESTS);
}

fn heads_that_are_too_large_or_unclean_are_refused(victim: &Victim) {
    let large = "x".repeat(17_000);
    let refused = "HTTP/1.1 400 Bad Request";
    let many = |count| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    for head in [
        format!("GET /{large} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\nCookie: {large}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{large}: y\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", many(100)),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", many(10_000).get(..50_000).unwrap_or_default()),
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\nSet-Cookie: b\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n".to_owned(),
        "GET /health\u{1b}[31mz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        "GET /healthz HTTP/9.9\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nno header\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n".to_owned(),
    ] {
        let shown: String = head.chars().take(60).collect();
        assert_eq!(ask(victim, &head), refused, "{shown:?}");
    }
    // What a person's browser may bring along is fine.
    let cookies = "x".repeat(12_000);
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {cookies}\r\n{}\r\n",
        many(90)
    );
    assert_eq!(ask(victim, &head), "HTTP/1.1 200 OK");
}

/// Sends a line until the other side has enough, or so much; how much that was.
fn send_line(socket: &mut TcpStream, most: usize) -> usize {
    let mut sent = 0;
    while sent < most && socket.write_all(&[b'x'; 64 * 1024]).is_ok() {
        sent += 64 * 1024;
    }
    sent
}

fn a_line_of_20_mb_costs_no_memory(victim: &Victim) {
    for begin in ["GET /", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\nX"] {
        let began = Instant::now();
        let mut socket = victim.say(begin);
        let sent = send_line(&mut socket, 20 << 20);
        let _told = socket.write_all(b" HTTP/1.1\r\n\r\n");
        let text = read_to_end(&mut socket);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text}");
        eprintln!("20 MB: it ended after {sent} bytes and {:?}", began.elapsed());
    }
    // The same behind a request that is in work.
    let mut socket = victim.say("GET /proxy/status HTTP/1.1\r\nHost: x\r\n\r\nGET /");
    send_line(&mut socket, 20 << 20);
    let _told = socket.write_all(b" HTTP/1.1\r\n\r\n");
    read_to_end(&mut socket);
    let peak = victim.program.usage().peak_kb;
    assert!(peak < victim.before.peak_kb + 200 * 1024, "{peak} kB, before {:?}", victim.before);
}

fn requests_of_http_2_are_let_be(victim: &Victim) {
    for number in 0..HTTP_2_REQUESTS {
        let head = if number % 2 == 0 { "PRI * HTTP/2.0\r\n\r\n" } else { "GET / HTTP/3.0\r\n\r\n" };
        drop(victim.say(head));
    }
}
