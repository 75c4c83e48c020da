//! The proxy's own HTTP: requests in, streams and status out.
//!
//! [`listener`] is the port, and `leave` how it goes to the next process. [`server`] and `incoming` hide `tiny_http`,
//! [`socket`] everything that needs a raw descriptor, [`guard`] says which connections have to go. [`routes`] decides what
//! a request asks for, [`admin`] whether it may; [`live`] streams; [`snapshot`] takes the one picture that status,
//! [`metrics`] and, by way of status, the [`page`] are rendered from; [`process`] adds to metrics what the process takes of
//! the system.

pub mod admin;
pub mod front;
pub mod guard;
mod incoming;
mod leave;
pub mod listener;
pub mod live;
pub mod metrics;
pub mod page;
pub mod process;
pub mod request;
pub mod response;
pub mod routes;
mod selfcheck;
pub mod server;
pub mod snapshot;
pub mod socket;
