//! Clients that ask for a stream and take nothing of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use acerelay::id::Digest;
use acerelay::sim::{Content, Media, Numbered};
use socket2::{Domain, Socket, Type};

use super::{ID, LONG, Victim, read_to_end};
use crate::harness::{Connection, Running, directory, empty_engine, nth_id, pause, stream_path};

/// A connection with little room of its own.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a live socket");
    socket.connect(&address.into()).expect("it listens");
    socket.set_read_timeout(Some(LONG)).expect("a live socket");
    socket.into()
}

#[test]
fn who_takes_nothing_is_closed_and_all_it_had_is_back() {
    const LIMIT: Duration = Duration::from_secs(1);
    let config = "[server]\nwrite_timeout_s = 1\n[stream]\nlinger_s = 0.2\n";
    let mut victim = Victim::start_with(config, ":");
    let began = Instant::now();
    let requests = ["HTTP/1.1\r\nHost: x", "HTTP/1.1\r\nHost: x\r\nConnection: close", "HTTP/1.0"];
    let frozen: Vec<_> = (0..12)
        .map(|number| {
            let mut socket = narrow(victim.address());
            let request = format!("GET {} {}\r\n\r\n", stream_path(ID), requests[number % 3]);
            socket.write_all(request.as_bytes()).expect("room in the buffer");
            socket
        })
        .collect();
    victim.wait_clients(1 + frozen.len());
    let height = victim.program.usage();
    let clients = frozen.len() as u64;
    assert!(
        height.threads >= victim.before.threads + clients
            && height.descriptors >= victim.before.descriptors + 2 * clients,
        "{height:?}, before {:?}",
        victim.before
    );
    // None of them leaves.
    victim.wait_clients(1);
    assert!(began.elapsed() >= LIMIT, "{:?}", began.elapsed());
    for _ in &frozen {
        victim.program.wait_log("it took nothing for 1.0 s");
    }
    eprintln!("frozen: all closed after {:?}, at their height {height:?}", began.elapsed());
    // What they have cost is back while they are still there, and what they then take is no whole body.
    victim.assert_recovers("frozen", 0);
    for mut socket in frozen {
        let text = read_to_end(&mut socket);
        assert!(text.contains(" 200 OK\r\n") && !text.ends_with("\r\n0\r\n\r\n"), "{} bytes", text.len());
    }
}

/// Somebody who takes a byte now and then is never closed, and never far enough behind to be moved ahead by bytes.
#[test]
fn thirty_slow_streams_with_clients_that_drip_stay_within_their_memory() {
    const STREAMS: u8 = 30;
    const MEMORY_MB: u64 = 32;
    /// Much longer than it takes to fill the memory: 60 MB come in it.
    const TIME: Duration = Duration::from_secs(16);
    let engine = empty_engine();
    for number in 1..=STREAMS {
        let media = Media::Numbered(Numbered::at_rate(1_000_000));
        engine.add(Content::live(nth_id(number), Digest::new([number | 0x80; 20]), media));
    }
    let config = format!(
        "[[engines]]\nhost = \"127.0.0.1\"\nport = {}\nmax_streams = 50\nmax_starts = 50\n\
         [stream]\nmemory_mb = {MEMORY_MB}\nbacklog_s = 3\n",
        engine.addr().port()
    );
    let path = directory().join(format!("drips-{}.toml", std::process::id()));
    fs::write(&path, config).expect("a file of the test's own");
    let program = Running::start(&["--config", &path.to_string_lossy()]);
    fs::remove_file(&path).expect("it has been read");
    let before = program.usage();
    let mut drips: Vec<_> = (1..=STREAMS)
        .map(|number| {
            let mut socket = narrow(program.address);
            let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream_path(nth_id(number)));
            socket.write_all(request.as_bytes()).expect("room in the buffer");
            socket
        })
        .collect();
    let backlog_bytes = || {
        let text = Connection::open(program.address).get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix("acerelay_backlog_bytes "));
        value.and_then(|value| value.parse::<u64>().ok()).expect("it is told")
    };
    let (began, mut height) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        for socket in &mut drips {
            socket.read_exact(&mut [0; 8]).expect("nobody is closed");
        }
        height = height.max(backlog_bytes());
        pause(Duration::from_millis(200));
    }
    let after = program.usage();
    eprintln!("drips: {height} bytes at their height, before {before:?}, after {after:?}");
    // One chunk of each may come between two looks at the budget.
    assert!((8 << 20..(MEMORY_MB << 20) + 2_000_000).contains(&height), "{height} bytes");
    // 60 threads and their connections, the allocator's own, and the memory.
    let allowed_kb = before.resident_kb + (MEMORY_MB << 10) + 24 * 1024;
    assert!(after.resident_kb < allowed_kb, "{after:?}, before {before:?}");
}
