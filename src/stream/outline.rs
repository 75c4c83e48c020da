//! What is known of a backlog without its bytes: where it may be cut, and whether more will come.
//!
//! Plain values. It must not know who cuts, nor why.

use super::ending::Ending;
use super::marks::Mark;

/// A backlog at one moment.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// Where it may be cut, from the asked offset on, in the order of the stream. The last one may still change while it is no
    /// keyframe: into one, or into nothing.
    pub marks: Vec<Mark>,
    /// Offset of the oldest byte that is kept.
    pub tail: u64,
    /// Offset of the byte behind the newest.
    pub head: u64,
    /// How the stream has ended, if it has.
    pub ending: Option<Ending>,
}
