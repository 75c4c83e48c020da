//! The program as a service: what it tells systemd, and its log file under rotation.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::binary::file;
use super::harness::{Connection, ID, LONG, Running, Viewer, command, directory, engine, pause};

/// Where systemd would listen.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(name: &str) -> Self {
        // In the system's directory for such things: the path of a socket has to be short.
        let path = std::env::temp_dir().join(format!("acerelay-{}-{name}", std::process::id()));
        let socket = UnixDatagram::bind(&path).expect("a path that is free");
        socket.set_read_timeout(Some(LONG)).expect("a live socket");
        Self { socket, path }
    }

    /// The next message, in lines.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message in time");
        let text = std::str::from_utf8(&buffer[..length]).expect("a message is text");
        text.lines().map(str::to_owned).collect()
    }

    /// Reads on until a line begins so, and gives it.
    fn wait_for(&self, start: &str) -> String {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            if let Some(line) = self.next().into_iter().find(|line| line.starts_with(start)) {
                return line;
            }
        }
        panic!("no {start}");
    }

    /// Reads what there is, and tells whether nothing of it begins so.
    fn has_not_said(&self, start: &str) -> bool {
        self.socket.set_nonblocking(true).expect("a live socket");
        let mut buffer = [0; 4096];
        let mut is_unsaid = true;
        while let Ok(length) = self.socket.recv(&mut buffer) {
            is_unsaid &= !String::from_utf8_lossy(&buffer[..length]).contains(start);
        }
        self.socket.set_nonblocking(false).expect("a live socket");
        is_unsaid
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // A file that stays behind hurts nobody.
        let _removed = fs::remove_file(&self.path);
    }
}

#[test]
fn systemd_is_told_when_it_is_ready_alive_and_stopping() {
    let engine = engine();
    let manager = Manager::listen("life");
    let environment = [("NOTIFY_SOCKET", manager.path.as_os_str()), ("WATCHDOG_USEC", OsStr::new("2000000"))];
    let mut running = Running::start_in(&environment, &["--engine", &engine.addr().to_string()]);
    let first = manager.next();
    assert_eq!(first[0], "READY=1");
    assert!(first[1].starts_with("STATUS=0 streams, 0 clients, "), "{first:?}");
    drop(TcpStream::connect(running.address).expect("ready means that the port is open"));
    // More than once: it is what the self-check says again and again.
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");
    let mut viewer = Viewer::open(running.address, ID);
    viewer.take_packets(10);
    while manager.wait_for("STATUS=") != "STATUS=1 stream, 1 client, 1 of 1 engines up" {}
    running.signal("-TERM");
    manager.wait_for("STOPPING=1");
    assert_eq!(running.wait(LONG).code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_never_called_ready() {
    let engine = engine();
    let manager = Manager::listen("taken");
    let taken = engine.addr().to_string();
    let status = command(&["--listen", &taken, "--demo"])
        .env("NOTIFY_SOCKET", &manager.path)
        .status()
        .expect("it runs and ends");
    assert_eq!(status.code(), Some(1));
    assert!(manager.has_not_said("READY=1"));
}

#[test]
fn without_a_watchdog_none_is_fed() {
    let engine = engine();
    let manager = Manager::listen("none");
    let environment = [("NOTIFY_SOCKET", manager.path.as_os_str())];
    let mut running = Running::start_in(&environment, &["--engine", &engine.addr().to_string()]);
    manager.wait_for("READY=1");
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(manager.has_not_said("WATCHDOG=1"));
}

/// Waits until a file has this in it.
fn wait_for_text(path: &Path, text: &str) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        let contents = fs::read_to_string(path).unwrap_or_default();
        if contents.contains(text) {
            return contents;
        }
        assert!(Instant::now() < deadline, "{text:?} is not in {}: {contents}", path.display());
        pause(Duration::from_millis(20));
    }
}

#[test]
fn a_log_file_that_was_renamed_is_left_at_sighup() {
    let engine = engine();
    let (path, renamed) = (directory().join("rotated.log"), directory().join("rotated.log.1"));
    for old in [&path, &renamed] {
        // Left behind by an earlier run, or not.
        let _removed = fs::remove_file(old);
    }
    let config = file(
        "rotated.toml",
        &format!(
            "[log]\nfile = \"{}\"\n\n[[engines]]\nhost = \"127.0.0.1\"\nport = {}\n",
            path.display(),
            engine.addr().port()
        ),
    );
    let mut running = Running::start(&["--config", &config.to_string_lossy()]);
    let mut viewer = Viewer::open(running.address, ID);
    viewer.take_packets(10);
    wait_for_text(&path, "Client 1 connected");

    fs::rename(&path, &renamed).expect("the file is there");
    // Until it is told, it goes on in the file that it has.
    let second = Viewer::open(running.address, ID);
    wait_for_text(&renamed, "Client 2 connected");
    running.signal("-HUP");
    wait_for_text(&path, "The log goes on in this file");
    drop(second);
    let contents = wait_for_text(&path, "Client 2 from");
    assert!(!contents.contains("Client 2 connected"), "{contents}");
    // The stream has not noticed.
    viewer.take_packets(100);

    // Once more, with a directory that has gone: the old file is kept.
    fs::remove_file(&path).expect("the file is there");
    fs::create_dir(&path).expect("the name is free");
    running.signal("-HUP");
    viewer.take_packets(100);
    fs::remove_dir(&path).expect("it is empty");
    running.signal("-HUP");
    wait_for_text(&path, "The log goes on in this file");
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
    wait_for_text(&path, "Shut down");
}

#[test]
fn sighup_ends_nothing_without_a_log_file() {
    let engine = engine();
    let mut running = Running::start(&["--engine", &engine.addr().to_string()]);
    running.signal("-HUP");
    running.wait_log("SIGHUP");
    let mut viewer = Viewer::open(running.address, ID);
    viewer.take_packets(10);
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
}

#[test]
fn the_token_may_come_as_a_credential() {
    let engine = engine();
    let credentials = directory().join("credentials");
    fs::create_dir_all(&credentials).expect("a directory of the test's own");
    fs::write(credentials.join("admin_token"), "sesame\n").expect("a file of the test's own");
    let environment = [("CREDENTIALS_DIRECTORY", credentials.as_os_str())];
    let running = Running::start_in(&environment, &["--engine", &engine.addr().to_string()]);
    for (lines, status) in
        [("", 401), ("Authorization: Bearer other\r\n", 401), ("Authorization: Bearer sesame\r\n", 404)]
    {
        let mut connection = Connection::open(running.address);
        connection.send_request("DELETE", "/proxy/sessions/none", lines);
        assert_eq!(connection.reply().status, status, "{lines:?}");
    }
    // Nothing starts without the token that somebody wanted.
    let unusable = directory().join("unusable-credentials");
    fs::create_dir_all(&unusable).expect("a directory of the test's own");
    fs::write(unusable.join("admin_token"), "open sesame").expect("a file of the test's own");
    let output = command(&["--demo"]).env("CREDENTIALS_DIRECTORY", &unusable).output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{stderr}");
    assert!(stderr.contains("admin_token:1: no header can carry this token"), "{stderr}");
    assert!(!stderr.contains("sesame"), "{stderr}");
}
