//! The server asks itself, as a client would, whether it is well, and so keeps `tiny_http` going.
//!
//! `tiny_http` has two weaknesses that a new connection cures:
//!
//! - Its accept thread stops for good when an `accept` fails, and that fails when nobody connects for as long as the
//!   sockets' read timeout. A check every few seconds keeps it awake.
//! - Of connections that come in a burst it leaves some unread until another connection ends. A check that is over
//!   frees one of them, whose request brings on the next check, and so on until all are read.
//!
//! Two things break that chain. A connection that its peer has reset brings on no check, since it has no request; it
//! may even end the thread that reads it by a panic. So there are as many checks at once as there are of these. And a
//! check may itself be left unread, behind others. So when one is not answered soon, more are sent after it, and more
//! again as long as that frees connections.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::threads::heartbeat::Heartbeat;

use super::descriptors::Reserve;

/// How often the server asks itself for an answer while nobody else asks it anything. Each check wakes four threads and
/// starts one, which is most of what an idle process does; the service manager's watchdog waits several times as long.
const INTERVAL: Duration = Duration::from_secs(4);

/// An `accept` that waits longer than the sockets' read timeout fails; so many checks fall into one.
const CHECKS_A_TIMEOUT: u32 = 2;

/// From a request to the check that follows it: a burst is checked after a moment, not at each of its requests.
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// While requests go on and on, that moment doubles up to this: each that ends frees a connection as a check does.
const LONGEST_BURST_PAUSE: Duration = Duration::from_millis(40);

/// What is asked for.
pub(super) const TARGET: &str = "/healthz";

/// Longer than a healthy server ever needs for its own small answer.
const LIMIT: Duration = Duration::from_secs(5);

/// It beats every few seconds, and each of its checks ends within [`LIMIT`] or two.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Checks sent at once.
const MAX_CHECKS: u64 = 16;

/// Checks that wait for an answer.
pub(super) const MAX_WAITING: usize = 64;

/// A check that is not answered in this time is taken for one that was left unread, and more are sent after it. The
/// time doubles whenever those have freed no connection.
const FIRST_PATIENCE: Duration = Duration::from_millis(20);

/// What the self-check goes by.
pub(super) struct Signs<'a> {
    /// Tells of a request, or of connections that have asked for nothing: they may have been left unread.
    pub(super) came: &'a Receiver<()>,
    /// Connections, at the last look, that were reset before anybody had read them.
    pub(super) unread: &'a AtomicUsize,
    /// Connections that asked for something so far, the checks among them.
    pub(super) opened: &'a dyn Fn() -> u64,
}

/// Asks every few seconds, several times in `accept_timeout`, and a moment after each sign that there are connections,
/// until `stop` is closed. Counts the times that there was an answer, and logs when there is none.
pub(super) fn run(
    server: SocketAddr,
    accept_timeout: Duration,
    signs: &Signs<'_>,
    reserve: &Reserve,
    answers: &AtomicU64,
    heartbeat: &Heartbeat,
    stop: &Receiver<()>,
) {
    let mut failed_since: Option<Instant> = None;
    let interval = INTERVAL.min(accept_timeout / CHECKS_A_TIMEOUT);
    let (mut burst_pause, mut checked) = (BURST_PAUSE, Instant::now());
    loop {
        heartbeat.beat();
        crossbeam_channel::select! {
            recv(stop) -> _ => return,
            recv(signs.came) -> _ => {
                let goes_on = checked.elapsed() < LONGEST_BURST_PAUSE;
                burst_pause = if goes_on { (2 * burst_pause).min(LONGEST_BURST_PAUSE) } else { BURST_PAUSE };
                if stop.recv_timeout(burst_pause).is_err_and(|error| error.is_disconnected()) {
                    return;
                }
            }
            default(interval) => {}
        }
        checked = Instant::now();
        let unread = signs.unread.swap(0, Ordering::Relaxed) as u64;
        match check(server, unread, signs.opened, reserve) {
            Ok(()) => {
                answers.fetch_add(1, Ordering::Relaxed);
                if let Some(since) = failed_since.take() {
                    log::info!("The server answers again after {} s", since.elapsed().as_secs());
                }
            }
            Err(error) if failed_since.is_none() => {
                failed_since = Some(Instant::now());
                log::error!("The server does not answer on its own port: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Sends so many checks at once, but at least one, and waits until all are answered. While they are not, it sends twice
/// as many more as connections have asked for something meanwhile (`opened`): so many were freed by those before.
///
/// # Errors
///
/// When one is not answered well, or not in time.
fn check(server: SocketAddr, count: u64, opened: &dyn Fn() -> u64, reserve: &Reserve) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut patience = FIRST_PATIENCE;
    let mut waiting = VecDeque::new();
    let mut more = count;
    loop {
        for _ in 0..more.clamp(1, MAX_CHECKS) {
            if waiting.len() < MAX_WAITING {
                waiting.push_back(reserve.lend(|| ask(server, LIMIT))?);
            }
        }
        let opened_before = opened();
        while let Some(stream) = waiting.front_mut() {
            let left = deadline.saturating_duration_since(Instant::now()).min(patience);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match hear(stream) {
                Err(error) if is_time_out(&error) => break,
                heard => heard?,
            }
            waiting.pop_front();
        }
        if waiting.is_empty() {
            return Ok(());
        }
        waiting.rotate_left(1);
        more = 2 * opened().saturating_sub(opened_before);
        if more == 0 {
            patience *= 2;
        }
    }
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Sends one check.
///
/// # Errors
///
/// When the server cannot be reached in time.
pub(super) fn ask(server: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_write_timeout(Some(limit))?;
    let request = format!("GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// Reads the beginning of an answer; it comes in one piece.
fn hear(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if &head == b"HTTP/1.1 200" { Ok(()) } else { Err(io::Error::other("it says that it is not well")) }
}
