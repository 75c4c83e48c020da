//! Bodies, where there is to be none.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{ID, Victim, is_well, read_to_end};
use crate::harness::{LONG, pause, stream_path};

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

/// Three of the rows are too large to be dropped: each parks a thread for good.
const PARKED: u64 = 3;

/// So that fewer giants do: two descriptors each, and a quarter of them may be lost.
const LIMITS: &str = "ulimit -n 1600";

fn giants_are_told_to_the_watchdog(victim: &Victim) {
    const GIANTS: u64 = 1600 / 8 - PARKED;
    let giant = "GET / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n";
    for _ in 0..GIANTS - 1 {
        read_to_end(&mut victim.say(giant));
    }
    assert!(is_well(victim.address()));
    read_to_end(&mut victim.say(giant));
    let deadline = Instant::now() + LONG;
    while is_well(victim.address()) {
        assert!(Instant::now() < deadline, "it still says that it is well");
        pause(Duration::from_millis(20));
    }
    // It is worn, not dead.
    victim.assert_streams();
    eprintln!("giants, {:?}: after {:?}", victim.began.elapsed(), victim.program.usage());
}
