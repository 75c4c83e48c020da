//! The floor: one thread that reads the stream and writes it to every socket, without channels, alignment, framing or any
//! thread to wake. No proxy with a thread per client can cost less.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use acerelay::engine::api::{Api, Opening};
use acerelay::engine::playback::Player;
use acerelay::id::ContentKey;
use acerelay::threads::{SMALL_STACK_BYTES, Threads};

use crate::{Error, case};

/// Between two reads.
const GATHER: Duration = Duration::from_millis(50);

/// Serves the stream of this engine to whoever connects, until it is killed.
pub(crate) fn run(engine: &str) -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("Listening on http://{}", listener.local_addr()?);
    let (arrive, arrivals) = crossbeam_channel::bounded(65536);
    let accept = move || {
        for client in listener.incoming().flatten() {
            if arrive.send(client).is_err() {
                return;
            }
        }
    };
    Threads::new().spawn("accept", SMALL_STACK_BYTES, accept)?;
    let mut clients = vec![arrivals.recv()?];

    let key = ContentKey::from_query(None, [("id", case::ID.to_string())])?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let api = Api::new(engine);
    let session = api.open(&key, Opening::Plain, deadline)?;
    let mut playback = Player::new(&api).play(&session, deadline)?;
    let mut buffer = vec![0; 1 << 20];
    let mut has_head = 0;
    loop {
        let mut length = playback.read(&mut buffer)?;
        let is_full_speed = length == buffer.len() || length >= 64 * 1024;
        if !is_full_speed && let Ok(client) = arrivals.recv_timeout(GATHER) {
            clients.push(client);
        }
        if !is_full_speed {
            length += playback.read(&mut buffer[length..])?;
        }
        clients.extend(arrivals.try_iter());
        for client in &mut clients[has_head..] {
            // The request is small and was sent at once.
            let _request = client.read(&mut [0; 1024])?;
            client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        }
        has_head = clients.len();
        for client in &mut clients {
            if client.write_all(&buffer[..length]).is_err() {
                // The measurement is over.
                return Ok(());
            }
        }
    }
}
