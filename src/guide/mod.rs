//! The guide: what is on, cut down from other people's guides to the house's channels and the next days.
//!
//! A guide is a stranger's file of up to a gigabyte of XML, for a box that may have less memory than that. So it is read
//! once, event by event, and what is kept goes to disk at once. The way of a guide: `text` makes good UTF-8 of it and bounds
//! each event, `filter` takes from it what `wanted` and `time` say, in the well-formed spelling of `xml`; `part` is what is
//! kept of one guide, and `merge` makes of all parts the one guide that `current` holds for whoever asks. `refresh` is the
//! thread that does all this in turn. How a guide goes out is not known here.

pub mod current;
mod filter;
mod merge;
mod part;
pub mod refresh;
mod text;
mod time;
mod wanted;
mod xml;
