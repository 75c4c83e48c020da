//! The clients: most of them throw their bytes away in the kernel, a few read and judge every packet.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acerelay::sim::{Checker, Report};
use acerelay::threads::{SMALL_STACK_BYTES, Threads};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use crate::Error;

/// How often the clients that throw away are looked after; their sockets hold more than comes in this time.
const EMPTY_INTERVAL: Duration = Duration::from_millis(20);

/// A house switches on; how a proxy takes a rush is measured by the joins.
const CONNECTED_AT_ONCE: usize = 50;

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
    is_measured: Arc<AtomicBool>,
    verdicts: Receiver<Verdict>,
    judges: usize,
}

/// What the judges of a crowd say.
pub(crate) struct Verdict {
    /// The packets of the measurement.
    pub(crate) report: Report,
    /// Those before it.
    before: Report,
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
        let (tell, verdicts) = crossbeam_channel::bounded(judges);
        let (bytes, is_measured) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let threads = Threads::new();
        for _ in 0..judges {
            let stream = ask(address, path)?;
            let (tell, stopped) = (tell.clone(), stopped.clone());
            let (bytes, is_measured) = (Arc::clone(&bytes), Arc::clone(&is_measured));
            let judge = move || {
                let verdict = judge(stream, &stopped, &bytes, &is_measured);
                // Full only if nobody listens any more.
                let _told = tell.try_send(verdict);
            };
            threads.spawn("judge", SMALL_STACK_BYTES, judge)?;
        }
        let (give, others) = crossbeam_channel::bounded(CONNECTED_AT_ONCE);
        let counted = Arc::clone(&bytes);
        threads.spawn("throw-away", SMALL_STACK_BYTES, move || throw_away(&others, &stopped, &counted))?;
        let mut missing = count - judges;
        while missing > 0 {
            let batch = CONNECTED_AT_ONCE.min(missing);
            missing -= batch;
            let batch: Vec<_> = (0..batch).map(|_| ask(address, path)).collect::<Result<_, _>>()?;
            for stream in batch {
                // The stream has begun.
                stream.peek(&mut [0])?;
                stream.set_nonblocking(true)?;
                give.send(stream)?;
            }
        }
        Ok(Self { threads, stop, bytes, is_measured, verdicts, judges })
    }

    /// From now on it counts how late packets are, and how long it is silent.
    pub(crate) fn measure(&self) {
        self.is_measured.store(true, Ordering::Relaxed);
    }

    /// Bytes that arrived at all clients together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends all clients; what the judges say, together.
    pub(crate) fn finish(self) -> Result<Verdict, Error> {
        drop(self.stop);
        let mut all =
            Verdict { report: Report::default(), before: Report::default(), longest_silence: Duration::ZERO };
        for _ in 0..self.judges {
            let verdict = self.verdicts.recv_timeout(Duration::from_secs(30))?;
            for report in [&verdict.before, &verdict.report] {
                // At full speed a client may be moved ahead because others are faster; that is told, and nothing else is
                // lost.
                if report.gap_count > report.announced_breaks || report.doubles + report.damaged > 0 {
                    return Err(format!("a client saw a broken stream: {report:?}").into());
                }
            }
            all.report.latency.merge(&verdict.report.latency);
            all.longest_silence = all.longest_silence.max(verdict.longest_silence);
        }
        self.threads.join_all(Instant::now() + Duration::from_secs(30))?;
        Ok(all)
    }
}

fn judge(
    mut stream: TcpStream,
    stopped: &Receiver<()>,
    bytes: &AtomicU64,
    is_measured: &AtomicBool,
) -> Verdict {
    let mut checker = Checker::new();
    let mut before = None;
    let mut buffer = vec![0; 256 * 1024];
    let mut head: Option<Vec<u8>> = Some(Vec::new());
    let mut last = Instant::now();
    let mut longest_silence = Duration::ZERO;
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
        }
        if before.is_none() && is_measured.load(Ordering::Relaxed) {
            before = Some(std::mem::take(&mut checker).finish());
            last = Instant::now();
            longest_silence = Duration::ZERO;
        }
        longest_silence = longest_silence.max(last.elapsed());
        last = Instant::now();
        checker.feed(body);
    }
    let report = checker.report().clone();
    Verdict { report, before: before.unwrap_or_default(), longest_silence }
}

fn throw_away(new: &Receiver<TcpStream>, stopped: &Receiver<()>, bytes: &AtomicU64) {
    let mut clients = Vec::new();
    // The kernel drops the bytes (MSG_TRUNC on TCP) and never touches this; it only says how many there may be.
    let mut nothing = vec![MaybeUninit::uninit(); 1 << 20];
    loop {
        let began = Instant::now();
        let mut got = 0;
        clients.extend(new.try_iter());
        for client in &clients {
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

/// Bytes of each joiner that are looked at: tables, and the begin of a picture.
const JUDGED_BYTES: usize = 64 * 1024;

/// Joins a running stream so many times at once: when the first byte of each body came after its request, and how many
/// began with tables and a keyframe. One thread that waits for all sockets, as if the clients were other machines:
/// threads of theirs would take the processors from what is measured.
pub(crate) fn join_at_once(
    address: SocketAddr,
    path: &str,
    count: usize,
) -> Result<(Vec<Duration>, usize), Error> {
    let (mut waiting, mut begun) = (Vec::new(), Vec::new());
    while begun.len() < count {
        let are_all_there = waiting.len() + begun.len() == count;
        if !are_all_there {
            waiting.push(Joiner::ask(address, path)?);
        }
        // Until all are there, this is a look in between.
        let patience = Timespec { tv_sec: if are_all_there { 20 } else { 0 }, tv_nsec: 0 };
        let mut polled: Vec<_> =
            waiting.iter().map(|joiner| PollFd::new(&joiner.stream, PollFlags::IN)).collect();
        let ready = poll(&mut polled, Some(&patience))?;
        if ready == 0 && are_all_there {
            return Err("a joiner was forgotten".into());
        }
        let mut is_ready: VecDeque<_> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        for joiner in waiting.extract_if(.., |_| is_ready.pop_front().unwrap_or(false)).collect::<Vec<_>>() {
            let joiner = joiner.read()?;
            if joiner.first.is_some() { begun.push(joiner) } else { waiting.push(joiner) }
        }
    }
    let firsts = begun.iter().filter_map(|joiner| joiner.first).collect();
    let judged: Vec<_> = begun.into_iter().map(Joiner::begins_well).collect::<Result<_, _>>()?;
    Ok((firsts, judged.into_iter().filter(|is_good| *is_good).count()))
}

/// A client that joins.
struct Joiner {
    stream: TcpStream,
    asked: Instant,
    /// From the head on.
    bytes: Vec<u8>,
    first: Option<Duration>,
}

impl Joiner {
    fn ask(address: SocketAddr, path: &str) -> Result<Self, Error> {
        let asked = Instant::now();
        Ok(Self { stream: ask(address, path)?, asked, bytes: Vec::new(), first: None })
    }

    /// Reads a little of what is there.
    fn read(mut self) -> Result<Self, Error> {
        let mut buffer = [0; 1024];
        let read = self.stream.read(&mut buffer)?;
        if read == 0 {
            return Err("the stream ended".into());
        }
        self.bytes.extend_from_slice(&buffer[..read]);
        if self.body().is_some_and(|body| !body.is_empty()) {
            self.first = Some(self.asked.elapsed());
        }
        Ok(self)
    }

    fn body(&self) -> Option<&[u8]> {
        let end_of_head = self.bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(&self.bytes[end_of_head + 4..])
    }

    /// Whether it begins with tables and a keyframe.
    fn begins_well(mut self) -> Result<bool, Error> {
        while self.bytes.len() < JUDGED_BYTES {
            self = self.read()?;
        }
        let body = self.body().unwrap_or_default();
        let mut checker = Checker::new();
        checker.feed(body);
        let report = checker.report();
        let has_tables = body.get(1..3) == Some(&[0x40, 0]) && report.psi_packets >= 2;
        Ok(has_tables && report.begins_with_key_frame)
    }
}
