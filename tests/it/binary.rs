//! The program itself: what it prints, how it ends, what it refuses.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use acerelay::sim::{Call, Entry, Getstream, PlaybackStep, Script};

use super::harness::{
    Connection, End, ID, LONG, OTHER_ID, Running, Viewer, assert_all_stopped, assert_whole, command,
    directory, engine, scripted, stream_path, wait_engine,
};

/// The whole of a shutdown has this time, whatever engines and clients do.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn file(name: &str, text: &str) -> PathBuf {
    let path = directory().join(name);
    fs::write(&path, text).expect("a file of the test's own");
    path
}

fn output(arguments: &[&str]) -> Output {
    command(arguments).output().expect("it runs and ends")
}

#[test]
fn the_demo_prints_its_urls_and_the_first_is_mpeg_ts() {
    let demo = Running::start(&["--demo"]);
    let mut urls = Vec::new();
    while urls.len() < 3 {
        let line = demo.stdout.recv_timeout(LONG).expect("more lines");
        if let Some(url) = line.trim().strip_prefix("http://") {
            urls.push(url.to_owned());
        }
    }
    let (authority, path) = urls[0].split_once('/').expect("a path");
    assert_eq!(authority, demo.address.to_string());
    let mut reply = Connection::open(demo.address).get(&format!("/{path}"));
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("video/mp2t")));
    let mut body = Vec::new();
    while body.len() < 500 * 188 {
        body.extend_from_slice(reply.read().expect("it goes on"));
    }
    assert!(body.chunks_exact(188).all(|packet| packet[0] == 0x47));
    // The third is a channel that is offline, and says so.
    let path = urls[2].split_once('/').expect("a path").1;
    let mut reply = Connection::open(demo.address).get(&format!("/{path}"));
    assert_eq!((reply.status, &reply.json()["error"]), (502, &"engine_error".into()));
}

#[track_caller]
fn check_signal(name: &str) {
    let mut demo = Running::start(&["--demo"]);
    let path = stream_path(acerelay::id::Digest::new([0x11; 20]));
    let mut replies = [(); 3].map(|()| Connection::open(demo.address).get(&path));
    for reply in &mut replies {
        assert!(!reply.read().expect("a stream").is_empty());
    }
    // It ends with a client that takes nothing, and one that does.
    let began = Instant::now();
    demo.signal(name);
    let [_, _, mut reading] = replies;
    let (_, end) = reading.bytes();
    assert_eq!(end, End::Closed);
    assert_eq!(demo.wait(LONG).code(), Some(0));
    assert!(began.elapsed() < SHUTDOWN_LIMIT, "{:?}", began.elapsed());
}

#[test]
fn sigterm_ends_it_while_clients_stream() {
    check_signal("-TERM");
}

#[test]
fn sigint_ends_it_while_clients_stream() {
    check_signal("-INT");
}

#[test]
fn a_signal_stops_the_sessions_of_the_engine() {
    let engine = engine();
    let mut running = Running::before(&engine);
    let mut viewers = [ID, ID, OTHER_ID].map(|id| Viewer::open(running.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    let began = Instant::now();
    running.signal("-TERM");
    for viewer in viewers {
        let (report, end) = viewer.finish();
        assert_whole(&report);
        assert_eq!(end, End::Closed);
    }
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(began.elapsed() < SHUTDOWN_LIMIT, "{:?}", began.elapsed());
    assert_all_stopped(&engine, 2);
}

#[test]
fn a_signal_ends_it_while_the_engine_hangs_on_stop() {
    let engine = scripted(Script::new().stop(Call::Hang));
    let mut running = Running::before(&engine);
    let mut viewer = Viewer::open(running.address, ID);
    viewer.take_packets(50);
    let began = Instant::now();
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(began.elapsed() < SHUTDOWN_LIMIT, "{:?}", began.elapsed());
    assert_eq!(engine.counts().stops, 1);
}

#[test]
fn a_signal_ends_it_while_getstream_hangs() {
    let engine = scripted(Script::new().getstream(Getstream::Hang));
    let mut running = Running::before(&engine);
    let mut connection = Connection::open(running.address);
    connection.send_get(&stream_path(ID));
    wait_engine(&engine, "it is asked", |counts| counts.getstreams_now == 1);
    let began = Instant::now();
    running.signal("-TERM");
    let mut reply = connection.reply();
    assert_eq!((reply.status, &reply.json()["error"]), (503, &"shutting_down".into()));
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(began.elapsed() < SHUTDOWN_LIMIT, "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let engine = scripted(Script::new().getstream(Getstream::Hang));
    let mut running = Running::before(&engine);
    let mut connection = Connection::open(running.address);
    connection.send_get(&stream_path(ID));
    wait_engine(&engine, "it is asked", |counts| counts.getstreams_now == 1);
    running.signal("-TERM");
    running.wait_log("Shutting down");
    let began = Instant::now();
    running.signal("-INT");
    let status = running.wait(LONG);
    assert_eq!((status.code(), status.signal()), (None, Some(2)), "{:?}", began.elapsed());
    // The first one alone would take 4.5 s.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn it_starts_without_any_engine() {
    let running = Running::start(&["--engine", "127.0.0.1:1"]);
    let mut reply = Connection::open(running.address).get(&stream_path(ID));
    assert_eq!((reply.status, &reply.json()["error"]), (503, &"no_engine".into()));
    assert_eq!(Connection::open(running.address).get("/healthz").status, 200);
}

#[track_caller]
fn assert_refused(output: &Output, says: &[&str]) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), stdout.as_ref()), (Some(2), ""), "{stderr}");
    assert!(stderr.starts_with("acerelay: "), "{stderr}");
    for part in says {
        assert!(stderr.contains(part), "{part:?} in {stderr}");
    }
}

#[test]
fn a_malformed_flag_is_one_message_and_exit_code_2() {
    for (arguments, says) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["--listen", "everywhere"], "--listen"),
        (&["--listen"], "--listen"),
        (&["--engine", "no port"], "--engine"),
        (&["--demo", "--engine", "127.0.0.1:6878"], "--demo"),
        (&["--log-level", "loud"], "--log-level"),
        (&["stray"], "stray"),
    ] {
        let output = output(arguments);
        assert_refused(&output, &[says]);
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{arguments:?}");
    }
}

#[test]
fn a_malformed_configuration_names_file_line_and_key() {
    let path = file(
        "malformed.toml",
        "[server]\nlisten = \"127.0.0.1:0\"\nmax_cleints = 5\n\n[stream]\nlinger_s = -1\n",
    );
    let name = path.to_string_lossy();
    for arguments in [&["--config", &*name][..], &["--check-config", "--config", &*name]] {
        assert_refused(&output(arguments), &["malformed.toml", "3", "max_cleints", "6", "linger_s"]);
    }
    assert_refused(&output(&["--config", "there-is-none.toml"]), &["there-is-none.toml"]);
}

#[test]
fn the_configuration_can_be_checked_and_printed() {
    let path = file("good.toml", "[server]\nmax_clients = 7\n\n[stream]\nlinger_s = 2.5\n");
    let name = path.to_string_lossy();
    let checked = output(&["--check-config", "--config", &name]);
    assert_eq!((checked.status.code(), checked.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(String::from_utf8_lossy(&checked.stdout).trim_end().ends_with("good.toml: ok"));

    let printed = output(&["--print-config", "--config", &name, "--listen", "127.0.0.1:9"]);
    assert_eq!(printed.status.code(), Some(0));
    let text = String::from_utf8(printed.stdout).expect("UTF-8");
    for part in
        ["max_clients = 7", "linger_s = 2.5", "listen = \"127.0.0.1:9\"", "[[engines]]", "keepalive_s = 2"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    // What it prints reads back to the same.
    let path = file("printed.toml", &text);
    let again = output(&["--print-config", "--config", &path.to_string_lossy()]);
    let body = |text: &str| text.split_once('\n').expect("a first line").1.to_owned();
    assert_eq!(body(&String::from_utf8(again.stdout).expect("UTF-8")), body(&text));
}

#[test]
fn version_and_help_are_printed() {
    let version = output(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let expected = format!("acerelay {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--check-config"));
}

#[test]
fn a_port_that_is_taken_is_told_and_exit_code_1() {
    let engine = engine();
    let taken = engine.addr().to_string();
    let output = output(&["--listen", &taken, "--demo"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{stderr}");
    assert!(stderr.contains(&format!("cannot listen on {taken}")), "{stderr}");
}

#[test]
fn a_running_proxy_is_asked_for_its_health() {
    let running = Running::start(&["--engine", "127.0.0.1:1"]);
    let address = running.address.to_string();
    for arguments in [&["--health", "--listen", &address][..], &["--health", &format!("http://{address}")]] {
        let asked = output(arguments);
        assert_eq!((asked.status.code(), &*asked.stdout, &*asked.stderr), (Some(0), &b"ok\n"[..], &b""[..]));
    }
    // It has no engine, so it is not ready.
    let asked = output(&["--health", &format!("http://{address}/readyz")]);
    let stderr = String::from_utf8_lossy(&asked.stderr);
    assert_eq!((asked.status.code(), &*asked.stdout), (Some(1), &b""[..]), "{stderr}");
    assert!(stderr.starts_with("acerelay: it says 503: ") && stderr.lines().count() == 1, "{stderr}");
    drop(running);
    let asked = output(&["--health", &format!("http://{address}")]);
    assert_eq!(asked.status.code(), Some(1), "nobody is there");
    // One that takes the question and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let began = Instant::now();
    let asked = output(&["--health", "--listen", &silent.local_addr().expect("it listens").to_string()]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    assert_refused(&output(&["--health", "https://box"]), &["--health", "http://HOST:PORT"]);
    assert_refused(&output(&["--health", "--listen", "127.0.0.1:0"]), &["--health URL"]);
}

#[test]
fn a_variable_that_nobody_reads_is_told_once() {
    let value = std::ffi::OsStr::new("127.0.0.1:1");
    let running = Running::start_in(&[("ACERELAY_ENGINE", value), ("ACERELAY_PORT", value)], &["--demo"]);
    let line = running.wait_log("ACERELAY_ENGINE, ACERELAY_PORT");
    assert!(line.contains("[WARN]") && line.contains("ACERELAY_ENGINES"), "{line}");
    let rest = running.end();
    assert!(!rest.iter().any(|line| line.contains("ACERELAY_")), "{rest:?}");
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_deadline() {
    let engine = scripted(Script::new().playback(PlaybackStep::entry(Entry::Never)));
    let path = file("unread.toml", "[stream]\nconnect_timeout_s = 1\nfirst_data_timeout_s = 1\n");
    let mut command = command(&["--listen", "127.0.0.1:0", "--engine", &engine.addr().to_string()]);
    command.args(["--config", &path.to_string_lossy()]);
    let (mut stderr, unread) = std::io::pipe().expect("a pipe");
    command.stderr(unread);
    let mut running = Running::start_this_with_stderr(command);
    // More lines than the pipe and the queue hold.
    let mut connection = Connection::open(running.address);
    for _ in 0..4000 {
        connection.send("DELETE /proxy/sessions/1 HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let mut reply = connection.reply();
        assert_eq!((reply.status, &reply.json()["error"]), (403, &"forbidden".into()));
        connection = reply.into_connection();
    }
    let began = Instant::now();
    let mut reply = Connection::open(running.address).get(&stream_path(ID));
    assert_eq!((reply.status, &reply.json()["error"]), (504, &"start_timeout".into()));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // Once somebody reads, what was kept is there, and how much was not.
    let (give, lines) = crossbeam_channel::bounded(10_000);
    let read = move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(&mut stderr)).map_while(Result::ok) {
            let _full = give.try_send(line);
        }
    };
    let threads = acerelay::threads::Threads::new();
    threads.spawn("stderr", acerelay::threads::SMALL_STACK_BYTES, read).expect("a thread");
    let (mut kept, deadline) = (0, Instant::now() + LONG);
    let lost: u64 = loop {
        let line = lines.recv_deadline(deadline).expect("a line that tells what was lost");
        if let Some((before, _)) = line.split_once(" lines were lost here") {
            break before.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        }
        assert!(line.contains("[WARN] ") || line.contains("[INFO] "), "{line}");
        kept += u64::from(line.contains("A DELETE from"));
    };
    assert!(kept > 2000 && lost > 500 && kept + lost >= 4000, "{kept} {lost}");
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
    let rest: Vec<_> = std::iter::from_fn(|| lines.recv_deadline(deadline).ok()).collect();
    assert!(rest.last().is_some_and(|line| line.ends_with("Shut down")), "{rest:?}");
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_program_alive() {
    let mut command = command(&["--listen", "127.0.0.1:0", "--engine", "127.0.0.1:1"]);
    let (_stderr, unread) = std::io::pipe().expect("a pipe");
    command.stderr(unread);
    let mut running = Running::start_this_with_stderr(command);
    let mut connection = Connection::open(running.address);
    for _ in 0..1000 {
        connection.send("DELETE /proxy/sessions/1 HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let mut reply = connection.reply();
        reply.json();
        connection = reply.into_connection();
    }
    let began = Instant::now();
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(began.elapsed() < SHUTDOWN_LIMIT, "{:?}", began.elapsed());
}
