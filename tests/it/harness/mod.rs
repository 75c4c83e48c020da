//! What the tests stand on: a real proxy on a free port, simulated engines, and a bare HTTP client.
//!
//! Nothing here sleeps and hopes: a test waits for an event of an engine, for bytes, or for `/proxy/status` to say so,
//! always with a deadline far longer than it takes.

mod bare;
mod http;
mod program;
mod viewer;

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use acerelay::app::App;
use acerelay::config::{self, Config};
use acerelay::id::Digest;
use acerelay::sim::{Begin, Content, Delivery, Media, Numbered, Script, SimEngine};
use acerelay::threads::Threads;
use serde_json::Value;

pub(crate) use self::bare::BareServer;
pub(crate) use self::http::{Connection, End, Reply, reset};
pub(crate) use self::program::{Running, Usage, alone_in_a_process, command, directory, is_alone, under};
pub(crate) use self::viewer::{Bystander, Viewer, assert_seamed, assert_whole};

/// Far longer than anything here takes, on a machine however busy.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// What an answer may take beyond the limit that it waits for: the housekeeper's rhythm, and a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

/// The content that a test is about.
pub(crate) const ID: Digest = Digest::new([0xab; 20]);
pub(crate) const INFOHASH: Digest = Digest::new([0x22; 20]);

/// Another content, that is to go on undisturbed.
pub(crate) const OTHER_ID: Digest = Digest::new([0xcd; 20]);
pub(crate) const OTHER_INFOHASH: Digest = Digest::new([0x44; 20]);

/// Room for JSON in a debug build.
pub(crate) const STACK_BYTES: usize = 512 * 1024;

/// How often the status is asked for while waiting for it.
const LOOK: Duration = Duration::from_millis(20);

/// An engine without content.
pub(crate) fn empty_engine() -> SimEngine {
    SimEngine::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port and a thread")
}

/// An engine with two broadcasts, the first of them with this script.
pub(crate) fn scripted(script: Script) -> SimEngine {
    let engine = empty_engine();
    engine.add(broadcast(ID, INFOHASH).script(script));
    engine.add(broadcast(OTHER_ID, OTHER_INFOHASH));
    engine
}

/// An engine with two broadcasts in good health.
pub(crate) fn engine() -> SimEngine {
    scripted(Script::new())
}

/// An engine with this content.
pub(crate) fn engine_with(content: Content) -> SimEngine {
    let engine = empty_engine();
    engine.add(content);
    engine
}

/// The content id of one of nine.
pub(crate) fn nth_id(number: u8) -> Digest {
    Digest::new([number; 20])
}

/// An engine that plays contents 1 to 9, with this script.
pub(crate) fn engine_of_nine(script: &Script) -> SimEngine {
    let engine = empty_engine();
    for number in 1..10 {
        engine.add(broadcast(nth_id(number), Digest::new([number | 0x80; 20])).script(script.clone()));
    }
    engine
}

/// An endless broadcast at its own pace, as awkward as an engine's: it begins in mid-packet, in odd writes.
pub(crate) fn broadcast(id: Digest, infohash: Digest) -> Content {
    Content::live(id, infohash, Media::Numbered(Numbered::at_rate(2_000_000)))
}

/// A broadcast of so many numbered packets, all of which every reader gets, as fast as they are taken.
pub(crate) fn short(packets: u64) -> Content {
    let media = Media::Numbered(Numbered::at_rate(2_000_000).end_after(packets));
    Content::live(ID, INFOHASH, media).delivery(whole())
}

/// From the first packet on, as fast as it is taken, in odd writes.
pub(crate) fn whole() -> Delivery {
    Delivery { write_bytes: vec![1391, 8191, 211, 4099], ..Delivery::unlimited() }
}

/// From the first packet on, at the stream's own pace.
pub(crate) fn whole_in_time() -> Delivery {
    Delivery { begin: Begin::Start, skip_bytes: 0, ..Delivery::default() }
}

/// The settings of a proxy in a test: limits that no test runs into unless it means to.
pub(crate) fn settings(engines: &[&SimEngine]) -> Config {
    let mut config = Config::default();
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.engines = engines
        .iter()
        .map(|engine| config::Engine::at(engine.addr().ip().into(), engine.addr().port()))
        .collect();
    config.health.interval = Duration::from_millis(300);
    config.stream.connect_timeout = LONG;
    config.stream.first_data_timeout = LONG;
    config.stream.stall_timeout = LONG;
    config.stream.linger = Duration::from_millis(200);
    // A lost source ends its stream; a test that is about recovery says so.
    config.stream.recover_timeout = Duration::ZERO;
    config.stream.abandon = LONG;
    config.stream.keepalive = None;
    config
}

/// A running proxy. Its end is part of every test: all its threads have to end in time.
pub(crate) struct Proxy {
    app: Option<App>,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// A proxy before these engines.
    pub(crate) fn start(engines: &[&SimEngine]) -> Self {
        Self::start_with(engines, |_| {})
    }

    /// A proxy before these engines, with other settings.
    pub(crate) fn start_with(engines: &[&SimEngine], change: impl FnOnce(&mut Config)) -> Self {
        let mut config = settings(engines);
        change(&mut config);
        let app = App::start(config, None).expect("a free port and some threads");
        Self { address: app.address(), app: Some(app) }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().expect("it is there until it is shut down")
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// The answer to a GET on a new connection.
    pub(crate) fn get(&self, target: &str) -> Reply {
        self.connect().get(target)
    }

    /// Asks for the stream of a content id, without waiting for the answer.
    pub(crate) fn ask(&self, id: Digest) -> Connection {
        let mut connection = self.connect();
        connection.send_get(&stream_path(id));
        connection
    }

    /// `/proxy/status`.
    pub(crate) fn status(&self) -> Value {
        let mut reply = self.get("/proxy/status");
        assert_eq!(reply.status, 200);
        reply.json()
    }

    /// The newest session of a content id in the status; null if there is none.
    pub(crate) fn session(&self, id: Digest) -> Value {
        session_of(&self.status(), id)
    }

    /// Waits until the status is so, and gives it.
    pub(crate) fn wait_status(&self, what: &str, mut is_met: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LONG;
        loop {
            let status = self.status();
            if is_met(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}: {status:#}");
            pause(LOOK);
        }
    }

    /// Waits until the newest session of a content id is so, and gives it.
    pub(crate) fn wait_session(
        &self,
        id: Digest,
        what: &str,
        mut is_met: impl FnMut(&Value) -> bool,
    ) -> Value {
        session_of(&self.wait_status(what, |status| is_met(&session_of(status, id))), id)
    }

    /// Waits until so many clients stream a content.
    pub(crate) fn wait_clients(&self, id: Digest, count: usize) {
        self.wait_session(id, &format!("{count} clients stream"), |session| session["client_count"] == count);
    }

    /// Waits until a content has no session that lives.
    pub(crate) fn wait_gone(&self, id: Digest) {
        self.wait_session(id, "it has ended", |session| session.is_null() || session["state"] == "stopped");
    }

    /// Ends it, and says how long that took.
    pub(crate) fn shutdown(mut self) -> Duration {
        let began = Instant::now();
        let app = self.app.take().expect("it is there until it is shut down");
        app.shutdown().expect("all its threads end in time");
        began.elapsed()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let Some(app) = self.app.take() else {
            return;
        };
        let outcome = app.shutdown();
        if !thread::panicking() {
            outcome.expect("all threads of the proxy end in time");
        }
    }
}

fn session_of(status: &Value, id: Digest) -> Value {
    let id = id.to_string();
    let sessions = status["sessions"].as_array().expect("a list of sessions");
    sessions.iter().find(|session| session["ace_id"] == id.as_str()).cloned().unwrap_or(Value::Null)
}

/// The path and query of a stream.
pub(crate) fn stream_path(id: Digest) -> String {
    format!("/ace/getstream?id={id}")
}

/// Lets time pass where it is time that a test is about, never to wait for something to happen.
pub(crate) fn pause(time: Duration) {
    let ended = crossbeam_channel::never::<()>().recv_timeout(time);
    assert!(ended.is_err(), "nobody sends");
}

/// Waits for an engine's counters.
pub(crate) fn wait_engine(
    engine: &SimEngine,
    what: &str,
    is_met: impl FnMut(&acerelay::sim::Counts) -> bool,
) {
    assert!(engine.wait_for(LONG, is_met), "waited in vain until {what}: {:?}", engine.counts());
}

/// Waits until every session that was opened was stopped, and holds that each was stopped once.
pub(crate) fn assert_all_stopped(engine: &SimEngine, sessions: u64) {
    wait_engine(engine, "all sessions are stopped", |counts| {
        counts.sessions_open == 0 && counts.readers == 0 && counts.getstreams_now == 0
    });
    let counts = engine.counts();
    assert_eq!((counts.sessions_opened, counts.stops), (sessions, sessions), "{counts:?}");
    assert_eq!((counts.sessions_stopped, counts.stops_unknown), (sessions, 0), "{counts:?}");
    assert_eq!((counts.sessions_leaked, counts.second_readers), (0, 0), "{counts:?}");
}

/// Does a job so many times at once, each on a thread of its own, and gives what came of them.
pub(crate) fn in_parallel<T, F>(count: usize, job: F) -> Vec<T>
where
    T: Send + 'static,
    F: Fn(usize) -> T + Clone + Send + 'static,
{
    let threads = Threads::new();
    let (give, take) = crossbeam_channel::bounded(count);
    for number in 0..count {
        let (job, give) = (job.clone(), give.clone());
        let body = move || drop(give.send(job(number)));
        threads.spawn(&format!("test-{number}"), STACK_BYTES, body).expect("a thread");
    }
    drop(give);
    let results = (0..count).map(|_| take.recv_timeout(2 * LONG).expect("every thread comes to its end"));
    results.collect()
}
