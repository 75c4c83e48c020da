//! Looks at what a client received: is it whole, in order, in time?
//!
//! It knows the numbered packets of [`super::media`]; it must not know who sent them or what was scripted.

mod checker;
mod latency;

pub use self::checker::{Checker, Gap, Report};
pub use self::latency::Latency;
