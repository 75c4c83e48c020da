//! The locks, Condvars and atomics that the threads of a stream share.
//!
//! They are those of `parking_lot` and of the standard library. Built with `--cfg shuttle`, unit tests get those of the crate of
//! that name in their place, under which one thread runs at a time and each operation may hand over to another: so the tests in
//! `stream::models` run fetcher, clients and housekeeper in thousands of orders. It must not know what is guarded.

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::atomic;

#[cfg(all(test, shuttle))]
mod shuttled;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic;
#[cfg(all(test, shuttle))]
pub(crate) use shuttled::{Condvar, Mutex, MutexGuard};
