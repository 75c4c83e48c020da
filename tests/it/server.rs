//! The server beside its streams: what is answered, and that nobody can keep it from answering.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::harness::{Connection, Proxy, engine, in_parallel};

#[test]
fn a_burst_of_connections_that_stay_open_is_answered_at_once() {
    const CLIENTS: usize = 50;
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let address = proxy.address;
    let (gate, exit) = (Arc::new(Barrier::new(CLIENTS)), Arc::new(Barrier::new(CLIENTS)));
    let times = in_parallel(CLIENTS, move |_| {
        gate.wait();
        let began = Instant::now();
        let reply = Connection::open(address).get("/ace/status");
        let took = began.elapsed();
        assert_eq!(reply.status, 200);
        exit.wait();
        took
    });
    let longest = times.into_iter().max().expect("fifty times");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}
