//! One AceStream engine session per channel, shared by every player in the house.

pub mod app;
pub mod cli;
pub mod config;
pub mod engine;
pub mod escape;
pub mod http;
pub mod id;
pub mod logging;
pub mod sim;
pub mod stats;
pub mod stream;
pub mod threads;
pub mod ts;
