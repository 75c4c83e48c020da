//! More than there is room for.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{ID, LONG, Victim, read_to_end};
use crate::harness::{pause, stream_path};

fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a live socket");
    drop(socket);
}

#[test]
fn storms_of_resets_pass() {
    const RESETS: usize = 2000;
    let victim = Victim::start();
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
    victim.assert_answers();
    victim.assert_recovers("resets", 0);
}

#[test]
fn twenty_thousand_connections_with_200_descriptors_pass() {
    const WANTED: usize = 20_000;
    let victim = Victim::start_under("ulimit -n 200");
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
    let victim = Victim::start_under("ulimit -n 120");
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", stream_path(ID));
    let mut refused = 0;
    let sockets: Vec<_> = (0..40).map(|_| victim.say(&request)).collect();
    for mut socket in sockets {
        let mut head = [0; 12];
        std::io::Read::read_exact(&mut socket, &mut head).expect("an answer");
        if &head == b"HTTP/1.1 503" {
            assert!(read_to_end(&mut socket).contains("at_capacity"));
            refused += 1;
        }
    }
    assert!((1..40).contains(&refused), "{refused} of 40 were refused");
    victim.assert_answers();
    victim.wait_clients(1);
    victim.assert_recovers("streams at the limit", 0);
}

#[test]
fn without_threads_it_waits_for_better_times() {
    // Each of tiny_http's threads takes 2 MiB of address space, of which there is little; malloc's arenas would take the
    // rest at random.
    let victim = Victim::start_under("export MALLOC_ARENA_MAX=1; ulimit -v 300000");
    let began = Instant::now();
    let mut halves = Vec::new();
    while halves.len() < 400 && began.elapsed() < Duration::from_secs(5) {
        halves.push(victim.say("GET /healthz HTTP/1.1\r\n"));
        pause(Duration::from_millis(2));
    }
    eprintln!("threads: {} half heads, {:?}", halves.len(), victim.program.usage());
    let was_without = !super::is_well(victim.address());
    drop(halves);
    assert!(was_without, "there were threads for everybody");
    let began = Instant::now();
    victim.wait_well();
    assert!(began.elapsed() < LONG);
    victim.assert_recovers("threads", 0);
}
