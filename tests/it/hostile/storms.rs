//! More than there is room for.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use acerelay::sim::SimEngine;

use super::{ID, LONG, Victim};
use crate::harness::{Connection, pause, reset, stream_path};

#[test]
fn storms_of_resets_pass() {
    const RESETS: usize = 2000;
    let mut victim = Victim::start();
    let stream = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream_path(ID));
    for number in 0..RESETS {
        let mut socket = victim.connect();
        let said: &[u8] = match number % 5 {
            0 => b"",
            1 => b"GET /healthz HT",
            2 => b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            3 => b"GET / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n",
            _ => stream.as_bytes(),
        };
        socket.write_all(said).expect("room in the buffer");
        reset(socket);
    }
    victim.assert_recovers("resets", 0);
}

pub(super) fn twenty_thousand_connections_with_200_descriptors_pass() {
    const WANTED: usize = 20_000;
    let mut victim = Victim::start_impatient("ulimit -n 200", None);
    let began = Instant::now();
    let (mut open, mut wanted) = (Vec::new(), 0);
    // Each stays open as long as there are not too many of our own.
    while wanted < WANTED && began.elapsed() < Duration::from_secs(8) {
        let address = victim.address().into();
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a live socket");
        // It is on its way, whether or not there is room for it.
        let _on_its_way = socket.connect(&address);
        open.push(socket);
        wanted += 1;
        if open.len() >= 400 {
            open.drain(..200).for_each(drop);
        }
    }
    eprintln!(
        "descriptors: {wanted} wanted in {:?}, at their height {:?}",
        began.elapsed(),
        victim.program.usage()
    );
    drop(open);
    victim.wait_well();
    // And silent ones that stay: each goes when its time is over.
    let silent: Vec<_> = (0..300).map(|_| victim.say("GET /")).collect();
    victim.wait_well();
    victim.program.wait_log("listening again");
    drop(silent);
    victim.assert_recovers("descriptors", 0);
}

#[test]
fn streams_leave_descriptors_to_the_rest() {
    /// Two descriptors each and a third while they stream: more than the 336 that are for streams, but never all, also
    /// while the proxy asks itself.
    const CLIENTS: usize = 110;
    let mut victim = Victim::start_under("ulimit -n 400");
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream_path(ID));
    let (mut refused, mut cut) = (0, 0);
    let mut sockets: Vec<_> = (0..CLIENTS).map(|_| victim.say(&request)).collect();
    for socket in &mut sockets {
        let mut head = [0; 12];
        if socket.read_exact(&mut head).is_err() {
            // While descriptors are short, who waits for two seconds to be read is cut off: only on a busy machine.
            cut += 1;
            continue;
        }
        if &head == b"HTTP/1.1 503" {
            let mut text = Vec::new();
            while !String::from_utf8_lossy(&text).contains("at_capacity") {
                let mut byte = [0];
                socket.read_exact(&mut byte).expect("the rest of an answer");
                text.extend(byte);
            }
            refused += 1;
        }
    }
    assert!((1..CLIENTS).contains(&(refused + cut)), "{refused} of {CLIENTS} were refused, {cut} cut off");
    assert!(cut <= CLIENTS / 4, "{cut} of {CLIENTS} were cut off");
    victim.assert_answers();
    drop(sockets);
    victim.wait_clients(1);
    victim.assert_recovers("streams at the limit", 0);
}

pub(super) fn without_threads_it_waits_for_better_times() {
    /// Somebody who has no other process: the limit counts all of a user's threads, and does not hold for root.
    const NOBODY: u32 = 61_234;
    if fs::metadata("/proc/self").expect("a system with /proc").uid() != 0 {
        eprintln!("SKIPPED: only root can start the program as somebody else, whose threads are limited");
        return;
    }
    let mut victim = Victim::start_impatient("ulimit -p 100 2>/dev/null || ulimit -u 100", Some(NOBODY));
    let (mut halves, began) = (Vec::new(), Instant::now());
    // In a burst not each of them gets a thread at once.
    while !victim.program.logs_within(Duration::from_secs(2), "Nobody accepts connections") {
        assert!(began.elapsed() < LONG, "there are threads for everybody");
        halves.extend((0..100).map(|_| victim.say("GET /healthz HTTP/1.1\r\n")));
    }
    // For as long as several looks at the engine take.
    let (stream, shortage) = (format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream_path(ID)), Instant::now());
    let mut asked = Vec::new();
    while shortage.elapsed() < Duration::from_secs(4) {
        halves.extend((0..50).map(|_| victim.say("GET /healthz HTTP/1.1\r\n")));
        asked.push(victim.say(&stream));
        pause(Duration::from_millis(100));
    }
    eprintln!("threads: noticed after {:?}, {:?}", began.elapsed(), victim.program.usage());
    victim.wait_well();
    eprintln!("threads: well after {:?}", began.elapsed());
    drop((halves, asked));
    // Until a stream has threads again, clients are told to come back.
    let deadline = Instant::now() + LONG;
    while victim.program.usage().threads > 50 {
        assert!(Instant::now() < deadline, "the threads of those who left stay");
        pause(Duration::from_millis(100));
    }
    // The thread that watches the engine has outlived it, and sees what becomes of it.
    for (change, status) in [(SimEngine::refuse as fn(&SimEngine) -> _, 503), (SimEngine::accept, 200)] {
        change(&victim.engine).expect("its port is its own");
        let deadline = Instant::now() + LONG;
        while Connection::open(victim.address()).get("/readyz").status != status {
            assert!(Instant::now() < deadline, "nobody watches the engine: it is not {status}");
            pause(Duration::from_millis(50));
        }
    }
    victim.assert_recovers("threads", 0);
}
