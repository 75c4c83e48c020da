//! Films: parts of a file, over one engine session, as any file server would give them.

mod elsewhere;

use std::time::{Duration, Instant};

use acerelay::sim::{BodyEvent, Content, FileBytes, FilmFile, Parts, PlaybackStep, Script, SimEngine, Steps};

use crate::harness::{
    Connection, End, ID, INFOHASH, LONG, OTHER_ID, OTHER_INFOHASH, Proxy, Reply, assert_all_stopped,
    empty_engine, engine_with, in_parallel, pause, stream_path, wait_engine,
};

/// Long enough not to fit into the sockets on the way: 24 MB.
const LARGE: FileBytes = FileBytes::Places(24 * 1024 * 1024);

const SMALL: FileBytes = FileBytes::Film;

fn film(bytes: FileBytes) -> Content {
    Content::files(ID, INFOHASH, vec![FilmFile::new("a film.mp4", bytes)])
}

/// A film of which nothing but this much is downloaded, and each other piece takes this long.
fn loading(bytes: FileBytes, downloaded: u64, piece: Duration) -> Content {
    let file = FilmFile { downloaded, piece, ..FilmFile::new("a film.mp4", bytes) };
    Content::files(ID, INFOHASH, vec![file])
}

fn ask(connection: Connection, range: Option<&str>) -> Reply {
    let line = range.map(|range| format!("Range: {range}\r\n")).unwrap_or_default();
    ask_with(connection, &line)
}

fn ask_with(mut connection: Connection, lines: &str) -> Reply {
    connection.send_request("GET", &stream_path(ID), lines);
    connection.reply()
}

/// Reads at least so much.
fn take(reply: &mut Reply, bytes: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while taken.len() < bytes {
        taken.extend_from_slice(reply.read().expect("the film goes on"));
    }
    taken
}

#[track_caller]
fn assert_part(reply: &mut Reply, file: FileBytes, from: u64, to: u64) {
    assert_eq!(reply.status, 206);
    let range = format!("bytes {from}-{}/{}", to - 1, file.length());
    assert_eq!(reply.header("Content-Range"), Some(range.as_str()));
    assert_eq!(reply.header("Content-Length"), Some((to - from).to_string().as_str()));
    let (body, end) = reply.bytes();
    assert_eq!((body.len() as u64, end), (to - from, End::Complete));
    assert!(body == file.part(from, to), "other bytes than those of {from}..{to}");
}

#[test]
fn every_part_of_a_film_is_answered_as_a_file_server_would() {
    let engine = engine_with(film(SMALL));
    let proxy = Proxy::start(&[&engine]);
    let length = SMALL.length();
    let mut connection = proxy.connect();
    for (range, part) in [
        ("bytes=0-", (0, length)),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=1000-70000", (1000, 70001)),
        ("bytes=150000-", (150_000, length)),
        ("bytes=-1000", (length - 1000, length)),
        ("bytes=-99999999", (0, length)),
        ("bytes=100-99999999", (100, length)),
    ] {
        let mut reply = ask(connection, Some(range));
        assert_part(&mut reply, SMALL, part.0, part.1);
        assert_eq!(reply.header("Accept-Ranges"), Some("bytes"), "{range}");
        assert_eq!(reply.header("Content-Type"), Some("video/mp4"), "{range}");
        assert_eq!(reply.header("Transfer-Encoding"), None, "{range}");
        connection = reply.into_connection();
    }
    for range in [None, Some("bytes=0-1,5-6"), Some("pages=1-2")] {
        let mut reply = ask(connection, range);
        assert_eq!((reply.status, reply.header("Content-Range")), (200, None), "{range:?}");
        assert_eq!(reply.header("Content-Length"), Some(length.to_string().as_str()), "{range:?}");
        assert_eq!(reply.header("Accept-Ranges"), Some("bytes"), "{range:?}");
        let (body, end) = reply.bytes();
        assert!(end == End::Complete && body == SMALL.part(0, length), "{range:?}");
        connection = reply.into_connection();
    }
    for range in [format!("bytes={length}-"), "bytes=-0".to_owned(), "bytes=5-2".to_owned()] {
        let mut reply = ask(connection, Some(&range));
        let of_all = format!("bytes */{length}");
        assert_eq!((reply.status, reply.header("Content-Range")), (416, Some(of_all.as_str())), "{range}");
        assert_eq!(reply.json()["error"], "range_not_satisfiable", "{range}");
        connection = reply.into_connection();
    }
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.sessions_opened, counts.playbacks), (1, 1, 11), "{counts:?}");
    drop(connection);
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_player_of_http_1_0_gets_a_film_too() {
    let engine = engine_with(film(SMALL));
    let proxy = Proxy::start(&[&engine]);
    for (lines, goes_on) in [("", false), ("Connection: keep-alive\r\n", true)] {
        let mut connection = proxy.connect();
        connection.send(&format!("GET {} HTTP/1.0\r\nRange: bytes=10-19\r\n{lines}\r\n", stream_path(ID)));
        let mut reply = connection.reply();
        assert_part(&mut reply, SMALL, 10, 20);
        let mut connection = reply.into_connection();
        if goes_on {
            connection.send("GET /healthz HTTP/1.0\r\n\r\n");
            assert_eq!(connection.reply().status, 200);
        } else {
            assert_eq!(connection.read_to_end(), "");
        }
    }
}

#[test]
fn a_film_without_a_length_is_passed_as_it_comes() {
    for (parts, has_length) in [(Parts::Neither, false), (Parts::Length, true)] {
        let file = FilmFile { parts, content_type: None, ..FilmFile::new("a film", SMALL) };
        let engine = engine_with(Content::files(ID, INFOHASH, vec![file]));
        let proxy = Proxy::start(&[&engine]);
        for range in [None, Some("bytes=100-199")] {
            let mut reply = ask(proxy.connect(), range);
            assert_eq!((reply.status, reply.header("Accept-Ranges")), (200, None), "{parts:?} {range:?}");
            assert_eq!(reply.header("Content-Type"), Some("video/mp4"), "its first bytes tell");
            let length = SMALL.length().to_string();
            assert_eq!(reply.header("Content-Length"), has_length.then_some(length.as_str()), "{parts:?}");
            let (body, end) = reply.bytes();
            assert!(end == End::Complete && body == SMALL.part(0, u64::MAX), "{parts:?} {range:?} {end:?}");
        }
    }
}

#[test]
fn a_film_without_a_length_whose_engine_dies_does_not_look_whole() {
    let file = FilmFile { parts: Parts::Neither, ..FilmFile::new("a film", LARGE) };
    let engine = engine_with(Content::files(ID, INFOHASH, vec![file]));
    let proxy = Proxy::start(&[&engine]);
    let mut reply = ask(proxy.connect(), None);
    take(&mut reply, 100_000);
    engine.crash().expect("the port is kept");
    let (_, end) = reply.bytes();
    assert_ne!(end, End::Complete);
}

#[test]
fn what_an_engine_does_not_call_a_film_is_one_by_its_head() {
    let engine = engine_with(film(SMALL).untold());
    let proxy = Proxy::start(&[&engine]);
    let mut reply = ask(proxy.connect(), Some("bytes=500-599"));
    assert_part(&mut reply, SMALL, 500, 600);
    assert_eq!(proxy.session(ID)["is_live"], serde_json::Value::Null);
}

#[test]
fn twenty_viewers_at_twenty_places_share_one_session_and_one_stop() {
    const VIEWERS: usize = 20;
    let engine = engine_with(film(LARGE));
    let proxy = Proxy::start(&[&engine]);
    let step = LARGE.length() / VIEWERS as u64;
    let address = proxy.address;
    let wholes = in_parallel(VIEWERS, move |viewer| {
        let from = viewer as u64 * step;
        let mut reply = ask(Connection::open(address), Some(&format!("bytes={from}-")));
        let length = 1_000_000.min((LARGE.length() - from) as usize);
        let taken = take(&mut reply, length);
        reply.status == 206 && taken == LARGE.part(from, from + taken.len() as u64)
    });
    assert_eq!(wholes, [true; VIEWERS]);
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
    assert_eq!(engine.counts().getstreams, 1);
}

#[test]
fn a_part_that_breaks_off_is_torn_and_the_next_comes_from_the_same_session() {
    let broken = PlaybackStep::after(300_000, BodyEvent::Reset);
    let script = Script::new().playback(Steps::each([broken]));
    let engine = engine_with(film(LARGE).script(script));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = LONG);
    let mut reply = ask(proxy.connect(), Some("bytes=0-"));
    let (body, end) = reply.bytes();
    assert!(matches!(end, End::Torn | End::Reset), "{end:?}");
    let at = body.len() as u64;
    assert!(at <= 300_000 && body == LARGE.part(0, at), "{at}");
    let mut reply = ask(proxy.connect(), Some(&format!("bytes={at}-999999")));
    assert_part(&mut reply, LARGE, at, 1_000_000);
    assert_eq!(engine.counts().sessions_opened, 1);
}

#[test]
fn a_session_that_the_engine_has_forgotten_is_opened_anew_by_the_next_request() {
    for recover in [Duration::ZERO, LONG] {
        let engine = engine_with(film(SMALL));
        let proxy = Proxy::start_with(&[&engine], |config| {
            config.stream.recover_timeout = recover;
            config.stream.linger = LONG;
        });
        assert_part(&mut ask(proxy.connect(), Some("bytes=0-99")), SMALL, 0, 100);
        engine.forget_sessions();
        assert_part(&mut ask(proxy.connect(), Some("bytes=100-199")), SMALL, 100, 200);
        assert_eq!(engine.counts().sessions_opened, 2, "{recover:?}");
    }
}

#[test]
fn another_engine_takes_over_from_one_that_dies_in_mid_film() {
    for recover in [Duration::ZERO, LONG] {
        let engines = [engine_with(film(LARGE)), engine_with(film(LARGE))];
        let proxy = Proxy::start_with(&[&engines[0], &engines[1]], |config| {
            config.stream.recover_timeout = recover;
        });
        let mut reply = ask(proxy.connect(), Some("bytes=0-"));
        let mut body = take(&mut reply, 200_000);
        let plays = |engine: &&SimEngine| engine.counts().sessions_open == 1;
        let dying = engines.iter().position(|engine| plays(&engine)).expect("one plays");
        engines[dying].crash().expect("the port is kept");
        let (rest, end) = reply.bytes();
        body.extend_from_slice(&rest);
        assert!(matches!(end, End::Torn | End::Reset), "{end:?}");
        let at = body.len() as u64;
        assert!(body == LARGE.part(0, at), "{at} bytes of something else");
        let mut reply = ask(proxy.connect(), Some(&format!("bytes={at}-{}", at + 99_999)));
        assert_part(&mut reply, LARGE, at, at + 100_000);
        // One told what it is, the other is the part.
        assert_eq!(engines[1 - dying].counts().playbacks, 2);
        drop(proxy);
        assert_all_stopped(&engines[1 - dying], 1);
    }
}

#[test]
fn who_leaves_a_place_that_is_not_loaded_frees_the_engine_of_it() {
    let engine = engine_with(loading(LARGE, 1024 * 1024, LONG));
    let proxy = Proxy::start(&[&engine]);
    let mut watcher = ask(proxy.connect(), Some("bytes=0-99999999"));
    take(&mut watcher, 100_000);
    for from in [10_000_000, 15_000_000, 20_000_000] {
        let reply = ask(proxy.connect(), Some(&format!("bytes={from}-")));
        assert_eq!(reply.status, 206, "the head comes before the film");
        wait_engine(&engine, "it is read twice", |counts| counts.readers == 2);
        drop(reply);
        wait_engine(&engine, "it is read once", |counts| counts.readers == 1);
    }
    assert_eq!(engine.counts().sessions_opened, 1);
}

#[test]
fn a_head_that_is_late_costs_nobody_but_who_waits_for_it() {
    let late = PlaybackStep::head(acerelay::sim::Head::Never);
    let script = Script::new().playback(Steps::each([PlaybackStep::normal(), late]));
    let engine = engine_with(film(LARGE).script(script));
    let proxy = Proxy::start(&[&engine]);
    let mut watcher = ask(proxy.connect(), Some("bytes=0-"));
    take(&mut watcher, 100_000);
    let mut impatient = proxy.connect();
    impatient.send_request("GET", &stream_path(ID), "Range: bytes=10000000-\r\n");
    wait_engine(&engine, "it is asked", |counts| counts.playback_requests == 2);
    drop(impatient);
    wait_engine(&engine, "it is read once", |counts| counts.readers == 1);
    take(&mut watcher, 1_000_000);
    assert_part(&mut ask(proxy.connect(), Some("bytes=5-9")), LARGE, 5, 10);
    assert_eq!(engine.counts().sessions_opened, 1);
}

#[test]
fn a_paused_film_is_waited_for_and_nothing_is_read_ahead_of_it() {
    let engine = engine_with(film(LARGE));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.write_timeout = Duration::from_millis(500);
        config.stream.stall_timeout = Duration::from_millis(500);
    });
    let mut reply = ask(proxy.connect(), None);
    let mut body = take(&mut reply, 100_000);
    // Until nothing more fits into the sockets on the way.
    let mut sent = 0;
    let deadline = Instant::now() + LONG;
    loop {
        pause(Duration::from_millis(500));
        let now = engine.counts().bytes_sent;
        if now == sent {
            break;
        }
        assert!(Instant::now() < deadline, "the engine is not held back: {now}");
        sent = now;
    }
    assert!(sent < LARGE.length(), "all of it was read ahead");
    pause(Duration::from_secs(3));
    assert!(engine.counts().bytes_sent < LARGE.length(), "it was read ahead after all");
    let (rest, end) = reply.bytes();
    body.extend_from_slice(&rest);
    assert!(end == End::Complete && body == LARGE.part(0, u64::MAX), "{end:?} after {} bytes", body.len());
    assert_eq!((engine.counts().playbacks, engine.counts().sessions_opened), (1, 1));
}

#[test]
fn only_of_the_same_film_a_part_is_given() {
    let file = FilmFile { etag: Some("\"one\"".to_owned()), ..FilmFile::new("a film", SMALL) };
    let engine = engine_with(Content::files(ID, INFOHASH, vec![file]));
    let proxy = Proxy::start(&[&engine]);
    for (tag, status) in [("\"one\"", 206), ("\"two\"", 200), ("Wed, 21 Oct 2026 07:28:00 GMT", 200)] {
        let reply = ask_with(proxy.connect(), &format!("Range: bytes=1-2\r\nIf-Range: {tag}\r\n"));
        assert_eq!((reply.status, reply.header("ETag")), (status, Some("\"one\"")), "{tag}");
    }
}

#[test]
fn head_starts_nothing_and_tells_the_length_of_a_film_that_plays() {
    let engine = engine_with(film(LARGE));
    let proxy = Proxy::start(&[&engine]);
    let head = || {
        let mut connection = proxy.connect();
        connection.send_request("HEAD", &stream_path(ID), "");
        connection.reply_to_head()
    };
    let reply = head();
    assert_eq!((reply.status, reply.header("Accept-Ranges")), (200, Some("none")));
    assert_eq!(engine.counts().getstreams, 0);
    let mut watcher = ask(proxy.connect(), Some("bytes=100-"));
    take(&mut watcher, 100_000);
    let before = engine.counts().playback_requests;
    let mut reply = head();
    let length = LARGE.length().to_string();
    assert_eq!((reply.status, reply.header("Content-Length")), (200, Some(length.as_str())));
    assert_eq!(
        (reply.header("Accept-Ranges"), reply.header("Content-Type")),
        (Some("bytes"), Some("video/mp4"))
    );
    assert_eq!(reply.header("Transfer-Encoding"), None);
    assert_eq!(reply.bytes().1, End::Complete);
    assert_eq!(reply.into_connection().get("/healthz").status, 200);
    assert_eq!(engine.counts().playback_requests, before);
}

#[test]
fn one_file_of_several_is_played_and_all_are_named() {
    let files = [("match.mp4", SMALL), ("extras.mkv", FileBytes::Places(1000))];
    let files = files.map(|(name, bytes)| FilmFile::new(name, bytes)).to_vec();
    let engine = engine_with(Content::files(ID, INFOHASH, files));
    let proxy = Proxy::start(&[&engine]);
    for (index, bytes) in [(0, SMALL), (1, FileBytes::Places(1000))] {
        let mut connection = proxy.connect();
        let path = format!("{}&_idx={index}", stream_path(ID));
        connection.send_request("GET", &path, "Range: bytes=10-29\r\n");
        assert_part(&mut connection.reply(), bytes, 10, 30);
        let session = proxy.wait_session(ID, "its files are named", |session| {
            session["film"]["files"].as_array().is_some_and(|files| files.len() == 2)
        });
        let film = &session["film"];
        assert_eq!((&film["files"][0], &film["files"][1]), (&"match.mp4".into(), &"extras.mkv".into()));
        assert_eq!((&film["length"], &film["is_seekable"]), (&bytes.length().into(), &true.into()));
        proxy.wait_gone(ID);
    }
}

#[test]
fn a_film_has_its_place_in_the_status_and_its_clients_can_be_sent_away() {
    let engine = engine_with(film(LARGE));
    let proxy = Proxy::start(&[&engine]);
    let mut stays = ask(proxy.connect(), Some("bytes=1000000-"));
    let mut goes = ask(proxy.connect(), Some("bytes=2000000-"));
    take(&mut stays, 100_000);
    take(&mut goes, 100_000);
    let session = proxy.wait_session(ID, "both read", |session| session["client_count"] == 2);
    assert_eq!((&session["state"], &session["is_live"]), (&"active".into(), &false.into()));
    let clients = session["clients"].as_array().expect("a list");
    let reads_from = |client: &&serde_json::Value, from: u64| {
        let offset = client["offset"].as_u64().expect("an offset");
        offset == from + client["bytes_sent"].as_u64().expect("bytes") && offset > from
    };
    let going = clients.iter().find(|client| reads_from(client, 2_000_000)).expect("it is there");
    assert!(clients.iter().any(|client| reads_from(&client, 1_000_000)));
    assert_eq!((&going["protocol"], &going["length"]), (&"film".into(), &LARGE.length().into()));
    let id = going["client_id"].as_str().expect("an id");
    let mut remote = proxy.connect();
    remote.send_request("DELETE", &format!("/proxy/sessions/{ID}/clients/{id}"), "");
    assert_eq!(remote.reply().status, 204);
    assert_ne!(goes.bytes().1, End::Complete, "it has not all it was told to get");
    take(&mut stays, 1_000_000);
    let mut remote = proxy.connect();
    remote.send_request("DELETE", &format!("/proxy/sessions/{ID}"), "");
    assert_eq!(remote.reply().status, 204);
    assert_ne!(stays.bytes().1, End::Complete);
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_film_and_a_broadcast_do_not_mind_each_other() {
    let engine = empty_engine();
    engine.add(film(LARGE));
    engine.add(crate::harness::broadcast(OTHER_ID, OTHER_INFOHASH));
    let proxy = Proxy::start(&[&engine]);
    let bystander = crate::harness::Bystander::watch(&proxy);
    for from in [0, 5_000_000, 20_000_000] {
        let mut reply = ask(proxy.connect(), Some(&format!("bytes={from}-{}", from + 999_999)));
        assert_part(&mut reply, LARGE, from, from + 1_000_000);
    }
    bystander.assert_undisturbed();
}

#[test]
fn a_shutdown_ends_who_reads_and_who_pauses() {
    let engine = engine_with(loading(LARGE, 1024 * 1024, LONG));
    let proxy = Proxy::start(&[&engine]);
    let mut paused = ask(proxy.connect(), Some("bytes=0-"));
    take(&mut paused, 1000);
    let waiting = ask(proxy.connect(), Some("bytes=20000000-"));
    assert_eq!(waiting.status, 206);
    assert!(proxy.shutdown() < Duration::from_secs(5));
    assert_all_stopped(&engine, 1);
}
