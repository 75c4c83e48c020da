//! The simulated engine over real TCP: each endpoint, each rule, each fault.
//!
//! The client here is a bare socket, so that what the engine really sends is seen. No test depends on how fast
//! the machine is: deadlines are long, and what is waited for is an event.

mod calls;
mod client;
mod faults;
mod hls;
mod rules;
mod streams;
