//! One measurement: so many clients, at this rate, of this target.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use acerelay::id::Digest;
use acerelay::sim::{Content, Delivery, Media, Numbered, SimEngine};

use crate::Error;
use crate::clients::{Crowd, Verdict, ask, join_at_once};
use crate::process::{Server, Usage};

/// The content that everybody watches.
pub(crate) const ID: Digest = Digest::new([0xab; 20]);

/// Clients whose every packet is looked at.
const JUDGES: usize = 4;

/// Until everybody is connected, and the backlog is through.
const WARM_UP: Duration = Duration::from_secs(3);

const MEASURED: Duration = Duration::from_secs(5);

/// A few clients take a hundredth of a second of CPU time in a second, which is as much as the kernel tells apart.
const MEASURED_FOR_FEW: Duration = Duration::from_secs(20);

/// So many are no longer few.
const FEW: usize = 100;

/// Who serves.
pub(crate) enum Target {
    /// This build of acerelay.
    Proxy(PathBuf),
    Floor,
    Rival(String),
}

impl Target {
    /// The build that the benchmark comes with.
    pub(crate) fn ours() -> Self {
        Self::Proxy(env!("CARGO_BIN_EXE_acerelay").into())
    }
}

/// So many clients, `still` of which take nothing, at this rate; `None` is as fast as it goes.
pub(crate) struct Case {
    pub(crate) clients: usize,
    pub(crate) still: usize,
    pub(crate) bits_per_second: Option<u64>,
}

/// What was measured.
pub(crate) struct Outcome {
    bytes: u64,
    elapsed: Duration,
    used: Usage,
    verdict: Verdict,
}

impl Case {
    pub(crate) fn engine(&self) -> Result<SimEngine, Error> {
        let engine = SimEngine::start("127.0.0.1:0".parse()?)?;
        let shape = Numbered::at_rate(self.bits_per_second.unwrap_or(50_000_000));
        // Whole packets in a write: a packet cut in two would count as late.
        let write_bytes = vec![if self.bits_per_second.is_some() { 7 * 188 } else { 348 * 188 }];
        let delivery = match self.bits_per_second {
            Some(_) => Delivery { skip_bytes: 0, write_bytes, ..Delivery::default() },
            None => Delivery { write_bytes, ..Delivery::unlimited() },
        };
        engine.add(Content::live(ID, Digest::new([0xcd; 20]), Media::Numbered(shape)).delivery(delivery));
        Ok(engine)
    }

    pub(crate) fn measure(&self, target: &Target) -> Result<Outcome, Error> {
        let engine = self.engine()?;
        let server = start(target, engine.addr())?;
        let (address, path) = match (&server, target) {
            (Some(server), _) => (server.address, format!("/ace/getstream?id={ID}")),
            (None, Target::Rival(url)) => split(url)?,
            (None, _) => return Err("there is nothing to measure".into()),
        };
        let judges = JUDGES.min(self.clients - self.still);
        // They are there for the whole of the measurement, and end with it.
        let still: Vec<_> = (0..self.still).map(|_| ask(address, &path)).collect::<Result<_, _>>()?;
        let crowd = Crowd::connect(address, &path, self.clients - self.still, judges)?;
        wait(WARM_UP);
        crowd.measure();
        let (bytes, usage, began) = (crowd.bytes(), usage(server.as_ref())?, Instant::now());
        wait(if self.clients < FEW { MEASURED_FOR_FEW } else { MEASURED });
        let (bytes_after, usage_after, elapsed) =
            (crowd.bytes(), self::usage(server.as_ref())?, began.elapsed());
        let verdict = crowd.finish()?;
        drop(still);
        let used = Usage {
            cpu_s: usage_after.cpu_s - usage.cpu_s,
            switches: usage_after.switches - usage.switches,
            ..usage_after
        };
        Ok(Outcome { bytes: bytes_after - bytes, elapsed, used, verdict })
    }
}

impl Outcome {
    pub(crate) const HEADING: &str = "clients  still  who        MB/s   CPU s/GB  x floor  p50 ms  p99 ms  silence ms  RSS MB  threads  switches/s";

    fn cpu_s_per_gb(&self) -> f64 {
        self.used.cpu_s / (self.bytes as f64 / 1e9)
    }

    pub(crate) fn row(&self, name: &str, case: &Case, floor: Option<&Self>) -> String {
        let seconds = self.elapsed.as_secs_f64();
        let ratio = floor.map_or_else(
            || "-".to_owned(),
            |floor| format!("{:.2}", self.cpu_s_per_gb() / floor.cpu_s_per_gb()),
        );
        let latency = &self.verdict.report.latency;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let mut row = String::new();
        // Writing to a text cannot fail.
        let _infallible = write!(
            row,
            "{:>7}  {:>5}  {name:<9} {:>6.1}  {:>9.3}  {ratio:>7}  {:>6.1}  {:>6.1}  {:>10.0}  {:>6.1}  {:>7}  {:>10.0}",
            case.clients,
            case.still,
            self.bytes as f64 / 1e6 / seconds,
            self.cpu_s_per_gb(),
            ms(latency.quantile(0.5)),
            ms(latency.quantile(0.99)),
            ms(self.verdict.longest_silence),
            self.used.rss_kb as f64 / 1024.0,
            self.used.threads,
            self.used.switches as f64 / seconds,
        );
        row
    }
}

/// First bytes of 100 clients that join at once, and how many of them began with tables and a keyframe.
pub(crate) fn join_storm(target: &Target) -> Result<String, Error> {
    const JOINERS: usize = 100;
    let case = Case { clients: 1, still: 0, bits_per_second: Some(8_000_000) };
    let engine = case.engine()?;
    let server = start(target, engine.addr())?.ok_or("it was started")?;
    let path = format!("/ace/getstream?id={ID}");
    let crowd = Crowd::connect(server.address, &path, 1, 1)?;
    wait(WARM_UP);
    let (mut firsts, good) = join_at_once(server.address, &path, JOINERS)?;
    firsts.sort();
    let _verdict = crowd.finish()?;
    let ms = |index: usize| firsts[index].as_secs_f64() * 1000.0;
    Ok(format!(
        "first byte: p50 {:.2} ms, p99 {:.2} ms; {good} of {JOINERS} at tables and keyframe",
        ms(49),
        ms(98)
    ))
}

pub(crate) fn start(target: &Target, engine: SocketAddr) -> Result<Option<Server>, Error> {
    let mut command = match target {
        Target::Proxy(program) => {
            let mut command = Command::new(program);
            command.args(["--listen", "127.0.0.1:0", "--log-level", "error", "--config", CONFIG]);
            command.args(["--engine", &engine.to_string()]);
            command
        }
        Target::Floor => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--floor", &engine.to_string()]);
            command
        }
        Target::Rival(_) => return Ok(None),
    };
    Server::start(&mut command).map(Some)
}

/// More clients than the defaults allow.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/config.toml");

fn usage(server: Option<&Server>) -> Result<Usage, Error> {
    server.map_or_else(|| Ok(Usage::default()), Server::usage)
}

fn split(url: &str) -> Result<(SocketAddr, String), Error> {
    let rest = url.strip_prefix("http://").ok_or("a URL begins with http://")?;
    let (authority, path) = rest.split_at(rest.find('/').ok_or("a URL has a path")?);
    Ok((authority.parse()?, path.to_owned()))
}

/// Nothing can happen meanwhile that would make waiting on senseless.
pub(crate) fn wait(time: Duration) {
    let _timed_out = crossbeam_channel::never::<()>().recv_timeout(time);
}
