//! The integration tests: the real server and the simulated engine over real sockets; a module per feature.

mod buffer;
mod harness;
mod layering;
mod race;
mod start_faults;
