//! The integration tests: the real server and the simulated engine over real sockets.

mod layering;
