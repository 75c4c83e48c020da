//! A panic is one line of the log, and nobody else's trouble.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use acerelay::config::Config;
use acerelay::http::response::Response;
use acerelay::logging;
use acerelay::threads::log_panics;

use super::harness::{BareServer, Connection, Running, alone_in_a_process, engine, is_alone, reset};

/// What the kernel has told nobody yet: a whole request, and that its sender has reset the connection.
fn say_and_reset(address: SocketAddr) {
    let mut socket = TcpStream::connect(address).expect("the kernel accepts for it");
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("room in the buffer");
    reset(socket);
}

#[test]
fn a_connection_that_was_reset_early_is_a_line_at_debug() {
    const RESETS: usize = 5;
    for (level, is_told) in [("debug", true), ("info", false)] {
        let engine = engine();
        let address = engine.addr().to_string();
        let program = Running::start(&["--engine", &address, "--log-level", level]);
        program.wait_log("is up");
        // It accepts them when their peer is gone, and tiny_http then asks for its address.
        program.signal("-STOP");
        for _ in 0..RESETS {
            say_and_reset(program.address);
        }
        program.signal("-CONT");
        assert_eq!(Connection::open(program.address).get("/healthz").status, 200);
        if is_told {
            for _ in 0..RESETS {
                program.wait_log("[DEBUG] A thread without a name panicked at ");
            }
        }
        // Neither twice nor in the words of the standard library.
        let rest = program.end();
        assert!(!rest.iter().any(|line| line.contains("panic")), "{rest:#?}");
    }
}

/// A server whose handler panics when it is asked to.
fn server_that_panics() -> BareServer {
    let second = Duration::from_secs(1);
    BareServer::start(second, second, |request| {
        assert!(request.target() != "/panic", "on\r\npurpose \u{1b}[31m");
        request.respond(Response::text(200, "ok\n"));
    })
}

#[test]
#[ignore = "not a test, but a server that a test starts: the hook for panics is there once a process"]
fn server() {
    if !is_alone() {
        return;
    }
    logging::start(&Config::default().log, None).expect("no log was started");
    log_panics();
    let server = server_that_panics();
    println!("Listening on http://{}", server.address());
    // Until who started this is gone.
    let _gone = io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn a_panic_of_ours_is_one_error_and_the_others_go_on() {
    const PANICS: usize = 3;
    let program = Running::start_this(alone_in_a_process("panics::server"));
    let get = |connection: Connection| {
        let mut reply = connection.get("/");
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok\n"));
        reply.into_connection()
    };
    let mut bystander = get(Connection::open(program.address));
    for _ in 0..PANICS {
        // Its request goes with its thread, and is answered by that.
        let mut connection = Connection::open(program.address);
        connection.send_get("/panic");
        assert_eq!(connection.reply().status, 500);
        bystander = get(bystander);
        let line = program.wait_log("panicked");
        let is_told =
            line.contains("[ERROR] Thread client-") && line.contains(" panicked at tests/it/panics.rs:");
        assert!(is_told && line.ends_with(r": on\r\npurpose \u{1b}[31m"), "{line}");
    }
    let rest = program.end();
    assert!(!rest.iter().any(|line| line.contains("panic")), "{rest:#?}");
}
