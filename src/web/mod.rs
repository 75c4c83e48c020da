//! What is served: streams to players, status to people and programs.
//!
//! [`routes`] decides what a request asks for, by what `target` reads, [`admin`] whether it may; `live` streams, [`hls`]
//! gives the same in lists and segments, and `film` gives parts of a film, each from a `place` of its own, with its
//! connection in [`connections`]; `channels` tells of the house's list, `guide` of what is on, `tuner` answers as a
//! HDHomeRun does, [`face`] as an engine; `base` begins absolute URLs, `etag` tells who has already what it asks for;
//! [`status`] takes the one picture that status, `metrics` and, by way of status, the `page` are rendered from, and
//! `shapes` has the fields of its JSON; `sessions` finds the one that a path names; `process` adds to metrics what the
//! process takes of the system; `refusal` says which error has which status. [`context`] is what all of them need. How a
//! request came and how an answer goes out is the matter of [`crate::http`].

pub mod admin;
mod base;
mod channels;
pub mod connections;
pub mod context;
mod etag;
pub mod face;
mod film;
mod guide;
pub mod hls;
mod live;
mod metrics;
mod page;
mod place;
mod process;
mod refusal;
pub mod routes;
mod sessions;
mod shapes;
pub mod status;
mod target;
mod tuner;
