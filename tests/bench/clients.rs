//! The clients: most of them throw their bytes away in the kernel, a few read and judge every packet.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acerelay::sim::{Checker, Report};
use acerelay::threads::{SMALL_STACK_BYTES, Threads};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use socket2::SockRef;

use crate::Error;

/// How often the clients that throw away are looked after; their sockets hold more than comes in this time.
const EMPTY_INTERVAL: Duration = Duration::from_millis(20);

/// HTTP/1.0, so that the body is the stream itself.
pub(crate) fn ask(address: SocketAddr, path: &str) -> Result<TcpStream, Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// A crowd of clients on one stream.
pub(crate) struct Crowd {
    threads: Threads,
    stop: Sender<()>,
    bytes: Arc<AtomicU64>,
    reports: Receiver<(Report, Duration)>,
    judges: usize,
}

/// What became of a crowd.
pub(crate) struct Verdict {
    pub(crate) report: Report,
    pub(crate) longest_silence: Duration,
}

impl Crowd {
    /// Connects so many clients, a few of which judge.
    pub(crate) fn connect(
        address: SocketAddr,
        path: &str,
        count: usize,
        judges: usize,
    ) -> Result<Self, Error> {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let (tell, reports) = crossbeam_channel::bounded(judges);
        let bytes = Arc::new(AtomicU64::new(0));
        let threads = Threads::new();
        for _ in 0..judges {
            let stream = ask(address, path)?;
            let (tell, stopped, bytes) = (tell.clone(), stopped.clone(), Arc::clone(&bytes));
            threads.spawn("judge", SMALL_STACK_BYTES, move || judge(stream, &tell, &stopped, &bytes))?;
        }
        let mut others = Vec::new();
        for _ in judges..count {
            let stream = ask(address, path)?;
            stream.set_nonblocking(true)?;
            others.push(stream);
        }
        let counted = Arc::clone(&bytes);
        threads.spawn("throw-away", SMALL_STACK_BYTES, move || throw_away(&others, &stopped, &counted))?;
        Ok(Self { threads, stop, bytes, reports, judges })
    }

    /// Bytes that arrived at all clients together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends all clients; what the judges say, together.
    pub(crate) fn finish(self) -> Result<Verdict, Error> {
        drop(self.stop);
        let mut verdict = Verdict { report: Report::default(), longest_silence: Duration::ZERO };
        for _ in 0..self.judges {
            let (report, silence) = self.reports.recv_timeout(Duration::from_secs(30))?;
            // At full speed a client may be moved ahead because others are faster; that is told, and nothing else is lost.
            if report.gap_count > report.announced_breaks || report.doubles + report.damaged > 0 {
                return Err(format!("a client saw a broken stream: {report:?}").into());
            }
            verdict.report.latency.merge(&report.latency);
            verdict.longest_silence = verdict.longest_silence.max(silence);
        }
        self.threads.join_all(Instant::now() + Duration::from_secs(30))?;
        Ok(verdict)
    }
}

fn judge(
    mut stream: TcpStream,
    tell: &Sender<(Report, Duration)>,
    stopped: &Receiver<()>,
    bytes: &AtomicU64,
) {
    let mut checker = Checker::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut head: Option<Vec<u8>> = Some(Vec::new());
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    while stopped.try_recv().is_err_and(|error| error.is_empty()) {
        let Ok(read @ 1..) = stream.read(&mut buffer) else { break };
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        let mut body = &buffer[..read];
        if let Some(text) = &mut head {
            text.extend_from_slice(body);
            let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            checker.feed(&text[end + 4..]);
            body = &[];
            head = None;
            // The backlog was sent before these were live; only what is live from here on is judged by its age.
            last = Instant::now();
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
        checker.feed(body);
    }
    // Full only if nobody listens any more.
    let _told = tell.try_send((checker.report().clone(), longest));
}

fn throw_away(clients: &[TcpStream], stopped: &Receiver<()>, bytes: &AtomicU64) {
    // The kernel drops the bytes (MSG_TRUNC on TCP) and never touches this; it only says how many there may be.
    let mut nothing = vec![MaybeUninit::uninit(); 1 << 20];
    loop {
        let began = Instant::now();
        let mut got = 0;
        for client in clients {
            if let Ok(read) = SockRef::from(client).recv_with_flags(&mut nothing, libc::MSG_TRUNC) {
                got += read as u64;
            }
        }
        bytes.fetch_add(got, Ordering::Relaxed);
        // At full speed the sockets fill faster than this.
        let is_busy = got > clients.len() as u64 * 200_000;
        let pause = if is_busy { Duration::ZERO } else { EMPTY_INTERVAL.saturating_sub(began.elapsed()) };
        if stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// A client that joins a running stream: when the first byte of its body came, and whether that began with a keyframe.
pub(crate) fn join_once(address: SocketAddr, path: &str) -> Result<(Duration, bool), Error> {
    let began = Instant::now();
    let mut stream = ask(address, path)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut first = None;
    while bytes.len() < 64 * 1024 {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err("the stream ended".into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        if first.is_none()
            && let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n")
            && bytes.len() > end + 4
        {
            first = Some(began.elapsed());
            bytes.drain(..end + 4);
        }
    }
    let mut checker = Checker::new();
    checker.feed(&bytes);
    let report = checker.report();
    let has_tables = bytes.get(1..3) == Some(&[0x40, 0]) && report.psi_packets >= 2;
    Ok((first.ok_or("no body")?, has_tables && report.begins_with_key_frame))
}
