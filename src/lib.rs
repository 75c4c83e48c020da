//! One AceStream engine session per channel, shared by every player in the house.
//!
//! This page is the architecture. The program is synchronous and threaded: blocking calls with deadlines, Condvars,
//! crossbeam channels; no async runtime.
//!
//! # The race that must not exist
//!
//! Starting a fetcher returns at once, so nothing may treat a stream as there until the fetcher itself has said so.
//! [`stream::state`] holds the rule as a pure function, [`stream::session`] guards its state with a Condvar:
//! `Starting` becomes `Active` when the engine has answered the playback request *and* the first whole TS packets are
//! published. Every other way out of the fetcher's thread, a panic included, wakes whoever waits with the reason. All who
//! wait for one start get the same outcome, and only then does a client get its status line.
//!
//! # The way of a chunk
//!
//! ```text
//! engine::playback    reads bytes off the engine's socket
//! stream::fetcher     aligns them to packets, finds keyframes
//! stream::fanout      keeps them in the backlog and gives them to every client's channel; never blocks
//! http::live          takes the next chunk on the client's own thread: one write
//! http::server        the writer underneath, bounded in time
//! ```
//!
//! A chunk is one allocation with the frame of the chunked coding round it, shared by all clients.
//!
//! # Layers
//!
//! Imports point down only; a test reads them and holds this.
//!
//! ```text
//! 5  main  app  cli  logging  notify       sim (beside: the simulated engine)
//! 4  http
//! 2  stream
//! 1  engine
//! 0  id  stats  threads  config  escape  ts
//! ```
//!
//! - `stream` names neither HTTP nor sockets; `engine` knows no streams; `ts` reads no clock.
//! - `tiny_http` is named in `http::server` and `http::incoming` alone, `ureq` in `engine` alone, `unsafe` in `http::socket` alone.
//! - Only `app` and `main` see the whole configuration; everybody else gets its own section by value.
//!
//! # Threads
//!
//! | thread | blocks in | woken by |
//! |---|---|---|
//! | main | the channel of the first signal; under systemd, a timer | `signals` |
//! | http | the next request; looks at all connections each second | a request, a timer |
//! | self-check | a timer; asks its own port | the stop channel |
//! | client-N | one connection's requests, in turn: the session's Condvar, the stream's Condvar, a socket write | fetcher, kernel, deadlines |
//! | fetch-ID | connect, head, body, stop: each with a deadline | its interrupter, the stop channel |
//! | housekeeper | a timer; drives all deadlines of streams | the stop channel |
//! | engine-N | a timer, health checks | the stop channel, its interrupter |
//!
//! All are started by [`threads`] and joined at shutdown. Lock order: registry, session, fan-out; all others alone. No I/O,
//! no logging and no last drop of a chunk under a lock.

pub mod app;
pub mod cli;
pub mod config;
pub mod engine;
pub mod escape;
pub mod http;
pub mod id;
pub mod logging;
pub mod notify;
pub mod sim;
pub mod stats;
pub mod stream;
pub mod threads;
pub mod ts;
