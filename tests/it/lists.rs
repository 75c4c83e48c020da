//! Other people's lists: fetched, merged, kept, and never in anybody's way.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acerelay::channels::keeper::Settings;
use acerelay::config::{self, Config, Live, Place};
use acerelay::sim::Script;
use acerelay::threads::Threads;
use serde_json::Value;

use super::harness::{
    LONG, Proxy, Running, STACK_BYTES, Viewer, assert_whole, directory, engine, engine_of_nine, nth_id, pause,
};

/// A server of lists that answers as it is told; whoever asks while it is told nothing waits.
struct ListServer {
    url: String,
    answer: Arc<Live<String>>,
    threads: Threads,
    stop: Arc<Live<bool>>,
}

impl ListServer {
    fn start(answer: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}/list.m3u?token=secret", listener.local_addr().expect("an address"));
        let (answer, stop, threads) = (Live::new(answer.to_owned()), Live::new(false), Threads::new());
        let (answers, stopped) = (Arc::clone(&answer), Arc::clone(&stop));
        let body = move || {
            while let Ok((mut socket, _)) = listener.accept() {
                if *stopped.get() {
                    return;
                }
                let mut head = [0; 4096];
                let _asked = socket.read(&mut head);
                let _gone = socket.write_all(answers.get().as_bytes());
            }
        };
        threads.spawn("lists", STACK_BYTES, body).expect("a thread");
        Self { url, answer, threads, stop }
    }

    fn say(&self, answer: &str) {
        self.answer.replace(answer.to_owned());
    }
}

impl Drop for ListServer {
    fn drop(&mut self) {
        self.stop.replace(true);
        let place = self.url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        drop(std::net::TcpStream::connect(place));
        let _joined = self.threads.join_all(Instant::now() + LONG);
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A list of channels of these names, which play the nine contents in turn.
fn list(names: &[&str]) -> String {
    let entries = names.iter().enumerate().map(|(at, name)| {
        format!("#EXTINF:-1 group-title=\"G\",{name}\nacestream://{}\n", nth_id(1 + (at % 9) as u8))
    });
    "#EXTM3U\n".to_owned() + &entries.collect::<String>()
}

fn at(url: &str) -> config::Playlist {
    let url = Place::Web(url.parse().expect("a URL"));
    config::Playlist { url: Some(url), name: "the list".to_owned(), ..config::Playlist::default() }
}

fn wait(proxy: &Proxy, what: &str, is_met: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LONG;
    loop {
        let channels = proxy.get("/proxy/channels").json();
        if is_met(&channels) {
            return channels;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}: {channels:#}");
        pause(Duration::from_millis(20));
    }
}

fn names(channels: &Value) -> Vec<String> {
    let list = channels["channels"].as_array().expect("a list");
    list.iter()
        .map(|channel| format!("{} {}", channel["number"], channel["slug"].as_str().unwrap_or("?")))
        .collect()
}

fn scratch(name: &str) -> PathBuf {
    let path = directory().join(format!("{name}-{}", std::process::id()));
    let _cleared = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a directory of the test's own");
    path
}

#[test]
fn a_list_that_fails_stays_what_it_was_also_over_a_restart() {
    let server = ListServer::start(&ok(&list(&["Uno", "Dos"])));
    let engine = engine_of_nine(&Script::new());
    let state = scratch("lists-state");
    let change = |config: &mut Config| {
        config.playlists = vec![at(&server.url)];
        config.state_dir = Some(state.clone());
    };
    let proxy = Proxy::start_with(&[&engine], change);
    let settings = || Settings { channels: Vec::new(), playlists: vec![at(&server.url)] };
    let first = wait(&proxy, "it is fetched", |channels| channels["lists"][0]["entries"] == 2);
    assert_eq!(names(&first), ["1 uno", "2 dos"]);
    assert!(!first.to_string().contains("secret"), "{first}");
    let mut viewer = Viewer::of(proxy.get("/ch/uno.ts"));
    viewer.take_packets(50);

    for (answer, error) in [
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
            "the server answered 500",
        ),
        (ok("<html>blocked</html>"), "what came is HTML, not a list"),
        (ok("#EXTM3U\n"), "there is no entry in it"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n#EXTM3U\n".to_owned(), ""),
    ] {
        server.say(&answer);
        proxy.app().reload_lists(settings());
        let after = wait(&proxy, error, |channels| {
            channels["lists"][0]["error"].as_str().is_some_and(|told| told.contains(error))
        });
        assert_eq!(names(&after), ["1 uno", "2 dos"], "{error}");
        server.say(&ok(&list(&["Uno", "Dos"])));
        proxy.app().reload_lists(settings());
        wait(&proxy, "it is well again", |channels| channels["lists"][0]["error"].is_null());
    }
    // A channel is gone and another is there; the one that plays goes on.
    server.say(&ok(&list(&["Tres", "Dos"])));
    proxy.app().reload_lists(settings());
    let after = wait(&proxy, "it has changed", |channels| names(channels) != ["1 uno", "2 dos"]);
    assert_eq!(names(&after), ["2 dos", "3 tres"]);
    viewer.take_packets(500);
    assert_whole(&viewer.leave());
    drop(proxy);

    // Nobody answers, and what it had is there at once; nothing of it shows the password.
    server.say("");
    let proxy = Proxy::start_with(&[&engine], change);
    assert_eq!(names(&proxy.get("/proxy/channels").json()), ["2 dos", "3 tres"]);
    server.say(&ok(&list(&["Uno"])));
    proxy.app().reload_lists(settings());
    let after = wait(&proxy, "it answers", |channels| {
        channels["channels"].as_array().is_some_and(|all| all.len() == 1)
    });
    assert_eq!(names(&after), ["1 uno"], "its number was kept for it");
    for entry in fs::read_dir(&state).expect("the directory").flatten() {
        assert!(!entry.file_name().to_string_lossy().contains("secret"));
    }
}

#[test]
fn a_file_is_read_anew_when_it_has_changed() {
    let engine = engine_of_nine(&Script::new());
    let path = scratch("lists-file").join("list.m3u");
    fs::write(&path, list(&["Uno"])).expect("a file");
    let playlist =
        config::Playlist { path: Some(path.clone()), name: "f".into(), ..config::Playlist::default() };
    let proxy = Proxy::start_with(&[&engine], |config| config.playlists = vec![playlist]);
    wait(&proxy, "it is read", |channels| names(channels) == ["1 uno"]);
    // As an editor does it.
    let beside = path.with_extension("new");
    fs::write(&beside, list(&["Dos", "Uno"])).expect("a file");
    fs::rename(&beside, &path).expect("the name is free to be taken");
    wait(&proxy, "it is read again", |channels| names(channels) == ["1 uno", "2 dos"]);
    fs::remove_file(&path).expect("it is there");
    let gone = wait(&proxy, "it is gone", |channels| channels["lists"][0]["error"].is_string());
    assert_eq!(names(&gone), ["1 uno", "2 dos"]);
}

#[test]
fn many_entries_are_written_soon_and_a_list_that_hangs_delays_nobody() {
    let names: Vec<_> = (0..20_000).map(|number| format!("Channel number {number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let engine = engine_of_nine(&Script::new());
    let hanging = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let path = scratch("lists-many").join("list.m3u");
    fs::write(&path, list(&names)).expect("a file");
    let url = format!("http://{}/", hanging.local_addr().expect("an address"));
    let proxy = Proxy::start_with(&[&engine], |config| {
        let file = config::Playlist { path: Some(path), name: "f".into(), ..config::Playlist::default() };
        config.playlists = vec![file, at(&url)];
    });
    wait(&proxy, "it is read", |channels| channels["lists"][0]["entries"] == 20_000);
    let began = Instant::now();
    let text = proxy.get("/playlist.m3u").text();
    println!("20,000 entries, {} bytes, in {:?}", text.len(), began.elapsed());
    assert_eq!(text.lines().count(), 40_001);
    let mut viewer = Viewer::of(proxy.get("/ch/channel-number-1.ts"));
    viewer.take_packets(50);
    assert!(proxy.shutdown() < LONG, "nobody waits for the list that hangs");
}

#[test]
fn sighup_reads_the_channels_anew_and_a_mistake_changes_nothing() {
    let engine = engine();
    let path = scratch("lists-config").join("config.toml");
    let channel = |name: &str| format!("[[channels]]\nname = \"{name}\"\nids = [\"{}\"]\n", nth_id(0xab));
    fs::write(&path, channel("Uno")).expect("a file");
    let address = engine.addr().to_string();
    let running = Running::start(&["--config", path.to_str().expect("text"), "--engine", &address]);
    let playlist = || super::harness::Connection::open(running.address).get("/playlist.m3u").text();
    assert!(playlist().ends_with("/ch/uno.ts\n"));
    let mut viewer = Viewer::of(super::harness::Connection::open(running.address).get("/ch/uno.ts"));
    viewer.take_packets(50);
    fs::write(&path, channel("Uno") + &channel("Dos")).expect("a file");
    running.signal("-HUP");
    running.wait_log("The channel list is read anew: 2 channels");
    let deadline = Instant::now() + LONG;
    while !playlist().ends_with("/ch/dos.ts\n") {
        assert!(Instant::now() < deadline);
        pause(Duration::from_millis(20));
    }
    fs::write(&path, channel("Tres") + "[[channels]]\nname = \"x\"\n").expect("a file");
    running.signal("-HUP");
    let line = running.wait_log("The channel list stays as it was");
    assert!(line.contains("config.toml:4: channels: a channel without a source"), "{line}");
    assert!(playlist().ends_with("/ch/dos.ts\n"));
    viewer.take_packets(200);
    assert_whole(&viewer.leave());
}
