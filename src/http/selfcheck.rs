//! The server asks itself, as a client would, whether it is well.
//!
//! That is more than a check. The steady stream of connections keeps `tiny_http`'s `accept` from timing out, and the end
//! of each frees one connection that was left unread in a burst, whose request brings on the next check. One that was
//! reset meanwhile brings on none, and may even end the thread that reads it by a panic; so there are as many checks more
//! as there are of these.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::socket::Reserve;

/// How often the server asks itself for an answer. An `accept` that waits longer than the sockets' read timeout fails,
/// so this must stay well below it.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// From a request to the check that follows it: a burst is checked after a moment, not at each of its requests.
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// What is asked for.
pub(super) const TARGET: &str = "/healthz";

/// Longer than a healthy server ever needs for its own small answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks every second, a moment after `came` tells of a request, and as long as there are `unread` connections, until
/// `stop` is closed. Counts the answers, and logs when there is none.
pub(super) fn run(
    server: SocketAddr,
    came: &Receiver<()>,
    unread: &AtomicUsize,
    reserve: &Reserve,
    answers: &AtomicU64,
    stop: &Receiver<()>,
) {
    let mut failed_since: Option<Instant> = None;
    loop {
        let less = |count: usize| count.checked_sub(1);
        let has_unread = unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        let pause = if has_unread { Duration::ZERO } else { INTERVAL };
        crossbeam_channel::select! {
            recv(stop) -> _ => return,
            recv(came) -> _ => {
                if stop.recv_timeout(BURST_PAUSE).is_err_and(|error| error.is_disconnected()) {
                    return;
                }
            }
            default(pause) => {}
        }
        match reserve.lend(|| TcpStream::connect_timeout(&server, LIMIT)).and_then(ask) {
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

fn ask(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let request = format!("GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if &head == b"HTTP/1.1 200" { Ok(()) } else { Err(io::Error::other("it says that it is not well")) }
}
