//! One AceStream engine session per channel, shared by every player in the house.
//!
//! This page is the architecture. The program is synchronous and threaded: blocking calls with deadlines, Condvars,
//! crossbeam channels; no async runtime.
//!
//! Its words: a *stream* is what clients share; an *engine session* is what an engine has opened for it; a *client* is a
//! player with a *seat* on a stream; an *attempt* is one try of a stream to get a source.
//!
//! # The race that must not exist
//!
//! Starting a fetcher returns at once, so nothing may treat a stream as there until the fetcher itself has said so.
//! [`stream::state`] holds the rule as a pure function, [`stream::stream`] guards its state with a Condvar:
//! `Starting` becomes `Active` when the engine has answered the playback request *and* the first whole TS packets with
//! picture or sound are published. Every other way out of the fetcher's thread, a panic included, wakes whoever waits with
//! the reason. All who wait for one start get the same outcome, and only then does a client get its status line.
//!
//! # The way of a chunk
//!
//! ```text
//! engine/playback.rs       Playback::read            bytes off the engine's socket; if they are a list, of its segments (hls)
//! stream/pump.rs           Pump::run                 aligns them to packets, seams sources (splice), finds keyframes (marks)
//! stream/fanout.rs         Fanout::publish           into the backlog, and into every client's channel; never blocks
//! web/live.rs              ClientStream::feed        takes the next chunk on the client's own thread
//! http/request.rs          Body::write               one write, bounded in time
//! ```
//!
//! A chunk is one allocation with the frame of the chunked coding round it, shared by all clients.
//!
//! A film takes another way. Each client reads the part that it asks for over a connection of its own, out of the one engine
//! session: `engine::playback` gives the part, [`stream::film`] reads it on a thread, `web::film` writes it. Nothing is kept,
//! and nothing is shared but the session; seats, states and recovery are those of a stream.
//!
//! # Layers
//!
//! Imports point down only, and no two files import each other; a test reads them and holds both.
//!
//! ```text
//! 5  main  app  cli  logging  notify       sim (beside: engine, media, judge; for --demo, tests and benchmark)
//! 4  web        what is served: streams, status, metrics, the page
//! 3  http       how it is served: tiny_http contained, connections, requests, answers
//!    channels   the house's channels, out of its lists
//!    guide      what is on, cut down to the channels
//!    tuner      the channels as a HDHomeRun has them
//!    hls        what is listed: a stream cut into segments, and lists as text; pure
//! 2  stream     streams, their sources and their clients
//! 1  engine     how engines are asked, and which one is taken
//! 0  allocator  config  escape  fnv  id  stats  sync  threads  ts  wanted
//! ```
//!
//! - `stream` names neither HTTP nor sockets; `http` knows no streams and no engines; `engine` knows no streams; `ts` reads
//!   no clock.
//! - `tiny_http` is named in `http::server` and `http::incoming` alone, `ureq` in `engine` and `channels::sources` alone,
//!   `unsafe` in `http::socket` and `allocator` alone, UDP in `tuner::discover` alone.
//! - Only `app`, `cli` and `main` see the whole configuration; everybody else gets its own section, by value or, where it
//!   may be replaced at run time, by a [`config::Live`] handle that is asked when the settings are needed.
//!
//! # Threads
//!
//! | thread | blocks in | woken by |
//! |---|---|---|
//! | main | the channel of the first signal; under systemd, a timer | `signals` |
//! | http | the next request; looks at all connections each second | a request, a timer |
//! | self-check | a timer; asks its own port | a request, a connection that has asked nothing, the stop channel |
//! | client-N | one connection's requests, in turn: the stream's Condvars, a socket write | fetcher, kernel, deadlines |
//! | fetch-ID | connect, head, body, stop: each with a deadline | its interrupter, the stop channel |
//! | film-N | one client's part of a film: head, body; its one piece not taken yet | its interrupter, the client's thread |
//! | housekeeper | the next deadline of a stream; drives them all | a stream that begins or changes its state, the stop channel |
//! | lists | a timer; fetches and reads one list after the other | the stop channel, a reload |
//! | guide | a timer; fetches and cuts down one guide after the other | the stop channel |
//! | discovery | the next UDP datagram, for a quarter of a second; only with `[tuner] discovery` | a datagram, the stop channel |
//! | log | the queue of lines; a write that may block for good, so that nobody else does | a line |
//! | engine-N | a timer, health checks | the stop channel, its interrupter, whoever needs an engine now or takes a place on it |
//! | fetch-list | the answer to one fetch of a list or guide, each step with a deadline | nobody: it ends by itself |
//! | look-up | the system's look-up of one engine's name; one at a time for each engine | nobody: it ends by itself |
//!
//! All are started by [`threads`] and joined at shutdown, but for the log's and a look-up's, which end with the process. No
//! crate starts one for a call to an engine. The threads http, self-check, housekeeper, lists, guide, discovery and engine-N must never stop: they beat
//! ([`threads::heartbeat`]), and `/healthz` is 503 when one does not.
//!
//! # The order of the locks
//!
//! `stream::directory`, then one `stream::stream`, then `stream::memory`, then one `stream::fanout`: whoever holds one may
//! take those that follow, never one before it, and never two streams'. `stream::past`, and what a stream can be played
//! from, may be taken under any of them. Whoever holds the one of a stream's segments (`web::hls::broadcast`) may take that
//! stream's `stream::fanout`. Every other lock is taken alone. Nobody does I/O, logs, or drops the last handle of a chunk
//! under a lock. What a stream's threads share is locked by [`sync`], so that `stream::models` can run them in many orders.

pub mod allocator;
pub mod app;
pub mod channels;
pub mod cli;
pub mod config;
pub mod engine;
pub mod escape;
pub mod fnv;
pub mod guide;
pub mod hls;
pub mod http;
pub mod id;
pub mod logging;
pub mod notify;
pub mod sim;
pub mod stats;
pub mod stream;
pub mod sync;
pub mod threads;
pub mod ts;
pub mod tuner;
pub mod wanted;
pub mod web;
