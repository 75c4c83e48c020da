//! The simulated engine, the media it sends, and the judge of what arrives.
//!
//! The demo, the tests and the benchmark use the same one. It follows `engine-contract.md`, with the session
//! rules of real engines switched on, and is strict: what it forgives, a real engine would punish. What goes
//! wrong is scripted for each content ([`Script`]), ordered while it runs ([`SimEngine::order`]), done to a content
//! ([`SimEngine::stick`], [`SimEngine::restart_broadcast`]) or to the engine as a whole ([`SimEngine::refuse`],
//! [`SimEngine::slam`], [`SimEngine::freeze`], [`SimEngine::crash`], [`SimEngine::set_health`]). How another engine words
//! its answers is a [`Dialect`]. What a client should not have done is counted ([`Counts`]).
//!
//! It imports nothing of the proxy but ids and threads, so that neither can agree with the other on a mistake.
//! [`media`] makes packets and knows neither of the others; [`engine`] sends them; [`judge`] looks at what came of them.

pub mod demo;
pub mod engine;
mod guide;
pub mod judge;
pub mod media;
#[cfg(test)]
mod tests;

pub use self::engine::{
    Begin, BodyEvent, Burst, Call, CallKind, Content, Counts, Delivery, Dialect, Dress, EndedReaders, Entry,
    Fill, FilmFile, Framing, Getstream, Head, Health, Hls, HlsKind, HostName, Order, Pace, Parts,
    PlaybackStep, RequestRecord, Script, SessionRules, Settings, SimEngine, Steps, Stuck,
};
pub use self::judge::{Checker, Gap, Latency, Report};
pub use self::media::{FileBytes, Media, Numbered, Restart, now_us};
