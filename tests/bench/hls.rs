//! Viewers by HLS: what they cost beside as many clients of one endless stream, and how long they wait.
//!
//! Each viewer is a thread with one kept connection, as players have: it asks for its list every three seconds, and for each
//! segment once, whose bytes the kernel throws away. A few judges of the endless stream watch beside them.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use acerelay::threads::{SMALL_STACK_BYTES, Threads};
use crossbeam_channel::{Receiver, Sender};
use socket2::SockRef;

use crate::Error;
use crate::case::{Case, ID, Target, start, wait};
use crate::clients::Crowd;

/// Until everybody has a list, and has caught up with it.
const WARM_UP: Duration = Duration::from_secs(12);

/// Several segments.
const MEASURED: Duration = Duration::from_secs(15);

/// A list is asked for so often.
const POLL: Duration = Duration::from_secs(3);

/// What one viewer saw.
#[derive(Default)]
struct Seen {
    lists: Vec<Duration>,
    first_bytes: Vec<Duration>,
    bytes: u64,
}

/// One viewer's connection.
struct Connection {
    stream: TcpStream,
    address: SocketAddr,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address })
    }

    /// Asks and reads the head: what came of the body with it, its length, and when the first byte came.
    fn ask(&mut self, path: &str) -> Result<(Vec<u8>, usize, Duration), Error> {
        let began = Instant::now();
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)?;
        let (mut bytes, mut first) = (Vec::new(), None);
        let mut buffer = [0; 2048];
        loop {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Err(format!("{path}: the connection ended").into());
            }
            first.get_or_insert_with(|| began.elapsed());
            bytes.extend_from_slice(&buffer[..read]);
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                if !head.starts_with("HTTP/1.1 200") {
                    return Err(format!("{path}: {head}").into());
                }
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let length = length.ok_or("a body has a length")?.parse()?;
                return Ok((bytes.split_off(end + 4), length, first.unwrap_or_default()));
            }
        }
    }

    fn text(&mut self, path: &str) -> Result<(String, Duration), Error> {
        let (mut body, length, first) = self.ask(path)?;
        let had = body.len();
        body.resize(length, 0);
        self.stream.read_exact(&mut body[had..])?;
        Ok((String::from_utf8(body)?, first))
    }

    fn throw_away(&mut self, path: &str) -> Result<(usize, Duration), Error> {
        let (body, length, first) = self.ask(path)?;
        let mut left = length - body.len();
        let mut nothing = vec![MaybeUninit::uninit(); 1 << 20];
        while left > 0 {
            let at_most = left.min(nothing.len());
            let read =
                SockRef::from(&self.stream).recv_with_flags(&mut nothing[..at_most], libc::MSG_TRUNC)?;
            if read == 0 {
                return Err("a segment was cut off".into());
            }
            left -= read;
        }
        Ok((length, first))
    }
}

fn uri(list: &str) -> Option<&str> {
    list.lines().rfind(|line| !line.starts_with('#') && !line.is_empty())
}

/// Watches until `stopped` is closed; what is seen from `measured` on counts.
fn watch(address: SocketAddr, list: &str, stopped: &Receiver<()>, measured: Instant) -> Result<Seen, Error> {
    let mut connection = Connection::open(address)?;
    let directory = list.rsplit_once('/').ok_or("an absolute path")?.0;
    let mut seen = Seen::default();
    let mut last = String::new();
    loop {
        let (text, first) = connection.text(list)?;
        let counts = Instant::now() >= measured;
        if counts {
            seen.lists.push(first);
        }
        let uris: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let new = uris.iter().position(|uri| *uri == last).map_or(uris.len().saturating_sub(3), |at| at + 1);
        for uri in &uris[new..] {
            let (bytes, first) = connection.throw_away(&format!("{directory}/{uri}"))?;
            if counts {
                seen.first_bytes.push(first);
                seen.bytes += bytes as u64;
            }
            last = (*uri).to_owned();
        }
        if stopped.recv_timeout(POLL).is_err_and(|error| error.is_disconnected()) {
            return Ok(seen);
        }
    }
}

/// The list of a new viewer.
fn enter(address: SocketAddr, number: usize) -> Result<String, Error> {
    let mut connection = Connection::open(address)?;
    let (text, _) = connection.text(&format!("/ace/manifest.m3u8?id={ID}&n={number}"))?;
    let uri = uri(&text).ok_or("a first list names a second")?;
    let path = uri.strip_prefix("..").ok_or("relative to the directory above")?.to_owned();
    // Who has asked for its list is its own viewer.
    connection.text(&path)?;
    Ok(path)
}

fn backlog_bytes(address: SocketAddr) -> Result<u64, Error> {
    let (text, _) = Connection::open(address)?.text("/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix("acerelay_backlog_bytes "));
    Ok(value.ok_or("the metric is there")?.parse()?)
}

/// So many viewers by HLS, with so many judges of the endless stream beside them.
pub(crate) fn viewers(count: usize, judges: usize) -> Result<String, Error> {
    let case = Case { clients: 1, still: 0, bits_per_second: Some(8_000_000) };
    let engine = case.engine()?;
    let server = start(&Target::ours(), engine.addr())?.ok_or("it was started")?;
    let path = format!("/ace/getstream?id={ID}");
    let crowd = Crowd::connect(server.address, &path, judges, judges)?;
    let beside = |rss_kb: u64, backlog: u64| rss_kb as f64 - backlog as f64 / 1024.0;
    wait(Duration::from_secs(2));
    let before = beside(server.usage()?.rss_kb, backlog_bytes(server.address)?);

    let (stop, stopped): (Sender<()>, _) = crossbeam_channel::bounded(0);
    let (give, take) = crossbeam_channel::bounded(count);
    let threads = Threads::new();
    let measured = Instant::now() + WARM_UP;
    for number in 0..count {
        let list = enter(server.address, number)?;
        let (stopped, give, address) = (stopped.clone(), give.clone(), server.address);
        let body = move || {
            let seen = watch(address, &list, &stopped, measured).map_err(|error| error.to_string());
            // There is room for each.
            let _given = give.try_send(seen);
        };
        threads.spawn("viewer", SMALL_STACK_BYTES, body)?;
    }
    wait(measured.saturating_duration_since(Instant::now()));
    crowd.measure();
    let (usage, of_judges, began) = (server.usage()?, crowd.bytes(), Instant::now());
    wait(MEASURED);
    let (after, of_judges) = (server.usage()?, crowd.bytes() - of_judges);
    let seconds = began.elapsed().as_secs_f64();
    let memory = beside(after.rss_kb, backlog_bytes(server.address)?);
    drop(stop);
    let mut all = Seen::default();
    for _ in 0..count {
        let seen = take.recv_timeout(Duration::from_secs(30))??;
        all.lists.extend(seen.lists);
        all.first_bytes.extend(seen.first_bytes);
        all.bytes += seen.bytes;
    }
    // Gaps of a judge are an error.
    let verdict = crowd.finish()?;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let quantile = |times: &mut Vec<Duration>, of: f64| {
        times.sort();
        let index = (times.len() as f64 * of) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(f64::NAN, |time| ms(*time))
    };
    let bytes = (all.bytes + of_judges) as f64;
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _infallible = write!(
        text,
        "{count:>7}  {:>6.1} MB/s  {:>6.3} CPU s/GB  list p50 {:.1} p99 {:.1} ms  first byte p50 {:.1} p99 {:.1} ms  \
         {:.0} kB a viewer beside the backlog  {} threads; {judges} judges: p50 {:.1} p99 {:.1} ms, no gap",
        bytes / 1e6 / seconds,
        (after.cpu_s - usage.cpu_s) / (bytes / 1e9),
        quantile(&mut all.lists, 0.5),
        quantile(&mut all.lists, 0.99),
        quantile(&mut all.first_bytes, 0.5),
        quantile(&mut all.first_bytes, 0.99),
        (memory - before) / count.max(1) as f64,
        after.threads,
        ms(verdict.report.latency.quantile(0.5)),
        ms(verdict.report.latency.quantile(0.99)),
    );
    Ok(text)
}
