//! The limits of the service's unit, compared with what the proxy's own constants come to.

use crate::config::{Config, Server};
use crate::http::descriptors::SPARE_DESCRIPTORS;
use crate::http::dispatch::{HEALTH_REQUESTS, SPARE_REQUESTS};
use crate::http::guard::MIN_IDLE;
use crate::http::parked::ParkedThreads;
use crate::http::server::DESCRIPTOR_MARGIN;

const UNIT: &str = include_str!("../../scripts/acerelay.service");

/// A thread of `tiny_http`, beside which a connection with a request in work has one of ours.
const THREADS_PER_BUSY_CONNECTION: u64 = 2;

/// What `tiny_http` has of a connection; one that streams has another, to be ended by.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// A fetcher, and beside it a session that is opened and two that are stopped.
const THREADS_PER_STREAM: u64 = 4;

/// For each of these threads a call to an engine.
const DESCRIPTORS_PER_STREAM: u64 = THREADS_PER_STREAM;

/// As many as anybody has; each is watched.
const ENGINES: u64 = 16;

/// Main, signals, housekeeper, http, self-check, and of `tiny_http` one that accepts and four that wait; twice, since a
/// server that is built anew has its own. Once, the log, lists and guide with a fetch each, and discovery.
const SERVICE_THREADS: u64 = 20 + 6;

/// Measured: a connection's threads, 31 kB for one with two of them.
const BYTES_PER_CONNECTION: u64 = 32 * 1024;

/// Measured: what the kernel keeps for a client that takes nothing.
const BYTES_PER_STALLED_CLIENT: u64 = 283 * 1024;

/// Code, tables, the log, answers.
const BASE_BYTES: u64 = 24 * 1024 * 1024;

/// The number behind this name in the unit, with its unit of bytes if there is one.
fn in_unit(name: &str) -> u64 {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let text = line.unwrap_or_else(|| panic!("the unit has no {name}"));
    let (digits, factor) = text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1024 * 1024));
    digits.parse::<u64>().expect("a number") * factor
}

/// Holds that the unit allows what is needed, and not much more.
fn check(name: &str, needed: u64) {
    let allowed = in_unit(name);
    assert!(needed <= allowed, "{name}={allowed} is less than the {needed} that the constants come to");
    assert!(allowed <= needed + needed / 2, "{name}={allowed} is far more than {needed}");
}

#[test]
fn the_unit_allows_what_the_constants_come_to() {
    let Config { server: Server { max_clients, .. }, stream, .. } = Config::default();
    let (clients, streams) = (max_clients as u64, stream.max_streams as u64);
    // All that is allowed at once: everybody streams, as many more wait or say nothing, and peers have cost what is borne.
    let busy = clients + (SPARE_REQUESTS + HEALTH_REQUESTS) as u64;
    let idle = clients.max(MIN_IDLE as u64);
    let parked = ParkedThreads::new(in_unit("LimitNOFILE")).max();
    check(
        "TasksMax",
        THREADS_PER_BUSY_CONNECTION * busy
            + idle
            + parked
            + THREADS_PER_STREAM * streams
            + ENGINES
            + SERVICE_THREADS,
    );
    check(
        "LimitNOFILE",
        DESCRIPTORS_PER_CONNECTION * (busy + idle + parked)
            + clients
            + DESCRIPTORS_PER_STREAM * streams
            + ENGINES
            + SPARE_DESCRIPTORS as u64
            + DESCRIPTOR_MARGIN,
    );
    check(
        "MemoryMax",
        stream.memory_bytes
            + BYTES_PER_CONNECTION * (busy + idle + parked)
            + BYTES_PER_STALLED_CLIENT * clients / 2
            + BASE_BYTES,
    );
}
