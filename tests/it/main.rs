//! The integration tests: the real server and the simulated engine over real sockets; a module per feature.

mod admin;
mod binary;
mod bodies;
mod buffer;
mod clients;
mod engines;
mod harness;
mod hostile;
mod ids;
mod layering;
mod life;
mod many;
mod players;
mod race;
mod server;
mod start_faults;
