//! The integration tests: the real server and the simulated engine over real sockets; a module per feature.

mod admin;
mod binary;
mod bodies;
mod buffer;
mod capacity;
mod chaos;
mod clients;
mod engines;
mod failover;
mod harness;
mod hostile;
mod ids;
mod layering;
mod life;
mod many;
mod metrics;
mod players;
mod race;
mod recovery;
mod server;
mod sharing;
mod shutdown;
mod start_faults;
mod storm;
mod swarm;
