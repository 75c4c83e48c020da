//! The closing lines of clients and streams say what was so: the log of the program itself, against what its clients
//! got and its engine gave.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use acerelay::sim::{BodyEvent, Content, Media, Numbered, PlaybackStep, Script, SimEngine, Steps};

use super::binary::file;
use super::harness::{
    Connection, End, ID, INFOHASH, LONG, Reply, Running, engine_with, pause, scripted, stream_path,
    wait_engine, whole,
};

/// The program before this engine; no null packets, since those are the client's alone and count as nobody's bytes.
fn program(name: &str, engine: &SimEngine) -> Running {
    let text = format!(
        "[stream]\nlinger_s = 0.2\nkeepalive_s = 0\n[[engines]]\nhost = \"127.0.0.1\"\nport = {}\n",
        engine.addr().port()
    );
    let path = file(name, &text);
    Running::start(&["--config", path.to_str().expect("a path of ours")])
}

/// A client that counts what it gets.
struct Client {
    address: SocketAddr,
    began: Instant,
    reply: Reply,
    bytes: u64,
}

impl Client {
    fn open(running: &Running) -> Self {
        let connection = Connection::open(running.address);
        let address = connection.address();
        let began = Instant::now();
        let mut client = Self { address, began, reply: connection.get(&stream_path(ID)), bytes: 0 };
        assert_eq!(client.reply.status, 200);
        client.take(1);
        client
    }

    /// Takes at least so many bytes.
    fn take(&mut self, bytes: u64) {
        let wanted = self.bytes + bytes;
        while self.bytes < wanted {
            self.bytes += self.reply.read().expect("the stream goes on").len() as u64;
        }
    }

    fn take_to_end(&mut self) -> End {
        let (rest, end) = self.reply.bytes();
        self.bytes += rest.len() as u64;
        end
    }

    /// Holds that the log says of this client what it got, for how long, and why it ended.
    #[track_caller]
    fn assert_told(&self, log: &[String], over: &str) {
        let start = format!(" from {} left stream {ID} after ", self.address);
        let lines: Vec<_> = log.iter().filter_map(|line| line.split_once(&start)).collect();
        let [(_, told)] = *lines else {
            panic!("not one closing line of {}: {log:#?}", self.address);
        };
        let seconds: u64 = number(told, "");
        assert!(seconds <= self.began.elapsed().as_secs(), "{told}");
        assert_eq!(told, format!("{seconds} s, {} bytes, 0 skips: {over}", self.bytes));
    }
}

/// The number behind this text.
#[track_caller]
fn number(told: &str, behind: &str) -> u64 {
    let digits = told.split_once(behind).expect("it is told").1;
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {behind:?} in {told:?}"))
}

/// What the closing line of the stream says, the last of these.
#[track_caller]
fn told_of_stream(log: &[String]) -> String {
    let ends: Vec<_> =
        log.iter().filter_map(|line| line.split_once(&format!("Stream {ID} ended after "))).collect();
    let [(_, told)] = *ends else {
        panic!("not one closing line of the stream: {log:#?}");
    };
    told.to_owned()
}

fn until_the_stream_s_line(running: &Running) -> Vec<String> {
    running.log_until(&format!("Stream {ID} ended after "))
}

/// One of them takes its time: the line of the stream comes behind its last reader.
#[test]
fn of_a_film_that_a_client_takes_late() {
    const LATE: Duration = Duration::from_millis(2100);
    let media = Media::Numbered(Numbered::at_rate(8_000_000).end_after(45_000));
    let engine = engine_with(Content::film(ID, INFOHASH, media).delivery(whole()));
    let running = program("closing-film.toml", &engine);
    let mut late = Client::open(&running);
    let mut prompt = Client::open(&running);
    assert_eq!(prompt.take_to_end(), End::Complete);
    pause(LATE);
    let behind = late.bytes;
    assert_eq!(engine.counts().stops, 0, "a reader is left");
    assert_eq!(late.take_to_end(), End::Complete);
    assert!(late.bytes > behind + 1_000_000, "it was not late: {behind} of {}", late.bytes);
    let log = until_the_stream_s_line(&running);
    wait_engine(&engine, "its session is stopped", |counts| counts.stops == 1);
    let line = log.iter().find(|line| line.contains(&late.address.to_string()) && line.contains(" left "));
    assert!(number(line.expect("its line"), " after ") >= LATE.as_secs(), "{line:?}");
    let told = told_of_stream(&log);
    assert!(told.contains(&format!("{} bytes out", prompt.bytes + late.bytes)), "{told}");
}

#[test]
fn of_a_stream_that_is_deleted_after_one_client_was_disconnected() {
    let engine = scripted(Script::new());
    let running = program("closing-delete.toml", &engine);
    let mut clients = [Client::open(&running), Client::open(&running)];
    clients.iter_mut().for_each(|client| client.take(100_000));
    let session = format!("/proxy/sessions/{ID}");
    let mut reply = Connection::open(running.address).get(&session);
    let first = reply.json()["clients"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|client| client["address"] == clients[0].address.to_string())
        .expect("it is there")["client_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let delete = |path: &str| {
        let mut connection = Connection::open(running.address);
        connection.send_request("DELETE", path, "");
        assert_eq!(connection.reply().status, 204);
    };
    delete(&format!("{session}/clients/{first}"));
    clients[0].take_to_end();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1200) {
        clients[1].take(10_000);
    }
    delete(&session);
    assert_eq!(clients[1].take_to_end(), End::Complete);
    let log = until_the_stream_s_line(&running);
    clients[0].assert_told(&log, "disconnected on request");
    clients[1].assert_told(&log, "the stream ended");
    let told = told_of_stream(&log);
    let sent = clients[0].bytes + clients[1].bytes;
    let (seconds, read) = (number(&told, ""), number(&told, " s, "));
    assert_eq!(
        told,
        format!("{seconds} s, {read} bytes in, {sent} bytes out, 0 restarts: stopped on request")
    );
    assert!((1..=clients[1].began.elapsed().as_secs()).contains(&seconds), "{told}");
    // Of what the engine has sent the last may not have been read.
    assert!(read <= engine.counts().bytes_sent && read + 100_000 > clients[1].bytes, "{told}");
}

#[test]
fn of_a_shutdown_after_the_source_was_lost_once() {
    let lost = Steps::first(1, PlaybackStep::after(400_000, BodyEvent::End));
    let engine = scripted(Script::new().playback(lost));
    let mut running = program("closing-shutdown.toml", &engine);
    let mut client = Client::open(&running);
    wait_engine(&engine, "it is recovered", |counts| counts.playbacks == 2);
    // More than the first source had.
    client.take(600_000);
    running.signal("-TERM");
    assert_eq!(client.take_to_end(), End::Closed);
    assert_eq!(running.wait(LONG).code(), Some(0));
    let log = until_the_stream_s_line(&running);
    client.assert_told(&log, "the proxy is shutting down");
    let told = told_of_stream(&log);
    let (seconds, read) = (number(&told, ""), number(&told, " s, "));
    let sent = client.bytes;
    assert_eq!(
        told,
        format!("{seconds} s, {read} bytes in, {sent} bytes out, 1 restarts: the proxy is shutting down")
    );
    assert!(read > 400_000 && read <= engine.counts().bytes_sent, "{told}");
}
