//! The simulated engine over real TCP: each endpoint, each rule, each fault.
//!
//! The client here is a bare socket, so that what the engine really sends is seen. No test depends on how fast
//! the machine is: deadlines are long, and what is waited for is an event.

mod calls;
mod client;
mod dialects;
mod faults;
mod frozen;
mod health;
mod hls;
mod mortal;
mod restarts;
mod rules;
mod streams;
mod stuck;
