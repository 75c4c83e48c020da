//! Streams: one engine session, one fetcher thread, any number of clients.
//!
//! The way of a chunk leads through here: [`fetcher`] reads and aligns, [`fanout`] keeps the [`backlog`], within what [`memory`] allows, and hands
//! every chunk to every client's channel. Beside it stands the life of a stream: [`state`] is the pure rule,
//! [`session`] guards it with a Condvar, [`registry`] shares sessions by content.
//!
//! Nothing here names HTTP towards clients, or a client's socket.
//!
//! Lock order: registry, session, memory, fan-out. No I/O, no logging and no last drop of a chunk under any of them.

pub mod backlog;
pub mod chunk;
pub mod fanout;
pub mod fetcher;
mod flow;
pub mod marks;
pub mod memory;
mod pump;
pub mod registry;
pub mod session;
mod splice;
pub mod state;
mod ticker;
pub mod view;
