//! The log of a house with faults: each failure is one line, which names the engine, the question and what follows.

use acerelay::sim::{Getstream, PlaybackStep, Script, SimEngine};

use super::harness::{Connection, ID, OTHER_ID, Running, Viewer, engine, scripted, stream_path, wait_engine};

/// The program before these engines, called A, B and so on, the first of which is preferred.
fn before(name: &str, engines: &[&SimEngine], settings: &str) -> Running {
    let mut config = settings.to_owned();
    for (engine, (name, is_first)) in engines.iter().zip([("A", true), ("B", false)]) {
        let port = engine.addr().port();
        config += &format!(
            "[[engines]]\nhost = \"127.0.0.1\"\nport = {port}\nname = \"{name}\"\nforwarded = {is_first}\n"
        );
    }
    let path = super::binary::file(name, &config);
    Running::start(&["--config", path.to_str().expect("a path of ours")])
}

/// The lines that have this in them, without time and level.
fn with<'a>(log: &'a [String], text: &str) -> Vec<&'a str> {
    let words = |line: &'a String| line.split_once("] ").map_or(line.as_str(), |(_, words)| words);
    log.iter().filter(|line| line.contains(text)).map(words).collect()
}

/// What people look for is found, each of the two texts, and no failure is told twice.
#[test]
fn a_start_that_fails_is_one_line_a_failure() {
    let lacks = scripted(Script::new().getstream(Getstream::Error("no such thing".to_owned())));
    let ill = scripted(Script::new().playback(PlaybackStep::status(404, "")));
    let running = before("log-start.toml", &[&ill, &lacks], "");
    assert_eq!(Connection::open(running.address).get(&stream_path(ID)).status, 502);
    let log = running.end();
    let id = ID.to_string();
    let at_a = format!("HTTP error streaming {id} from A: the engine answered with status 404 (playback)");
    let at_b = format!("HTTP error streaming {id} from B: the engine says: no such thing (getstream)");
    let tried = "tried were A: the engine answered with status 404 (playback); \
                 B: the engine says: no such thing (getstream)";
    assert_eq!(
        with(&log, "HTTP error streaming"),
        [
            format!("{at_a}; another try follows"),
            format!("Failed to initialize session for {id}: {at_b}; {tried}")
        ],
        "{log:#?}"
    );
    assert_eq!(with(&log, "WARN").len(), 2, "{log:#?}");
}

#[test]
fn what_befalls_a_stream_is_told_with_engine_and_what_follows() {
    let (killed, well) = (engine(), engine());
    let running = before("log-loss.toml", &[&killed, &well], "");
    let mut viewer = Viewer::open(running.address, ID);
    viewer.take_packets(100);
    killed.crash().expect("the port is kept");
    viewer.take_seams(1);
    let log = running.log_until("goes on");
    let id = ID.to_string();
    assert_eq!(with(&log, "Session created for"), [format!("Session created for {id}")], "{log:#?}");
    let lost = with(&log, "lost its source");
    assert_eq!(lost.len(), 1, "{log:#?}");
    assert!(lost[0].starts_with(&format!("Stream {id} lost its source on A: the ")), "{lost:?}");
    assert!(lost[0].ends_with("; recovering, attempt 1 in 0 s"), "{lost:?}");
    // The session has gone with its engine: that nobody was there to stop it is no news.
    assert!(with(&log, "did not confirm").is_empty(), "{log:#?}");
    well.crash().expect("the port is kept");
    running.wait_log(&format!("No engine is up: {id} waits for one"));
    well.accept().expect("it listens");
    running.wait_log("goes on");
    drop(viewer);
}

#[test]
fn whoever_streams_at_a_shutdown_is_told_to_have_left_for_that() {
    let engine = engine();
    let running = before("log-end.toml", &[&engine], "");
    let mut viewers = [ID, ID, OTHER_ID].map(|id| Viewer::open(running.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    wait_engine(&engine, "both play", |counts| counts.readers == 2);
    let log = running.end();
    let left = with(&log, " left stream ");
    assert_eq!(left.len(), 3, "{log:#?}");
    assert!(left.iter().all(|line| line.ends_with(": the proxy is shutting down")), "{left:#?}");
    let ended = with(&log, " ended after ");
    assert_eq!(ended.len(), 2, "{log:#?}");
    assert!(ended.iter().all(|line| line.ends_with(": the proxy is shutting down")), "{ended:#?}");
    assert!(with(&log, "WARN").is_empty(), "{log:#?}");
}
