//! How it is served: connections, requests and answers, with `tiny_http` contained.
//!
//! [`listener`] is the port, and `leave` how it goes to the next process. [`server`] and `incoming` hide `tiny_http`,
//! `dispatch` gives each connection a thread, [`turnstile`] counts how many; [`socket`] has everything that needs a raw
//! socket, [`descriptors`] what there is of them; [`guard`] says which connections have to go, `announced` which requests
//! can be dropped, [`parked`] which threads are lost, `refused` who has cost too many of them and `filter` how the kernel
//! keeps those out, `strangers` who sent what is no request. [`request`], and [`response`] with its [`body`], are what is
//! left for those who serve; [`range`] reads which part of a thing is asked for.
//!
//! Nothing here knows of streams or engines, nor of any path but that of the self-check.

mod announced;
pub mod body;
pub mod descriptors;
pub(crate) mod dispatch;
mod filter;
pub mod guard;
mod incoming;
mod leave;
pub mod listener;
pub mod parked;
pub mod range;
mod refused;
pub mod request;
pub mod response;
mod selfcheck;
pub mod server;
pub mod socket;
mod strangers;
pub mod turnstile;
