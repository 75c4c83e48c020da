//! Answers that consist of parts of what others hold: whole, with a length, and in the pace of who reads them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use acerelay::http::body::{Part, SharedBytes};
use acerelay::http::response::Response;

use super::harness::{BareServer, Connection, End, LONG, pause};

/// What each part is taken of.
const CHUNK_BYTES: usize = 64 * 1024;

/// Far more than fits between two sockets, and no memory: it is one chunk, over and over.
const PARTS: usize = 512;

/// How often a connection that takes nothing is looked at.
const SLICE: Duration = Duration::from_millis(50);

fn chunk() -> Vec<u8> {
    (0..CHUNK_BYTES).map(|number| (number % 251) as u8).collect()
}

/// A server that answers with all but the first byte of a chunk, so many times.
fn server(write_timeout: Duration) -> BareServer {
    let chunk: SharedBytes = Arc::new(chunk());
    BareServer::start(SLICE, write_timeout, move |request| {
        let part = Part::new(Arc::clone(&chunk), 1..CHUNK_BYTES).expect("it is there");
        request.respond(Response::empty(200).with_body(vec![part; PARTS]));
    })
}

fn length() -> String {
    (PARTS * (CHUNK_BYTES - 1)).to_string()
}

#[test]
fn parts_come_as_one_body_and_the_connection_goes_on() {
    let server = server(LONG);
    let mut connection = Connection::open(server.address());
    for _ in 0..2 {
        let mut reply = connection.get("/");
        assert_eq!((reply.status, reply.header("Content-Length")), (200, Some(&*length())));
        let (bytes, end) = reply.bytes();
        assert_eq!(end, End::Complete);
        assert!(bytes == chunk()[1..].repeat(PARTS), "{} bytes", bytes.len());
        connection = reply.into_connection();
        connection.send_request("HEAD", "/", "");
        let reply = connection.reply_to_head();
        assert_eq!((reply.status, reply.header("Content-Length")), (200, Some(&*length())));
        connection = reply.into_connection();
    }
}

#[test]
fn who_pauses_gets_all_of_it_and_who_stops_is_left() {
    let ask = |server: &BareServer| {
        let mut socket = TcpStream::connect(server.address()).expect("a connection");
        socket.set_read_timeout(Some(LONG)).expect("a live socket");
        socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("room");
        socket
    };
    let all = PARTS * (CHUNK_BYTES - 1);

    let patient = server(LONG);
    let mut socket = ask(&patient);
    let mut bytes = Vec::new();
    for _ in 0..3 {
        // Until well after the server has found that nothing is taken.
        pause(10 * SLICE);
        let read = (&socket).take(all as u64 / 4).read_to_end(&mut bytes).expect("it goes on");
        assert_eq!(read, all / 4);
    }
    socket.read_to_end(&mut bytes).expect("it ends");
    assert!(bytes.ends_with(&chunk()[1..].repeat(PARTS)), "{} bytes", bytes.len());

    let impatient = server(4 * SLICE);
    let mut socket = ask(&impatient);
    // Its threads end, which they could not if it waited for who reads nothing.
    drop(impatient);
    bytes.clear();
    // It is reset, or ends early.
    let _error = socket.read_to_end(&mut bytes);
    assert!(bytes.len() < all, "{} bytes", bytes.len());
}
