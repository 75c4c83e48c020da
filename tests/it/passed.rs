//! The program on a port that systemd has opened and passes to one process after the other.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::binary::file;
use super::harness::{
    Connection, End, ID, LONG, Running, Viewer, command, engine, in_parallel, pause, stream_path, under,
};

/// One socket, passed as systemd does it: as descriptor 3, to this very process.
const PASS: &str = "exec 3<&0 </dev/null && export LISTEN_PID=$$ LISTEN_FDS=1";

/// The program, to which the shell passes this socket, which it has as its standard input.
fn with_passed(pass: &str, socket: impl Into<OwnedFd>, arguments: &[&str]) -> Command {
    let mut command = under(pass, None, &command(arguments));
    command.stdin(Stdio::from(socket.into()));
    command
}

/// The program on this port. The one that its flags name is taken.
fn serve(port: &TcpListener, engine: &str) -> Running {
    let socket = port.try_clone().expect("a descriptor");
    let running = Running::start_this(with_passed(PASS, socket, &["--listen", engine, "--engine", engine]));
    assert_eq!(running.address, port.local_addr().expect("it listens"));
    running
}

/// Ends it in good order.
fn stop(running: Running) {
    stop_under(running, || {});
}

/// Ends it in good order, while its clients do this.
fn stop_under(mut running: Running, clients: impl FnOnce()) {
    let began = Instant::now();
    running.signal("-TERM");
    clients();
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[track_caller]
fn assert_well(connection: Connection) {
    let mut reply = connection.get("/healthz");
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok\n"));
}

fn open(port: &TcpListener) -> Connection {
    Connection::open(port.local_addr().expect("it listens"))
}

#[test]
fn a_passed_port_is_served_by_one_process_after_the_other() {
    let engine = engine();
    let address = engine.addr().to_string();
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    for _ in 0..3 {
        // Both come before the process does.
        let early = open(&port);
        let mut asked = open(&port);
        asked.send_get(&stream_path(ID));
        let running = serve(&port, &address);
        running.wait_log("The service manager passes an open port; \"listen\" is not used");
        assert_well(early);
        let mut viewer = Viewer::of(asked.reply());
        viewer.take_packets(50);
        stop_under(running, || assert_eq!(viewer.finish().1, End::Closed));
        // Nothing of its own waits there now: systemd would start the service again.
        port.set_nonblocking(true).expect("a live socket");
        assert!(port.accept().is_err(), "a connection was left behind");
        // Left so: the next process makes of it what it needs.
    }
}

#[test]
fn a_restart_under_load_refuses_nobody() {
    const CLIENTS: usize = 4;
    let engine = engine();
    let address = engine.addr().to_string();
    let port = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let mut running = serve(&port, &address);
    let is_over = Arc::new(AtomicBool::new(false));
    let (clients, load) = (Arc::clone(&port), Arc::clone(&is_over));
    let threads = acerelay::threads::Threads::new();
    let (give, counts) = crossbeam_channel::bounded(1);
    let hammer = move || {
        let counts = in_parallel(CLIENTS, move |_| {
            let mut count = 0;
            while !load.load(Ordering::Relaxed) {
                assert_well(open(&clients));
                count += 1;
            }
            count
        });
        give.send(counts).expect("the test waits for it");
    };
    threads.spawn("hammer", super::harness::STACK_BYTES, hammer).expect("a thread");
    for _ in 0..3 {
        pause(Duration::from_millis(200));
        stop(running);
        running = serve(&port, &address);
    }
    is_over.store(true, Ordering::Relaxed);
    let counts: Vec<u32> = counts.recv_timeout(LONG).expect("all clients were answered");
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
    stop(running);
}

#[test]
fn a_port_that_somebody_else_changes_is_listened_to_again() {
    let engine = engine();
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let running = serve(&port, &engine.addr().to_string());
    let mut viewer = Viewer::open(running.address, ID);
    viewer.take_packets(10);
    // The mode is one for all who have the socket: an accept fails now, where it has waited before.
    port.set_nonblocking(true).expect("a live socket");
    let deadline = Instant::now() + LONG;
    while SockRef::from(&port).nonblocking().expect("a live socket") {
        assert_well(open(&port));
        assert!(Instant::now() < deadline, "it does not listen again");
    }
    assert_well(open(&port));
    viewer.take_packets(100);
    stop(running);
    assert!(TcpStream::connect(port.local_addr().expect("it listens")).is_ok(), "the port stays open");
}

#[test]
fn a_process_that_was_killed_leaves_the_port_to_the_next() {
    let engine = engine();
    let address = engine.addr().to_string();
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // Its drop kills it.
    drop(serve(&port, &address));
    let waiting = open(&port);
    let running = serve(&port, &address);
    assert_well(waiting);
    stop(running);
}

#[test]
fn who_came_before_the_process_has_its_deadlines_too() {
    let engine = engine();
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let narrow = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    narrow.set_recv_buffer_size(4096).expect("a live socket");
    let local = port.local_addr().expect("it listens");
    narrow.connect(&local.into()).expect("it listens");
    let mut frozen = Connection::of(narrow.into(), local);
    frozen.send_get(&stream_path(ID));
    let config = file(
        "passed-deadlines.toml",
        &format!(
            "[server]\nwrite_timeout_s = 1\n[[engines]]\nhost = \"127.0.0.1\"\nport = {}\n",
            engine.addr().port()
        ),
    );
    let arguments = ["--config", &*config.to_string_lossy()];
    let running = Running::start_this(with_passed(PASS, port, &arguments));
    running.wait_log("it took nothing for 1.0 s");
    stop(running);
}

#[track_caller]
fn assert_refused(mut command: Command, says: &str) {
    let Output { status, stdout, stderr } = command.output().expect("it runs and ends");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), stdout.as_slice()), (Some(2), &b""[..]), "{stderr}");
    assert_eq!(stderr, format!("acerelay: {says}\n"));
}

#[test]
fn what_cannot_be_served_is_one_message_and_exit_code_2() {
    let local = "127.0.0.1:0";
    let listener = || TcpListener::bind(local).expect("a free port");
    let arguments = ["--demo", "--listen", local];
    let unfit = "the socket that is passed (LISTEN_FDS) cannot be served: it is no TCP socket that listens";
    let datagrams = UdpSocket::bind(local).expect("a free port");
    assert_refused(with_passed(PASS, datagrams, &arguments), unfit);
    let server = listener();
    let stream = TcpStream::connect(server.local_addr().expect("it listens")).expect("a connection");
    assert_refused(with_passed(PASS, stream, &arguments), unfit);
    let two = "exec 3<&0 4<&0 </dev/null && export LISTEN_PID=$$ LISTEN_FDS=2";
    let several = "2 sockets are passed (LISTEN_FDS), and only one can be served";
    assert_refused(with_passed(two, listener(), &arguments), several);
    let none = "export LISTEN_PID=$$ LISTEN_FDS=1";
    let absent = "the socket that LISTEN_FDS and LISTEN_PID pass: Bad file descriptor (os error 9)";
    assert_refused(with_passed(none, listener(), &arguments), absent);
    let malformed = "export LISTEN_PID=$$ LISTEN_FDS=one";
    let unread = "the socket that LISTEN_FDS and LISTEN_PID pass: invalid LISTEN_FDS";
    assert_refused(with_passed(malformed, listener(), &arguments), unread);
}

#[test]
fn what_is_passed_to_another_process_is_not_touched() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let engine = engine();
    let arguments = ["--listen", "127.0.0.1:0", "--engine", &engine.addr().to_string()];
    let pass = "exec 3<&0 </dev/null && export LISTEN_PID=1 LISTEN_FDS=1";
    let socket = port.try_clone().expect("a descriptor");
    let running = Running::start_this(with_passed(pass, socket, &arguments));
    assert_ne!(running.address, port.local_addr().expect("it listens"));
    assert_well(Connection::open(running.address));
}
