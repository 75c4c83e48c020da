//! The integration tests: the real server and the simulated engine over real sockets; a module per feature.

mod binary;
mod bodies;
mod buffer;
mod clients;
mod engines;
mod harness;
mod ids;
mod layering;
mod life;
mod many;
mod metrics;
mod page;
mod race;
mod server;
mod start_faults;
