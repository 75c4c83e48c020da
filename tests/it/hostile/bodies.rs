//! Bodies, where there is to be none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{ID, Victim, is_well, read_to_end};
use crate::harness::{Connection, LONG, pause, stream_path};

/// What has to come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// 400, and the connection is closed.
    Refused,
    /// The connection is closed, with or without an answer.
    Closed,
}

pub(super) fn no_body_holds_it_up_or_brings_it_down() {
    use Answer::{Closed, Refused};
    let rows = [
        ("Content-Length: 99999999999999", Closed),
        ("Content-Length: 9223372036854775807", Closed),
        ("Content-Length: 18446744073709551615", Closed),
        ("Content-Length: 67108864", Closed),
        ("Content-Length: 67108865", Closed),
        ("Content-Length: 1025", Closed),
        ("Content-Length: 100000\r\nExpect: 100-continue", Closed),
        ("Content-Length: 5\r\nExpect: 100-continue", Refused),
        ("Expect: something else", Closed),
        ("Content-Length: 99999999999999999999999", Refused),
        ("Content-Length: -1", Refused),
        ("Content-Length: +0", Refused),
        ("Content-Length: 0x10", Refused),
        ("Content-Length: 0, 0", Refused),
        ("Content-Length:", Refused),
        ("Content-Length: 0\r\nContent-Length: 0", Refused),
        ("Transfer-Encoding: chunked", Refused),
        ("Transfer-Encoding: identity", Refused),
        ("Transfer-Encoding: chunked\r\nContent-Length: 99999999999999", Refused),
        ("transfer-encoding: gzip, chunked", Refused),
    ];
    let mut victim = Victim::start_under(LIMITS);
    let mut open = Vec::new();
    for (lines, answer) in rows {
        for target in
            [stream_path(ID).as_str(), "/healthz"].iter().take(if answer == Refused { 2 } else { 1 })
        {
            let mut socket = victim.say(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n"));
            let began = Instant::now();
            let text = read_to_end(&mut socket);
            assert!(began.elapsed() < Duration::from_secs(3), "{lines}: {:?}", began.elapsed());
            if answer == Refused {
                assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("bad_request"), "{lines}: {text}");
            }
            // The peer does not close.
            open.push(socket);
        }
        victim.assert_answers();
    }
    // A small one that is sent in pieces, and one that is sent much too long.
    let mut slow = victim.say("GET /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\na");
    victim.assert_answers();
    slow.write_all(b"bc").expect("room in the buffer");
    let mut long = victim.say("POST /healthz HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n");
    while long.write_all(&[b'x'; 10_000]).is_ok() {}
    drop((slow, long, open));
    assert_eq!(victim.engine.counts().getstreams, 2, "only the streams that were meant");
    victim.assert_recovers("bodies", PARKED);
    giants_are_told_to_the_watchdog(&victim);
}

/// Two or three of the rows are too large to be dropped: each parks a thread for good. The third may be had where the system
/// promises whatever it is asked for.
const PARKED: u64 = 3;

/// So that fewer giants do: two descriptors each, and a quarter of them may be lost.
const LIMITS: &str = "ulimit -n 1600";

/// More than there are addresses for.
const GIANT: &str = "GET / HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\n";

fn giants_are_told_to_the_watchdog(victim: &Victim) {
    const GIANTS: u64 = 1600 / 8 - PARKED;
    for _ in 0..GIANTS - 1 {
        read_to_end(&mut victim.say(GIANT));
    }
    assert!(is_well(victim.address()));
    read_to_end(&mut victim.say(GIANT));
    let deadline = Instant::now() + LONG;
    while is_well(victim.address()) {
        assert!(Instant::now() < deadline, "it still says that it is well");
        pause(Duration::from_millis(20));
    }
    let text = Connection::open(victim.address()).get("/healthz").text();
    assert!(text.contains("200 by announced bodies and 0 by HTTP/2.0"), "{text}");
    // It is worn, not dead.
    victim.assert_streams();
    eprintln!("giants, {:?}: after {:?}", victim.began.elapsed(), victim.program.usage());
}

/// What any web page that is open in the house can send without being asked: its browser holds nothing back but for a
/// request that a script could not make otherwise.
fn cross_site_post(bytes: u64) -> String {
    format!(
        "POST /proxy/status HTTP/1.1\r\nHost: box:8000\r\nConnection: keep-alive\r\nContent-Length: {bytes}\r\n\
         Content-Type: text/plain;charset=UTF-8\r\nOrigin: https://page.example\r\nSec-Fetch-Mode: no-cors\r\n\
         Sec-Fetch-Site: cross-site\r\n\r\nthe first bytes of it"
    )
}

#[test]
fn what_a_web_page_can_send_costs_nothing_for_good() {
    const POSTS: usize = 1200;
    let mut victim = Victim::start();
    let post = cross_site_post(70_000_000);
    for _ in 0..POSTS {
        read_to_end(&mut victim.say(&post));
    }
    // Many at once, as a browser's six connections are, and larger ones.
    for bytes in [70_000_000, 300_000_000] {
        let post = cross_site_post(bytes);
        let mut sockets: Vec<_> = (0..50).map(|_| victim.say(&post)).collect();
        sockets.iter_mut().for_each(|socket| drop(read_to_end(socket)));
    }
    victim.assert_recovers("cross-site POSTs", 0);
    let mut metrics = Connection::open(victim.address()).get("/metrics");
    assert!(metrics.text().contains("\nacerelay_parked_threads 0\n"));
}

#[test]
fn where_address_space_is_limited_nothing_is_asked_for_that_others_need() {
    // 2 GB: each of these is more than the rest of the process leaves, or nearly.
    let mut victim = Victim::start_under("ulimit -v 2000000");
    for bytes in [1_900_000_000, 1_500_000_000, 4_000_000_000] {
        read_to_end(&mut victim.say(&cross_site_post(bytes)));
    }
    let post = cross_site_post(70_000_000);
    let mut sockets: Vec<_> = (0..50).map(|_| victim.say(&post)).collect();
    sockets.iter_mut().for_each(|socket| drop(read_to_end(socket)));
    victim.assert_recovers("little address space", 3);
}

/// A client's address is any of this machine's.
fn say_from(victim: &Victim, last: u8, text: &str) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    socket.connect_timeout(&victim.address().into(), Duration::from_secs(2))?;
    socket.set_read_timeout(Some(LONG))?;
    let mut socket = TcpStream::from(socket);
    socket.write_all(text.as_bytes())?;
    Ok(socket)
}

#[test]
fn an_address_that_costs_threads_for_good_cannot_go_on_with_it() {
    let mut victim = Victim::start();
    let mut watching = say_from(&victim, 9, &format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream_path(ID)))
        .expect("it is welcome yet");
    watching.read_exact(&mut [0; 100]).expect("a stream");
    let mut giants = 0;
    let began = Instant::now();
    while let Ok(mut socket) = say_from(&victim, 9, GIANT) {
        read_to_end(&mut socket);
        giants += 1;
        assert!(giants < 50 && began.elapsed() < LONG, "{giants} giants were taken");
    }
    assert!(giants > 5, "a few are forgiven, not {giants}");
    victim.program.wait_log("Nobody can connect from [127.0.0.9]");
    // Its other connections go, too; those of others do not.
    read_to_end(&mut watching);
    let healthy = "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n";
    let other = read_to_end(&mut say_from(&victim, 8, healthy).expect("another address"));
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    let mut metrics = Connection::open(victim.address()).get("/metrics");
    assert!(metrics.text().contains(&format!("\nacerelay_parked_threads {giants}\n")), "{giants}");
    victim.assert_recovers("giants from one address", giants);
}
