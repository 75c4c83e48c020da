//! What the proxy knows of AceStream engines: how to ask one for a session, how to play it, how to stop it,
//! and which of several to take.
//!
//! `ureq` is named here and nowhere else. Nothing here knows of streams, clients or the proxy's own HTTP.

mod agent;
mod answer;
pub mod api;
pub mod blame;
pub mod choose;
mod course;
pub mod error;
pub mod file;
mod get;
mod halt;
mod health;
mod hls;
mod host;
pub mod m3u8;
pub mod member;
mod news;
pub mod playback;
pub mod pool;
mod pulse;
pub mod relays;
pub mod stat;
pub mod url;
pub mod watch;
