//! A row of relays behind HAProxy or nginx, with the configurations of `scripts/`: one engine session a content in the whole
//! row, a reconnect for those whose box dies, and no more than its share to a box that is added.
//!
//! To be asked for, since it needs those programs and half a minute of the machine:
//! `cargo test --test it cluster:: -- --ignored --nocapture --test-threads 1`

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acerelay::id::Digest;
use acerelay::sim::{Content, Media, Numbered, SimEngine};
use acerelay::threads::Threads;
use parking_lot::Mutex;

use super::harness::{Connection, LONG, Running, STACK_BYTES, directory, empty_engine, pause, stream_path};

const CHANNELS: u8 = 30;
const CLIENTS: usize = 300;

/// 300 of them are 90 Mbit/s.
const BITS_PER_SECOND: u64 = 300_000;

/// For the share of a new box: so many that chance hardly matters.
const ASKED: u16 = 600;

const HAPROXY: &str = include_str!("../../scripts/haproxy/haproxy.cfg");
const NGINX: &str = include_str!("../../scripts/nginx/acerelay.conf");

fn id(number: u8) -> Digest {
    Digest::new([number + 1; 20])
}

fn engine() -> SimEngine {
    let engine = empty_engine();
    for number in 0..CHANNELS {
        let media = Media::Numbered(Numbered::at_rate(BITS_PER_SECOND));
        engine.add(Content::live(id(number), Digest::new([number + 101; 20]), media));
    }
    engine
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A program in front of the boxes; killed when dropped.
struct Front {
    child: Child,
    address: SocketAddr,
    socket: PathBuf,
}

impl Drop for Front {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Puts these boxes into a configuration, in place of those that stand there for an example.
fn with_boxes(text: &str, boxes: &[SocketAddr]) -> String {
    let text = text.to_owned();
    boxes.iter().enumerate().fold(text, |text, (at, address)| {
        text.replace(&format!("192.0.2.{}:8000", at + 11), &address.to_string())
    })
}

impl Front {
    fn start(program: &str, arguments: &[&str], port: u16, socket: PathBuf) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        let front = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), socket };
        let deadline = Instant::now() + LONG;
        while TcpStream::connect(front.address).is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            pause(Duration::from_millis(20));
        }
        front
    }

    /// HAProxy with these boxes, and one more that is not in use yet.
    fn haproxy(boxes: &[SocketAddr], spare: SocketAddr) -> Self {
        let (port, socket) = (free_port(), directory().join("haproxy.sock"));
        let text = with_boxes(HAPROXY, boxes)
            .replace("bind :8000", &format!("bind 127.0.0.1:{port}"))
            .replace("/run/acerelay-haproxy.sock", &socket.to_string_lossy());
        let text = format!("{text}    server box4 {spare} id 4 disabled\n");
        let file = directory().join("haproxy.cfg");
        fs::write(&file, text).expect("a file of the tests");
        Self::start("haproxy", &["-db", "-f", &file.to_string_lossy()], port, socket)
    }

    fn nginx(boxes: &[SocketAddr]) -> Self {
        let port = free_port();
        let included = directory().join("acerelay.conf");
        let text = with_boxes(NGINX, boxes).replace("listen 8000", &format!("listen 127.0.0.1:{port}"));
        fs::write(&included, text).expect("a file of the tests");
        let place = directory().join("nginx");
        fs::create_dir_all(&place).expect("a directory of the tests");
        let (place, included) = (place.to_string_lossy(), included.to_string_lossy());
        let text = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 4096; }}\nhttp {{ access_log off; include {included}; }}\n"
        );
        let file = directory().join("nginx.conf");
        fs::write(&file, text).expect("a file of the tests");
        Self::start("nginx", &["-c", &file.to_string_lossy()], port, PathBuf::new())
    }

    /// Tells HAProxy something by its socket.
    fn tell(&self, text: &str) {
        let mut socket = UnixStream::connect(&self.socket).expect("HAProxy's socket");
        socket.write_all(text.as_bytes()).expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        assert_eq!(answer.trim(), "", "{text}");
    }

    /// Which box a content goes to; nothing is started by that.
    fn box_of(&self, id: Digest) -> String {
        let mut connection = Connection::open(self.address);
        connection.send_request("HEAD", &stream_path(id), "Connection: close\r\n");
        connection.reply_to_head().header("X-Relay").expect("the front says which").to_owned()
    }
}

/// A player that comes back whenever its stream ends.
#[derive(Default)]
struct Player {
    answers: AtomicU64,
    refusals: AtomicU64,
    bytes: AtomicU64,
    relay: Mutex<String>,
    /// The longest time without a byte, in milliseconds.
    gap_ms: AtomicU64,
}

impl Player {
    fn run(&self, front: SocketAddr, id: Digest, is_over: &AtomicBool) {
        let mut last = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            let mut reply = Connection::open(front).get(&stream_path(id));
            if reply.status != 200 {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                // As players do.
                pause(Duration::from_millis(500));
                continue;
            }
            *self.relay.lock() = reply.header("X-Relay").unwrap_or_default().to_owned();
            self.answers.fetch_add(1, Ordering::Relaxed);
            while let Ok(bytes) = reply.read() {
                if self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed) > 0 {
                    let gap = last.elapsed().as_millis() as u64;
                    self.gap_ms.fetch_max(gap, Ordering::Relaxed);
                }
                last = Instant::now();
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }
}

struct Crowd {
    players: Vec<Arc<Player>>,
    is_over: Arc<AtomicBool>,
    threads: Threads,
}

impl Crowd {
    fn gather(front: SocketAddr) -> Self {
        let (threads, is_over) = (Threads::new(), Arc::new(AtomicBool::new(false)));
        let players: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Player::default())).collect();
        for (number, player) in players.iter().enumerate() {
            let (player, is_over) = (Arc::clone(player), Arc::clone(&is_over));
            let body = move || player.run(front, id((number % usize::from(CHANNELS)) as u8), &is_over);
            threads.spawn(&format!("player-{number}"), STACK_BYTES, body).expect("a thread");
        }
        Self { players, is_over, threads }
    }

    fn wait(&self, what: &str, is_met: impl Fn(&Player) -> bool) -> Duration {
        let began = Instant::now();
        let deadline = began + 3 * LONG;
        while !self.players.iter().all(|player| is_met(player)) {
            let left = self.players.iter().filter(|player| !is_met(player)).count();
            assert!(Instant::now() < deadline, "{left} players have waited in vain until {what}");
            pause(Duration::from_millis(50));
        }
        began.elapsed()
    }

    /// Waits until everybody has got so much more.
    fn take(&self, bytes: u64) -> Duration {
        let before: Vec<_> = self.players.iter().map(|player| player.bytes.load(Ordering::Relaxed)).collect();
        let before: BTreeMap<_, _> = self.players.iter().map(Arc::as_ptr).zip(before).collect();
        self.wait("more bytes come", |player| {
            player.bytes.load(Ordering::Relaxed) >= before[&std::ptr::from_ref(player)] + bytes
        })
    }

    fn relays(&self) -> Vec<String> {
        self.players.iter().map(|player| player.relay.lock().clone()).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Who waits for bytes sees it with the next ones.
        let _left = self.threads.join_all(Instant::now() + LONG);
    }
}

fn boxes(engines: &[SimEngine], count: usize) -> Vec<Running> {
    let engines: Vec<_> = engines.iter().map(|engine| engine.addr().to_string()).collect();
    let config = directory().join("cluster.toml");
    fs::write(&config, "[health]\ninterval_s = 1\n").expect("a file of the tests");
    let config = config.to_string_lossy();
    let [one, other] = [&engines[0], &engines[1]];
    let arguments = ["--config", &*config, "--engine", one, "--engine", other];
    (0..count).map(|_| Running::start(&arguments)).collect()
}

fn wait_ready(boxes: &[Running]) {
    let deadline = Instant::now() + LONG;
    while !boxes.iter().all(|relay| Connection::open(relay.address).get("/readyz").status == 200) {
        assert!(Instant::now() < deadline, "the boxes find their engines");
        pause(Duration::from_millis(50));
    }
}

fn opened(engines: &[SimEngine]) -> u64 {
    engines.iter().map(|engine| engine.counts().sessions_opened).sum()
}

/// Gathers 300 players of 30 channels, then kills a box, and tells what came of it.
fn check_a_box_may_die(
    engines: &[SimEngine],
    boxes: &mut Vec<Running>,
    front: &Front,
    named: impl Fn(usize) -> String,
) {
    let crowd = Crowd::gather(front.address);
    let started = crowd.wait("all play", |player| player.bytes.load(Ordering::Relaxed) > 0);
    crowd.take(20_000);
    assert_eq!(opened(engines), u64::from(CHANNELS), "one engine session a content in the whole row");
    let before = crowd.relays();
    let spread: BTreeSet<_> = before.iter().collect();
    println!(
        "{CLIENTS} players of {CHANNELS} channels play after {started:.1?}, on {} boxes: {}",
        spread.len(),
        shares(&before)
    );
    assert!(crowd.players.iter().all(|player| player.refusals.load(Ordering::Relaxed) == 0));
    let dead = named(1);
    let moved: BTreeSet<_> = (0..usize::from(CHANNELS)).filter(|channel| before[*channel] == dead).collect();
    crowd.players.iter().for_each(|player| player.gap_ms.store(0, Ordering::Relaxed));
    drop(boxes.remove(1));
    crowd.wait("all have moved", |player| *player.relay.lock() != dead);
    crowd.take(20_000);
    let (mut gaps, mut reconnects) = (Vec::new(), Vec::new());
    for (player, before) in crowd.players.iter().zip(&before) {
        let again = player.answers.load(Ordering::Relaxed) - 1 + player.refusals.load(Ordering::Relaxed);
        if *before == dead {
            gaps.push(player.gap_ms.load(Ordering::Relaxed));
            reconnects.push(again);
        } else {
            assert_eq!(again, 0, "a player of another box was disturbed");
        }
    }
    gaps.sort_unstable();
    println!(
        "{dead} was killed: {} players of {} channels were without a byte for {} ms in the middle and {} ms at most, and \
         asked again {} times at most",
        gaps.len(),
        moved.len(),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
        reconnects.iter().max().expect("somebody"),
    );
    assert!(reconnects.iter().all(|again| *again == 1), "{reconnects:?}");
    assert_eq!(
        opened(engines),
        u64::from(CHANNELS) + moved.len() as u64,
        "one new session a content that has moved"
    );
}

fn shares(relays: &[String]) -> String {
    let mut counts = BTreeMap::<_, u32>::new();
    relays.iter().for_each(|relay| *counts.entry(relay).or_default() += 1);
    counts.iter().map(|(relay, count)| format!("{relay} {count}")).collect::<Vec<_>>().join(", ")
}

#[test]
#[ignore = "needs HAProxy and half a minute of the machine"]
fn behind_haproxy() {
    let engines = [engine(), engine()];
    let mut boxes = boxes(&engines, 4);
    wait_ready(&boxes);
    let spare = boxes.pop().expect("four boxes");
    let addresses: Vec<_> = boxes.iter().map(|relay| relay.address).collect();
    let front = Front::haproxy(&addresses, spare.address);
    // A box more: who is asked for what.
    let asked: Vec<_> = (0..ASKED)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let mut bytes = [0x5a; 20];
            (bytes[0], bytes[19]) = (high, low);
            Digest::new(bytes)
        })
        .collect();
    let of_all = || asked.iter().map(|id| front.box_of(*id)).collect::<Vec<_>>();
    let before = of_all();
    front.tell("set server relays/box4 state ready; set server relays/box4 health up\n");
    let after = of_all();
    let moved: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .map(|(_, after)| after.clone())
        .collect();
    println!(
        "{} of {ASKED} contents moved to a fourth box ({:.0} %): {} before, {} after",
        moved.len(),
        100.0 * moved.len() as f64 / f64::from(ASKED),
        shares(&before),
        shares(&after)
    );
    assert!(moved.iter().all(|relay| relay == "box4"), "only to the new one: {}", shares(&moved));
    assert!(moved.len() < usize::from(ASKED) * 2 / 5, "no more than its share, which is a quarter");
    front.tell("set server relays/box4 state maint\n");
    assert_eq!(of_all(), before);
    check_a_box_may_die(&engines, &mut boxes, &front, |at| format!("box{}", at + 1));
}

#[test]
#[ignore = "needs nginx and half a minute of the machine"]
fn behind_nginx() {
    let engines = [engine(), engine()];
    let mut boxes = boxes(&engines, 3);
    wait_ready(&boxes);
    let addresses: Vec<_> = boxes.iter().map(|relay| relay.address).collect();
    let front = Front::nginx(&addresses);
    check_a_box_may_die(&engines, &mut boxes, &front, |at| addresses[at].to_string());
}
