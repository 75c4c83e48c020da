//! The proxy's own HTTP: requests in, streams and status out.
//!
//! [`server`] hides `tiny_http`, [`socket`] everything that needs a raw descriptor. [`routes`] decides what a request
//! asks for; [`live`] streams; [`snapshot`] takes the one picture that status, [`metrics`] and, by way of
//! status, the [`page`] are rendered from.

pub mod front;
pub mod live;
pub mod metrics;
pub mod page;
pub mod response;
pub mod routes;
pub mod server;
pub mod snapshot;
pub mod socket;
