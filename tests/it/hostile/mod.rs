//! Hostile peers against the program itself. After each attack a client streams, `/healthz` answers, and memory, threads
//! and descriptors are back; during each another client watches undisturbed.
//!
//! | what a peer or the system does | test |
//! |---|---|
//! | bodies of every size, announced or sent | `bodies` |
//! | Transfer-Encoding, ambiguous lengths | `bodies` |
//! | stray control characters, oversized and endless heads, HTTP/2.0 | `heads` |
//! | silence, half heads, a byte a second, bare LF | `heads` |
//! | requests behind a stream, requests without end | `pipelines` |
//! | storms of connections and resets, no descriptors, no threads | `storms` |

mod bodies;
mod heads;
mod pipelines;
mod storms;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use acerelay::sim::SimEngine;
use serde_json::Value;

use super::harness::{
    Bystander, Connection, ID, LONG, OTHER_ID, Running, Usage, Viewer, assert_whole, directory, engine,
    in_parallel, pause,
};

/// These wait for deadlines for most of their time, so they wait together.
#[test]
fn what_takes_long_leaves_nothing_behind() {
    let attacks = [
        heads::three_hundred_half_heads_and_those_who_drip_are_closed,
        bodies::no_body_holds_it_up_or_brings_it_down,
        storms::twenty_thousand_connections_with_200_descriptors_pass,
        storms::without_threads_it_waits_for_better_times,
    ];
    in_parallel(attacks.len(), move |number| attacks[number]());
}

/// What the allocator may keep for later: a part of what it had to hold at once.
const KEPT_KB: u64 = 12 * 1024;

/// How many idle threads `tiny_http` keeps depends on which of them the last connections met.
const POOL_THREADS: u64 = 2;

/// Written once: another program may be reading it.
static CONFIG: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = directory().join("hostile.toml");
    fs::write(&path, "[stream]\nlinger_s = 0.2\n").expect("a file of the test's own");
    path
});

/// The program under attack.
struct Victim {
    program: Running,
    engine: SimEngine,
    before: Usage,
    bystander: Option<Bystander>,
}

impl Victim {
    fn start() -> Self {
        Self::start_under(":", None)
    }

    /// Under limits that a shell sets, as this user if one is given.
    fn start_under(limits: &str, user: Option<u32>) -> Self {
        let engine = engine();
        let address = engine.addr().to_string();
        let arguments =
            ["--config", &*CONFIG.to_string_lossy(), "--engine", &address, "--log-level", "debug"];
        let program = Running::start_under(limits, user, &arguments);
        let victim = Self { before: program.usage(), program, engine, bystander: None };
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
                && now.descriptors <= self.before.descriptors + 2 * parked
                && now.resident_kb <= self.before.resident_kb + KEPT_KB;
            if is_back {
                eprintln!("{what}: before {:?}, after {now:?}", self.before);
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
