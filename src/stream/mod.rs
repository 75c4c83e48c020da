//! Streams: one engine session, one fetcher thread, any number of clients.
//!
//! The way of a chunk leads through here: the `fetcher` obtains a source, the `pump` reads and aligns it (with `pacing`, `splice`,
//! [`marks`], `timeline` and `published`), [`fanout`] keeps it in the [`backlog`], within what [`memory`] allows, and hands
//! every chunk to every client's channel. Beside it stands the life of a stream: [`state`] is the pure rule, [`stream`] guards
//! it with a Condvar, [`directory`] says which streams there are, [`streams`] who comes and goes, `stopping` ends engine sessions,
//! and [`lease`] holds the seats of viewers without a connection. A [`film`] takes another way: each client reads it for itself.
//!
//! Nothing here names HTTP towards clients, or a client's socket. The order of the locks stands in the crate's page.

pub mod backlog;
pub mod budget;
mod candidates;
pub mod chunk;
pub mod client;
pub mod directory;
pub mod ending;
pub mod fanout;
mod fetcher;
pub mod film;
mod flow;
pub mod lease;
pub mod marks;
pub mod memory;
#[cfg(all(test, shuttle))]
mod models;
mod opening;
pub mod outline;
mod pacing;
pub mod past;
mod published;
mod pump;
mod splice;
pub mod state;
mod stopping;
#[expect(clippy::module_inception, reason = "the folder is about streams, and this file is one")]
pub mod stream;
pub mod streams;
mod ticker;
mod timeline;
pub mod view;
