//! One AceStream engine session per channel, shared by every player in the house.

pub mod cli;
pub mod config;
pub mod escape;
pub mod id;
pub mod logging;
pub mod sim;
pub mod threads;
pub mod ts;
