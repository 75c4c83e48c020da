//! Hostile peers against the program itself. After each attack a client streams, `/healthz` answers, and memory, threads
//! and descriptors are back; during each another client watches undisturbed. Where time is what is attacked, it is a
//! program with less patience ([`impatient`]), and once the program's own.
//!
//! | what a peer or the system does | test |
//! |---|---|
//! | a giant Content-Length, with and without its body | `bodies::no_body_holds_it_up_or_brings_it_down` |
//! | 1200 POSTs of a web page | `bodies::what_a_web_page_can_send_costs_nothing_for_good` |
//! | bodies larger than there is room for, with little room or from one address | `bodies::where_address_space_...`, `bodies::an_address_...` |
//! | any Transfer-Encoding, ambiguous lengths | the same |
//! | so many of those that cost a thread each that there are few left | `bodies::giants_are_told_to_the_watchdog` |
//! | CR or LF inside a header, no head at all, too large a head | `heads::heads_that_are_too_large_or_unclean_are_refused` |
//! | a line of 20 MB | `heads::a_line_of_20_mb_costs_no_memory` |
//! | HTTP/2.0, which costs a thread each | `heads::requests_of_http_2_are_let_be`, `..._are_ended_and_told_to_the_watchdog` |
//! | silence, 300 half heads, idle keep-alive, a byte now and then, bare LF, no ASCII | `heads::three_hundred_half_heads_and_those_who_drip_are_closed`, `the_program_waits_as_long_as_it_says` |
//! | 50 requests behind a stream | `pipelines::fifty_requests_behind_a_stream_end_it_and_hold_nobody_up` |
//! | requests without end | `pipelines::requests_without_end_end_the_connection` |
//! | a burst of keep-alive connections, some left unread | `server::a_burst_of_connections_that_stay_open_is_answered_at_once` |
//! | 2000 resets at every moment | `storms::storms_of_resets_pass` |
//! | a reset before `accept` | `panics::a_connection_that_was_reset_early_is_a_line_at_debug` |
//! | 20,000 connections and 200 descriptors: `accept` fails, its thread dies | `storms::twenty_thousand_connections_with_200_descriptors_pass` |
//! | no descriptor left for streams | `storms::streams_leave_descriptors_to_the_rest` |
//! | no thread left | `storms::without_threads_it_waits_for_better_times` |
//! | a stream of which nothing is taken | `frozen::who_takes_nothing_is_closed_and_all_it_had_is_back` |

mod bodies;
mod frozen;
mod heads;
mod impatient;
mod pipelines;
mod storms;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use acerelay::sim::SimEngine;
use serde_json::Value;

use super::harness::{
    Bystander, Connection, ID, LONG, OTHER_ID, Running, Usage, Viewer, assert_whole, directory, engine,
    in_parallel, pause, under,
};

/// These wait for deadlines for most of their time, so they wait together.
#[test]
fn what_takes_long_leaves_nothing_behind() {
    let attacks = [
        heads::three_hundred_half_heads_and_those_who_drip_are_closed,
        bodies::no_body_holds_it_up_or_brings_it_down,
        storms::twenty_thousand_connections_with_200_descriptors_pass,
        storms::without_threads_it_waits_for_better_times,
        heads::requests_of_http_2_are_ended_and_told_to_the_watchdog,
        heads::the_program_waits_as_long_as_it_says,
    ];
    in_parallel(attacks.len(), move |number| attacks[number]());
}

/// What the allocator may keep for later: a part of what it had to hold at once.
const KEPT_KB: u64 = 12 * 1024;

/// An idle thread of `tiny_http` ends after 5 s without a connection, and each connection wakes the one that has waited
/// longest. At leisure the self-check makes one a second, so that a fifth and a sixth live on. On a busy machine its answer
/// takes longer than the 20 ms after which it makes another, and again after 40 and 80: four a second, so 20 may live on.
/// None of those that hang is among them: each of these has two descriptors, which have to be back.
const POOL_THREADS: u64 = 20;

/// The program under attack.
struct Victim {
    program: Running,
    engine: SimEngine,
    began: Instant,
    before: Usage,
    bystander: Option<Bystander>,
}

impl Victim {
    fn start() -> Self {
        Self::start_under(":")
    }

    /// Under limits that a shell sets.
    fn start_under(limits: &str) -> Self {
        Self::start_with("[stream]\nlinger_s = 0.2\n", limits)
    }

    /// With this configuration.
    fn start_with(config: &str, limits: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory().join(format!("hostile-{}-{number}.toml", std::process::id()));
        fs::write(&path, config).expect("a file of the test's own");
        let engine = engine();
        let (file, address) = (path.to_string_lossy(), engine.addr().to_string());
        let arguments = ["--config", &*file, "--engine", &address, "--log-level", "debug"];
        let program = Running::start_under(limits, None, &arguments);
        // It has been read.
        fs::remove_file(&path).expect("the file is there");
        Self::of(program, engine)
    }

    /// With little patience. Under limits that a shell sets, as this user if one is given.
    fn start_impatient(limits: &str, user: Option<u32>) -> Self {
        let engine = engine();
        let program = Running::start_this(under(limits, user, &impatient::program(&engine)));
        Self::of(program, engine)
    }

    fn of(program: Running, engine: SimEngine) -> Self {
        let (began, before) = (Instant::now(), program.usage());
        let victim = Self { program, engine, began, before, bystander: None };
        // What is allocated once is no leak.
        victim.assert_streams();
        victim.wait_idle();
        let before = victim.program.usage();
        let bystander = Some(Bystander::watch_at(victim.address()));
        Self { before, bystander, ..victim }
    }

    fn address(&self) -> SocketAddr {
        self.program.address
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address()).expect("it listens");
        socket.set_read_timeout(Some(LONG)).expect("a live socket");
        socket.set_write_timeout(Some(LONG)).expect("a live socket");
        socket
    }

    /// A connection on which this was sent.
    fn say(&self, text: &str) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(text.as_bytes()).expect("room in the buffer");
        socket
    }

    /// Holds that it answers at once.
    #[track_caller]
    fn assert_answers(&self) {
        let began = Instant::now();
        assert_eq!(Connection::open(self.address()).get("/healthz").status, 200);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[track_caller]
    fn assert_streams(&self) {
        let mut viewer = Viewer::open(self.address(), ID);
        viewer.take_packets(300);
        assert_whole(&viewer.leave());
    }

    /// Waits until no stream is left.
    fn wait_idle(&self) {
        self.wait_status(|status| status["active_sessions"] == 0 && self.engine.counts().readers == 0);
    }

    /// Waits until so many clients are left.
    fn wait_clients(&self, count: usize) {
        self.wait_status(|status| status["total_clients"] == count);
    }

    fn wait_status(&self, is_met: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + LONG;
        loop {
            let status = Connection::open(self.address()).get("/proxy/status").json();
            if is_met(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "it does not come to rest: {status:#}");
            pause(Duration::from_millis(50));
        }
    }

    /// Waits until it answers again.
    fn wait_well(&self) {
        let deadline = Instant::now() + LONG;
        while !is_well(self.address()) {
            assert!(Instant::now() < deadline, "it does not get well");
            pause(Duration::from_millis(100));
        }
    }

    /// Holds that the attack left nothing behind but so many parked threads, with two descriptors each.
    #[track_caller]
    fn assert_recovers(&mut self, what: &str, parked: u64) {
        self.wait_well();
        self.assert_streams();
        let bystander = self.bystander.take().expect("he watches from the start");
        bystander.assert_undisturbed();
        self.wait_idle();
        let deadline = Instant::now() + LONG;
        loop {
            let now = self.program.usage();
            let is_back = now.threads <= self.before.threads + parked + POOL_THREADS
                && now.workers <= self.before.workers
                && now.descriptors <= self.before.descriptors + 2 * parked
                && now.resident_kb <= self.before.resident_kb + KEPT_KB;
            if is_back {
                eprintln!("{what}, {:?}: before {:?}, after {now:?}", self.began.elapsed(), self.before);
                return;
            }
            assert!(Instant::now() < deadline, "{what}: before {:?}, after {now:?}", self.before);
            pause(Duration::from_millis(100));
        }
    }
}

fn is_well(address: SocketAddr) -> bool {
    let ask = || {
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        socket.read_exact(&mut head)?;
        std::io::Result::Ok(&head == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Everything that still comes, up to the end of the connection.
#[track_caller]
fn read_to_end(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection does not end: {error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
