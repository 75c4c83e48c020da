//! Clients that ask for a stream and take nothing of it.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{ID, LONG, Victim, read_to_end};
use crate::harness::stream_path;

/// A connection with little room of its own.
fn narrow(victim: &Victim) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a live socket");
    socket.connect(&victim.address().into()).expect("it listens");
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
            let mut socket = narrow(&victim);
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
