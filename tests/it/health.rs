//! How engines are asked: which answers count against one, what is cut when it goes down, and how its return is noticed.
//!
//! Engines that lack a page, or close what they accept, are played by a bare server here; all else by the simulated engine.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acerelay::config;
use acerelay::engine::api::{Api, Opening};
use acerelay::engine::blame::Fault;
use acerelay::engine::error::{EngineError, Failed, NoConnection};
use acerelay::engine::pool::{Engine, Pool, Wish};
use acerelay::id::{ContentKey, ContentName, Digest, EngineParams};
use acerelay::sim::{Getstream, Script, SimEngine};
use acerelay::threads::Threads;
use crossbeam_channel::Receiver;

use super::harness::{
    ID, LONG, Proxy, STACK_BYTES, Viewer, alone_in_a_process, engine, in_parallel, is_alone, scripted,
    wait_engine,
};

const STATUS: &str = "/server/api?api_version=3&method=get_status";
const VERSION: &str = "/webui/api/service?method=get_version";
const MEDIA_FILES: &str = "/server/api?api_version=3&method=get_media_files";
const API_VERSION: &str = "/server/api?api_version=3&method=get_version";

/// What a bare server does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answers(u16, &'static str),
    /// Closes the connection without a byte.
    Closes,
    /// Waits until the peer has gone.
    Hangs,
}

/// What it does with each target that begins so.
type Pages = &'static [(&'static str, Does)];

/// A server that does one thing for each target, and answers 404 to all others.
struct Bare {
    address: SocketAddr,
    listener: TcpListener,
    heads: Receiver<String>,
    /// The same before it is answered.
    heads_begun: Receiver<String>,
    threads: Threads,
}

impl Bare {
    fn start(pages: Pages) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (tell, heads) = crossbeam_channel::bounded(100);
        let (tell_begun, heads_begun) = crossbeam_channel::bounded(100);
        let threads = Threads::new();
        let (accepts, of_connections) = (listener.try_clone().expect("a descriptor"), threads.clone());
        let accept = move || {
            while let Ok((socket, _)) = accepts.accept() {
                let (tell, tell_begun) = (tell.clone(), tell_begun.clone());
                let serve = move || {
                    // Nobody may care.
                    let begun = |head: &str| drop(tell_begun.try_send(head.to_owned()));
                    if let Some(head) = serve(socket, pages, begun) {
                        // Nobody may care.
                        let _told = tell.try_send(head);
                    }
                };
                of_connections.spawn("bare", STACK_BYTES, serve).expect("a thread");
            }
        };
        threads.spawn("bare-accept", STACK_BYTES, accept).expect("a thread");
        Self { address, listener, heads, heads_begun, threads }
    }

    fn api(&self) -> Api {
        Api::new(&self.address.to_string())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _woken = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
        self.threads.join_all(Instant::now() + LONG).expect("all end");
    }
}

fn serve(mut socket: TcpStream, pages: Pages, begun: impl Fn(&str)) -> Option<String> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut buffer) {
            Ok(read @ 1..) => head.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    begun(&head);
    let target = head.split(' ').nth(1)?;
    let page = pages.iter().find(|(prefix, _)| target.starts_with(prefix));
    match page.map_or(Does::Answers(404, ""), |(_, does)| *does) {
        Does::Answers(status, body) => {
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Word\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            socket.write_all(answer.as_bytes()).ok()?;
        }
        Does::Closes => {}
        Does::Hangs => while matches!(socket.read(&mut buffer), Ok(1..)) {},
    }
    Some(head)
}

fn key() -> ContentKey {
    ContentKey { name: ContentName::Id(ID), params: EngineParams::default() }
}

fn soon() -> Instant {
    Instant::now() + LONG
}

const WELL: Does = Does::Answers(200, r#"{"result": {"playlist_loaded": true}, "error": null}"#);
const TELLS: Does = Does::Answers(200, r#"{"result": {"version": "0.2.0"}, "error": null}"#);

/// A place for this content, that was not tried anywhere yet.
fn wish(name: ContentName, preferred: Option<&Arc<Engine>>) -> Wish<'_> {
    Wish { name, content: None, preferred, tries: &|_| Some(0) }
}

#[test]
fn an_engine_is_well_whatever_pages_it_lacks() {
    const UNKNOWN: Does = Does::Answers(200, r#"{"result": null, "error": "unknown method"}"#);
    const HTML: Does = Does::Answers(200, "<html>no such page</html>");
    let cases: [(Pages, Option<&str>); 7] = [
        (&[(STATUS, WELL), (VERSION, TELLS)], Some("0.2.0")),
        (&[(STATUS, WELL), (API_VERSION, TELLS)], Some("0.2.0")),
        (&[(STATUS, WELL), (VERSION, Does::Answers(500, "broken"))], None),
        (&[(VERSION, TELLS)], Some("0.2.0")),
        (&[(STATUS, UNKNOWN), (VERSION, HTML), (API_VERSION, TELLS)], Some("0.2.0")),
        (&[(STATUS, HTML), (VERSION, Does::Answers(403, "access denied"))], None),
        (&[], None),
    ];
    for (pages, version) in cases {
        let server = Bare::start(pages);
        let told = server.api().check_health(LONG).expect("it is well");
        assert_eq!(told.as_deref(), version);
    }
}

#[test]
fn what_counts_against_an_engine_is_told_with_the_question() {
    const LOADING: Does = Does::Answers(200, r#"{"result": {"playlist_loaded": false}}"#);
    let cases: [(Pages, &str); 6] = [
        (&[(STATUS, Does::Answers(503, "")), (VERSION, TELLS)], "get_status: status 503"),
        (
            &[(STATUS, LOADING), (VERSION, TELLS)],
            "get_status: the engine's answer cannot be used: its playlist",
        ),
        (
            &[(STATUS, Does::Closes), (VERSION, TELLS)],
            "get_status: the connection to the engine broke before any answer",
        ),
        (&[(STATUS, Does::Hangs), (VERSION, TELLS)], "get_status: no answer within 0.5 s"),
        (&[(VERSION, Does::Answers(502, "gone"))], "get_version: status 502: gone"),
        (
            &[("/", Does::Answers(200, "<html>a router</html>"))],
            "get_status: the engine's answer cannot be used",
        ),
    ];
    for (pages, expected) in cases {
        let server = Bare::start(pages);
        let failed = server.api().check_health(Duration::from_millis(500)).expect_err(expected);
        assert!(failed.to_string().starts_with(expected), "{failed}, not {expected}");
    }
}

#[test]
fn a_port_that_accepts_and_closes_has_nobody_behind_it() {
    let server = Bare::start(&[("/", Does::Closes)]);
    let error = server.api().open(&key(), Opening::Plain, soon()).expect_err("it closes");
    assert!(error.is_nobody() && error.is_engines(), "{error:?}");
    // An engine that resets the connection while it looks for the content has said as little.
    let engine = scripted(Script::new().getstream(Getstream::Reset));
    let error =
        Api::new(&engine.addr().to_string()).open(&key(), Opening::Plain, soon()).expect_err("a reset");
    assert!(error.is_nobody(), "{error:?}");
    // Who has no getstream is no engine; that is not the content's fault.
    let server = Bare::start(&[]);
    let error = server.api().open(&key(), Opening::Plain, soon()).expect_err("it has none");
    assert_eq!(Fault::of(&error), Fault::Engine, "{error:?}");
}

#[test]
fn texts_of_an_engine_are_cut() {
    let long = "x".repeat(5000);
    let engine = scripted(Script::new().getstream(Getstream::Error(long)));
    let error = Api::new(&engine.addr().to_string()).open(&key(), Opening::Plain, soon());
    assert_eq!(error.map(|_| ()), Err(EngineError::Said("x".repeat(256))));
}

#[test]
fn a_player_has_both_its_names_and_a_restart_is_asked_for() {
    let engine = engine();
    let api = Api::new(&engine.addr().to_string());
    for opening in [Opening::Plain, Opening::Restart] {
        let session = api.open(&key(), opening, soon()).expect("a session");
        api.stop(session, LONG).expect("it is stopped");
    }
    let requests = engine.requests();
    let starts: Vec<_> = requests.iter().filter(|request| request.path == "/ace/getstream").collect();
    for start in &starts {
        assert!(start.param("pid").is_some_and(|pid| pid.len() == 16), "{start:?}");
        assert_eq!(start.param("pid"), start.param("sid"));
    }
    let restarts: Vec<_> = starts.iter().map(|start| start.param("force_session_restart")).collect();
    assert_eq!(restarts, [None, Some("1")]);
}

#[test]
fn an_engine_is_found_by_name_and_called_by_it() {
    let server = Bare::start(&[(STATUS, WELL), (VERSION, TELLS)]);
    let authority = format!("localhost:{}", server.address.port());
    let api = Api::new(&authority);
    for _ in 0..2 {
        api.check_health(LONG).expect("it is well");
        let head = server.heads.recv_timeout(LONG).expect("it was asked").to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nhost: {authority}\r\n")), "{head}");
    }
}

#[test]
fn an_engine_whose_name_nobody_knows_is_nobody_and_the_next_one_plays() {
    let error = Api::new("engine.invalid:6878").open(&key(), Opening::Plain, soon());
    let error = error.expect_err("there is no such name");
    assert!(error.is_nobody() && error.to_string().contains("engine.invalid"), "{error:?}");
    let well = engine();
    let proxy = Proxy::start_with(&[&well], |config| {
        let nowhere = config::Engine::at("engine.invalid".parse().expect("a name"), 6878);
        config.engines.insert(0, config::Engine { forwarded: true, ..nowhere });
    });
    Viewer::open(proxy.address, ID).take_packets(1);
}

#[test]
fn a_call_starts_no_thread() {
    let output = alone_in_a_process("health::alone_calls_start_no_thread").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "counts all threads of its process"]
fn alone_calls_start_no_thread() {
    if !is_alone() {
        return;
    }
    let server = Bare::start(&[(STATUS, Does::Hangs)]);
    // By address and by name; the name was looked up before.
    for authority in [server.address.to_string(), format!("localhost:{}", server.address.port())] {
        let api = Arc::new(Api::new(&authority));
        let _known = api.infohash_of(ID, LONG);
        let threads = Threads::new();
        let calling = Arc::clone(&api);
        let call = move || drop(calling.check_health(LONG));
        wait_tasks(|tasks| tasks.len() == 3);
        threads.spawn("caller", STACK_BYTES, call).expect("a thread");
        // Main and the test's own, the server's, the caller and who serves it.
        let tasks = wait_tasks(|tasks| tasks.iter().any(|task| task == "bare"));
        assert_eq!(tasks.len(), 5, "{tasks:?}");
        api.interrupt();
        threads.join_all(soon()).expect("it ends");
    }
}

/// The names of all threads, once they are so.
fn wait_tasks(is_met: impl Fn(&[String]) -> bool) -> Vec<String> {
    let deadline = soon();
    loop {
        let tasks = fs::read_dir("/proc/self/task").expect("Linux").filter_map(Result::ok);
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        let tasks: Vec<_> = tasks.filter_map(name).map(|name| name.trim().to_owned()).collect();
        if is_met(&tasks) {
            return tasks;
        }
        assert!(Instant::now() < deadline, "{tasks:?}");
        super::harness::pause(Duration::from_millis(10));
    }
}

/// Calls on a thread of their own: what came of each.
fn beside<T: Send + 'static>(threads: &Threads, call: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told) = crossbeam_channel::bounded(1);
    threads.spawn("call", STACK_BYTES, move || drop(tell.send(call()))).expect("a thread");
    told
}

#[test]
fn calls_that_wait_are_cut_and_later_ones_work_but_what_opens_or_stops_a_session_is_never_cut() {
    let server = Bare::start(&[(MEDIA_FILES, Does::Hangs)]);
    let api = Arc::new(server.api());
    let threads = Threads::new();
    let calling = Arc::clone(&api);
    let found = beside(&threads, move || calling.infohash_of(ID, LONG));
    server.heads_begun.recv_timeout(LONG).expect("it is asked");
    api.interrupt_calls();
    assert_eq!(found.recv_timeout(LONG / 2), Ok(Err(EngineError::Down)));
    api.check_health(LONG).expect("a later call works");

    let engine = scripted(Script::new().getstream(acerelay::sim::Steps::first(1, Getstream::Hang)));
    let api = Arc::new(Api::new(&engine.addr().to_string()));
    let calling = Arc::clone(&api);
    let opened = beside(&threads, move || calling.open(&key(), Opening::Plain, soon()).map(drop));
    wait_engine(&engine, "it is asked", |counts| counts.getstreams_now == 1);
    api.interrupt_calls();
    let session = api.open(&key(), Opening::Plain, soon()).expect("a later call works");
    engine.set_script(ID, Script::new().stop(acerelay::sim::Call::Slow(Duration::from_millis(500))));
    let calling = Arc::clone(&api);
    let stopped = beside(&threads, move || calling.stop(session, LONG));
    wait_engine(&engine, "it is asked to stop", |counts| counts.stops == 1);
    api.interrupt_calls();
    assert_eq!(stopped.recv_timeout(LONG), Ok(Ok(())));
    assert!(opened.is_empty(), "only its answer tells how its session is stopped");
    api.interrupt();
    assert_eq!(opened.recv_timeout(LONG / 2), Ok(Err(EngineError::Down)), "but at the end");
    threads.join_all(soon()).expect("all end");
}

fn rhythm(interval: Duration) -> config::Health {
    config::Health { interval, timeout: Duration::from_millis(500), failures: 1000 }
}

/// Waits until the first checks are over, so that none of them is recorded late.
fn wait_all_up(pool: &Pool) {
    let deadline = soon();
    while pool.engines().iter().any(|engine| engine.health().is_up != Some(true)) {
        assert!(Instant::now() < deadline, "one does not come up");
        super::harness::pause(Duration::from_millis(10));
    }
}

/// A pool of these engines, watched.
struct Watched {
    pool: Arc<Pool>,
    threads: Threads,
}

impl Watched {
    fn start(engines: &[&SimEngine], rhythm: config::Health) -> Self {
        let settings = engines.iter().map(|engine| settings(engine)).collect();
        let (pool, threads) = (Arc::new(Pool::new(settings)), Threads::new());
        pool.watch(rhythm, threads.clone()).expect("a thread");
        Self { pool, threads }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.pool.stop_watching();
        self.threads.join_all(soon()).expect("all watches end");
    }
}

fn settings(engine: &SimEngine) -> config::Engine {
    config::Engine::at(engine.addr().ip().into(), engine.addr().port())
}

fn refused() -> Failed {
    Failed::getstream(EngineError::Unreachable(NoConnection::Refused("refused".to_owned())))
}

const RARELY: Duration = Duration::from_secs(3600);

#[test]
fn an_engine_that_answers_nothing_more_lets_go_of_who_waits_there() {
    let engine = scripted(Script::new().getstream(Getstream::Hang));
    let watched = Watched::start(&[&engine], rhythm(Duration::from_millis(200)));
    let member = Arc::clone(&watched.pool.engines()[0]);
    assert!(watched.pool.check_now(soon(), || true));
    assert!(!member.is_silent_for(Duration::from_secs(2)));
    let (threads, calling) = (Threads::new(), Arc::clone(&member));
    let opened = beside(&threads, move || calling.api.open(&key(), Opening::Plain, soon()).map(drop));
    wait_engine(&engine, "it is asked", |counts| counts.getstreams_now == 1);
    // It goes on to be asked, and takes its time for the content: nobody is cut for that.
    let checks = engine.counts().health_checks;
    wait_engine(&engine, "it was checked", |counts| counts.health_checks >= checks + 20);
    assert!(opened.is_empty() && !member.is_silent_for(Duration::from_secs(1)) && !member.is_mute());
    engine.freeze();
    let calling = Arc::clone(&member);
    let found = beside(&threads, move || calling.api.infohash_of(ID, LONG));
    assert_eq!(found.recv_timeout(LONG / 2), Ok(Err(EngineError::Down)));
    assert!(member.is_mute() && member.is_silent_for(Duration::from_secs(2)), "{:?}", member.health());
    assert!(opened.is_empty(), "only its answer tells how its session is stopped");
    engine.thaw();
    member.api.interrupt();
    assert_eq!(opened.recv_timeout(LONG / 2), Ok(Err(EngineError::Down)));
    threads.join_all(soon()).expect("all end");
}

#[test]
fn an_engine_that_is_down_is_noticed_soon_after_its_return_however_rarely_it_is_checked() {
    let engine = engine();
    let watched = Watched::start(&[&engine], rhythm(RARELY));
    assert!(watched.pool.check_now(soon(), || true));
    engine.crash().expect("the port is kept");
    let member = Arc::clone(&watched.pool.engines()[0]);
    member.record_failure(key().name, &refused(), Fault::Engine);
    assert!(!member.is_usable());
    let ups = watched.pool.ups();
    assert!(!watched.pool.wait_up_while(ups, soon(), || false), "not wanted");
    assert!(!watched.pool.wait_up_while(ups, Instant::now(), || true), "the deadline");
    engine.accept().expect("the port is there");
    let began = Instant::now();
    assert!(watched.pool.wait_up_while(ups, soon(), || true));
    assert!(member.is_usable() && began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    // What is held against it is another matter: the start did fail.
    assert!(member.health().last_error.is_some_and(|error| error.contains("refused")));
}

#[test]
fn one_check_serves_all_who_find_no_engine() {
    let (dead, engine) = (engine(), engine());
    let watched = Watched::start(&[&dead, &engine], rhythm(RARELY));
    wait_all_up(&watched.pool);
    for simulated in [&dead, &engine] {
        simulated.crash().expect("the port is kept");
    }
    for member in watched.pool.engines().iter() {
        member.record_failure(key().name, &refused(), Fault::Engine);
    }
    assert!(!watched.pool.check_now(soon(), || true), "all were asked, none is there");
    assert!(!watched.pool.check_now(soon(), || false));
    engine.accept().expect("the port is there");
    let pool = Arc::clone(&watched.pool);
    let found = in_parallel(20, move |_| pool.check_now(soon(), || true));
    assert_eq!(found, [true; 20]);
}

#[test]
fn a_pool_that_nobody_watches_keeps_nobody_waiting() {
    let engine = engine();
    let pool = Pool::new(vec![settings(&engine)]);
    assert!(pool.check_now(soon(), || true), "it was never asked, and is used");
    pool.engines()[0].record_failure(key().name, &refused(), Fault::Engine);
    let began = Instant::now();
    assert!(!pool.check_now(soon(), || true));
    assert!(began.elapsed() < LONG / 2);
}

#[test]
fn a_pool_takes_over_another_list_of_engines() {
    let (old, kept, new) = (engine(), engine(), engine());
    let watched = Watched::start(&[&old, &kept], rhythm(Duration::from_millis(100)));
    let before = watched.pool.engines();
    let name = |number| ContentName::Id(Digest::new([number; 20]));
    let drains = watched.pool.reserve(&wish(name(1), Some(&before[0]))).expect("a place");
    assert!(Arc::ptr_eq(&drains.engine, &before[0]));
    let ups = watched.pool.ups();
    watched.pool.reconcile(vec![settings(&kept), settings(&new)]).expect("a thread");
    assert!(watched.pool.wait_up_while(ups, soon(), || true));
    let after = watched.pool.engines();
    assert!(Arc::ptr_eq(&after[0], &before[1]) && after.len() == 2);
    wait_engine(&new, "it is watched", |counts| counts.health_checks > 2);
    for number in 2..6 {
        let place = watched.pool.reserve(&wish(name(number), None)).expect("a place");
        assert!(!Arc::ptr_eq(&place.engine, &before[0]));
    }
    // Only the two are watched any more; the one that left still has its stream.
    let deadline = soon();
    while watched.threads.count() > 2 {
        assert!(Instant::now() < deadline, "its watch never ends");
        super::harness::pause(Duration::from_millis(10));
    }
    assert_eq!(before[0].streams(), 1);
    drop(drains);
    assert_eq!(before[0].streams(), 0);
}
