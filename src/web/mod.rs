//! What is served: streams to players, status to people and programs.
//!
//! [`routes`] decides what a request asks for, by what `target` reads, [`admin`] whether it may; `live` streams, with a
//! seat in [`connections`]; `channels` tells of the house's list; `base` begins absolute URLs; [`status`] takes the one picture that status, `metrics` and, by
//! way of status, the `page` are rendered from, and `shapes` has the fields of its JSON; `sessions` finds the one that a
//! path names; `process` adds to metrics what the process takes of the system; `refusal` says which error has which status; `tuner` answers as a HDHomeRun does, `guide` what is on.
//! [`context`] is what all of them need. How a request came and how an answer goes out is the matter of [`crate::http`].

pub mod admin;
mod base;
mod channels;
pub mod connections;
pub mod context;
mod guide;
mod live;
mod metrics;
mod page;
mod process;
mod refusal;
pub mod routes;
mod sessions;
mod shapes;
pub mod status;
mod target;
mod tuner;
