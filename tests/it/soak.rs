//! Many streams for a long time, on engines of which one is in trouble every minute: nobody's connection is closed, every
//! session that was opened is stopped, and the memory stays as it is.
//!
//! Ignored by itself, since it takes as long as it is told to:
//!
//! ```text
//! ACERELAY_SOAK_S=3600 cargo test --test it soak -- --ignored --nocapture
//! ```

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acerelay::id::Digest;
use acerelay::sim::{Content, Media, Numbered, SimEngine, Stuck};
use acerelay::threads::Threads;
use serde_json::Value;

use super::harness::{Connection, End, LONG, Running, STACK_BYTES, Viewer, empty_engine, pause};

const STREAMS: u8 = 30;

/// From one trouble to the next.
const MINUTE: Duration = Duration::from_secs(60);

/// How long each trouble lasts.
const TROUBLE: Duration = Duration::from_secs(20);

fn id(number: u8) -> Digest {
    Digest::new([number; 20])
}

fn engine_of_all() -> SimEngine {
    let engine = empty_engine();
    for number in 1..=STREAMS {
        let media = Media::Numbered(Numbered::at_rate(500_000));
        engine.add(Content::live(id(number), Digest::new([number | 0x80; 20]), media));
    }
    engine
}

/// What befalls an engine, and its end.
fn befall(engine: &SimEngine, kind: u64) -> &'static str {
    match kind {
        0 => {
            engine.crash().expect("the port is kept");
            pause(TROUBLE);
            engine.accept().expect("it listens");
            "killed"
        }
        1 => {
            engine.freeze();
            pause(TROUBLE);
            engine.thaw();
            "frozen"
        }
        2 => {
            (1..=STREAMS).for_each(|number| engine.stick(id(number), Stuck::until_quiet(Duration::MAX)));
            pause(2 * TROUBLE);
            (1..=STREAMS).for_each(|number| engine.free(id(number)));
            "stuck"
        }
        _ => {
            engine.crash().expect("the port is kept");
            engine.slam().expect("it listens");
            pause(TROUBLE);
            engine.accept().expect("it listens");
            "slammed"
        }
    }
}

fn restarts(running: &Running) -> u64 {
    let status: Value = Connection::open(running.address).get("/proxy/status").json();
    let sessions = status["sessions"].as_array().expect("a list");
    sessions.iter().map(|session| session["restarts"].as_u64().expect("a number")).sum()
}

#[test]
#[ignore = "takes as long as ACERELAY_SOAK_S says"]
fn thirty_streams_outlive_whatever_befalls_their_engines() {
    let seconds = env::var("ACERELAY_SOAK_S").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let engines = [(); 3].map(|()| engine_of_all());
    let mut config = String::from("[stream]\nlinger_s = 1\nstall_timeout_s = 10\n");
    for engine in &engines {
        config += &format!(
            "[[engines]]\nhost = \"127.0.0.1\"\nport = {}\nmax_streams = 30\n",
            engine.addr().port()
        );
    }
    let path = super::binary::file("soak.toml", &config);
    let running =
        Running::start(&["--log-level", "warn", "--config", path.to_str().expect("a path of ours")]);
    let (address, over) = (running.address, Arc::new(AtomicBool::new(false)));
    let threads = Threads::new();
    let (tell, closed) = crossbeam_channel::bounded::<(u8, Duration, End)>(usize::from(STREAMS));
    let began = Instant::now();
    for number in 1..=STREAMS {
        let (tell, over) = (tell.clone(), Arc::clone(&over));
        let body = move || {
            let mut viewer = Viewer::open(address, id(number));
            while !over.load(Ordering::Relaxed) {
                if let Err(end) = viewer.take() {
                    tell.send((number, began.elapsed(), end)).expect("the test waits");
                    return;
                }
            }
        };
        threads.spawn(&format!("viewer-{number}"), STACK_BYTES, body).expect("a thread");
    }
    let (mut round, mut memory) = (0, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        let next = Instant::now() + MINUTE;
        let kind = befall(&engines[round % 3], round as u64 / 3 % 4);
        pause(next.saturating_duration_since(Instant::now()));
        let usage = running.usage();
        memory.push(usage.resident_kb);
        let restarts = restarts(&running);
        eprintln!("{:.0?}: engine {} {kind}, {restarts} restarts, {usage:?}", began.elapsed(), round % 3);
        let told: Vec<_> = closed.try_iter().collect();
        assert!(told.is_empty(), "closed: {told:?}");
        round += 1;
    }
    over.store(true, Ordering::Relaxed);
    threads.join_all(Instant::now() + LONG).expect("all viewers end");
    for engine in &engines {
        let is_over =
            |counts: &acerelay::sim::Counts| counts.sessions_open == 0 && counts.getstreams_now == 0;
        assert!(engine.wait_for(4 * LONG, is_over), "{:?}", engine.counts());
        let counts = engine.counts();
        eprintln!("{counts:?}");
        // Those that are lost are lost with an engine that is killed.
        let ended = counts.sessions_stopped + counts.sessions_lost + counts.sessions_stopped_along;
        assert_eq!((counts.sessions_opened, counts.sessions_leaked), (ended, 0), "{counts:?}");
    }
    // The first rounds fill the backlogs.
    if let [_, _, early, .., late] = memory[..] {
        assert!(late < early + early / 3, "{memory:?}");
    }
}
