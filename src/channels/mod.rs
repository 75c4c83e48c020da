//! The house's channels: merged from the configuration and other people's lists, each with the contents that can play it.
//!
//! The way of a list: `keeper` has `sources` fetch it, `m3u` reads it, `merge` makes channels of what is in all of them, `register`
//! gives those numbers and paths for life, [`list`] is what comes of it, and `playlist` writes it for players. All of
//! it takes values and gives values but for two files: `sources` alone asks the network, [`state`] alone writes to disk. It
//! must not know how a channel is played, nor how it is served.

mod address;
pub mod keeper;
mod lines;
pub mod list;
mod m3u;
mod merge;
mod names;
pub mod playlist;
mod register;
pub mod sources;
pub mod state;
mod text;
