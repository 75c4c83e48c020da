//! Heads of requests that are too large, never end, or are none.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::impatient::PATIENCE;
use super::{Victim, is_well, read_to_end};
use crate::harness::{LONG, pause};

pub(super) fn three_hundred_half_heads_and_those_who_drip_are_closed() {
    let mut victim = Victim::start_impatient(":", None);
    let head = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: ";
    let mut halves: Vec<_> = (0..300).map(|_| victim.say(head)).collect();
    halves.extend((0..20).map(|_| victim.connect()));
    // A bare LF ends no line here, and a head in UTF-8 none at all.
    halves.extend((0..5).map(|_| victim.say("GET /healthz HTTP/1.1\nHost: x\n\n")));
    halves.extend((0..5).map(|_| victim.say("GET /caf\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n")));
    // Keep-alive connections that ask for nothing more.
    halves.extend((0..20).map(|_| victim.say("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")));
    let began = Instant::now();
    let mut drips: Vec<_> = (0..20).map(|_| victim.say("GET /")).collect();
    victim.assert_answers();
    victim.assert_streams();
    eprintln!("half heads: at their height {:?}", victim.program.usage());
    // A byte resets every deadline for reads; the one for whole heads stands.
    while !drips.is_empty() {
        drips.retain_mut(|socket| socket.write_all(b"x").is_ok());
        assert!(began.elapsed() < LONG, "{} of them drip on", drips.len());
        pause(Duration::from_millis(100));
    }
    let took = began.elapsed();
    assert!(took >= PATIENCE.head, "{took:?}");
    eprintln!("half heads: the last one that dripped was cut after {took:?}");
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
const HTTP_2_REQUESTS: u64 = 100;

const HTTP_2_HEADS: [&str; 3] =
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/3.0\r\n\r\n", "GET / HTTP/2.0\r\nHost: x\r\n\r\n"];

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
        "GET /healthz HTTP/2\r\n\r\n".to_owned(),
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
    for head in HTTP_2_HEADS.iter().cycle().take(HTTP_2_REQUESTS as usize) {
        drop(victim.say(head));
    }
}

pub(super) fn requests_of_http_2_are_ended_and_told_to_the_watchdog() {
    /// Each takes two descriptors, and a quarter of 800 may be lost: 100 are too many.
    const BEARABLE: usize = 60;
    let mut victim = Victim::start_impatient("ulimit -n 800", None);
    let mut heads = HTTP_2_HEADS.iter().cycle();
    let began = Instant::now();
    let sockets: Vec<_> = heads.by_ref().take(BEARABLE).map(|head| victim.say(head)).collect();
    for mut socket in sockets {
        assert_eq!(read_to_end(&mut socket), "");
    }
    assert!(began.elapsed() >= PATIENCE.head, "{:?}", began.elapsed());
    victim.assert_recovers("HTTP/2.0", BEARABLE as u64);
    victim.assert_answers();
    // Of a burst a few may be ended before anybody has read them, and cost nothing.
    let more: Vec<_> = heads.take(BEARABLE).map(|head| victim.say(head)).collect();
    let deadline = Instant::now() + LONG;
    while is_well(victim.address()) {
        assert!(Instant::now() < deadline, "it still says that it is well");
        pause(Duration::from_millis(100));
    }
    victim.assert_streams();
    drop(more);
}

/// The program's own patience, and that it is not longer than it says.
pub(super) fn the_program_waits_as_long_as_it_says() {
    let mut victim = Victim::start();
    let began = Instant::now();
    let [silent, half] = ["", "GET /healthz HTTP/1.1\r\nX: "].map(|text| victim.say(text));
    let mut drip = victim.say("GET /");
    while drip.write_all(b"x").is_ok() {
        assert!(began.elapsed() < LONG, "it drips on");
        pause(Duration::from_secs(1));
    }
    let took = began.elapsed();
    assert!((15..30).contains(&took.as_secs()), "{took:?}");
    for mut socket in [silent, half] {
        assert!(!read_to_end(&mut socket).starts_with("HTTP/1.1 200"));
    }
    victim.assert_recovers("its own patience", 0);
}
