//! What failed starts say about an engine: a pure value.
//!
//! An engine whose starts fail stands behind the others for a while; nothing is ever refused for it. Blame has two targets:
//! the engine, and one content on this engine. A channel that is offline is no reason to start the next one elsewhere, nor
//! to call the engine broken: it counts for this content alone, so that its next try goes to another engine. Only when
//! content after content fails so the engine may have lost its network, and stands behind for all. It must not know what a
//! start is for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::id::ContentName;

use super::error::EngineError;

/// After a failed start an engine stands behind the others for so long: the next try goes elsewhere first.
const PENALTY: Duration = Duration::from_secs(10);

/// A content that failed here is looked for elsewhere first for so long. Longer than a player's pause between two tries, and
/// than a stuck download lives without readers (engine-contract.md section 13).
const CONTENT_PENALTY: Duration = Duration::from_secs(60);

/// More contents than any house tries within a minute.
const MAX_CONTENTS: usize = 64;

/// Whose fault a failed start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The engine's: it does not answer, or not as an engine should.
    Engine,
    /// Most likely the content's: it is not to be found, or nobody sends it.
    Content,
}

impl Fault {
    /// Whose fault a getstream or a playback is that failed so. That nothing followed a good head is the content's.
    #[must_use]
    pub fn of(error: &EngineError) -> Self {
        if error.is_engines() { Self::Engine } else { Self::Content }
    }
}

/// What is held against an engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Blame {
    failed_at: Option<Instant>,
    /// The contents whose fault a start was, each with the time of its last one; oldest first.
    contents: VecDeque<(ContentName, Instant)>,
    /// The last content whose fault a start was, if nothing started since.
    doubted: Option<ContentName>,
}

impl Blame {
    /// A start of this content failed.
    pub(super) fn fail(&mut self, content: ContentName, fault: Fault, now: Instant) {
        match fault {
            Fault::Engine => self.failed_at = Some(now),
            Fault::Content => {
                self.forget(content);
                if self.contents.len() == MAX_CONTENTS {
                    self.contents.pop_front();
                }
                self.contents.push_back((content, now));
                if self.doubted.replace(content).is_some_and(|last| last != content) {
                    self.failed_at = Some(now);
                }
            }
        }
    }

    /// This content started on it.
    pub(super) fn succeed(&mut self, content: ContentName) {
        self.doubted = None;
        self.forget(content);
    }

    fn forget(&mut self, content: ContentName) {
        self.contents.retain(|(known, _)| *known != content);
    }

    /// Whether it stands behind the others for this content.
    pub(super) fn is_penalised(&self, content: ContentName, now: Instant) -> bool {
        let is_late = |at: Instant, penalty| now.saturating_duration_since(at) < penalty;
        self.failed_at.is_some_and(|at| is_late(at, PENALTY))
            || self.contents.iter().any(|(known, at)| *known == content && is_late(*at, CONTENT_PENALTY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::HlsFault;
    use crate::engine::m3u8::ListError;
    use crate::id::Digest;

    const ONE: ContentName = ContentName::Id(Digest::new([1; 20]));
    const TWO: ContentName = ContentName::Id(Digest::new([2; 20]));

    fn nth(number: u8) -> ContentName {
        ContentName::Id(Digest::new([number; 20]))
    }

    /// After these starts, of which those without a fault succeed: whether the engine stands behind the others for the one
    /// content, and for the other.
    fn check(starts: &[(ContentName, Option<Fault>)], expected: [bool; 2]) {
        let (mut blame, now) = (Blame::default(), Instant::now());
        for (content, fault) in starts {
            match fault {
                Some(fault) => blame.fail(*content, *fault, now),
                None => blame.succeed(*content),
            }
        }
        assert_eq!([ONE, TWO].map(|content| blame.is_penalised(content, now)), expected, "{starts:?}");
        let later = now + CONTENT_PENALTY;
        assert_eq!([ONE, TWO].map(|content| blame.is_penalised(content, later)), [false; 2], "{starts:?}");
    }

    #[test]
    fn a_content_s_fault_counts_for_this_content_until_another_one_fails_too() {
        let (engine, content) = (Some(Fault::Engine), Some(Fault::Content));
        check(&[], [false, false]);
        check(&[(ONE, engine)], [true, true]);
        check(&[(ONE, engine), (TWO, None)], [true, true]);
        check(&[(ONE, content)], [true, false]);
        check(&[(ONE, content), (ONE, content), (ONE, content)], [true, false]);
        check(&[(ONE, content), (TWO, content)], [true, true]);
        check(&[(ONE, content), (ONE, None)], [false, false]);
        // That another one plays does not bring this one back.
        check(&[(ONE, content), (TWO, None)], [true, false]);
        check(&[(ONE, content), (TWO, None), (TWO, content)], [true, true]);
        check(&[(ONE, content), (TWO, engine)], [true, true]);
    }

    #[test]
    fn each_content_that_failed_is_remembered_up_to_a_bound() {
        let (mut blame, now) = (Blame::default(), Instant::now());
        for number in 0..=MAX_CONTENTS as u8 {
            blame.fail(nth(number), Fault::Content, now);
            blame.succeed(nth(255));
        }
        let later = now + PENALTY;
        assert!(!blame.is_penalised(nth(0), later), "the oldest gave way");
        assert!((1..=MAX_CONTENTS as u8).all(|number| blame.is_penalised(nth(number), later)));
        assert!(!blame.is_penalised(nth(255), later), "the engine is well");
        assert_eq!(blame.contents.len(), MAX_CONTENTS);
    }

    #[test]
    fn only_what_is_not_to_be_found_is_the_content_s_fault() {
        let said = |text: &str| EngineError::Said(text.to_owned());
        assert_eq!(Fault::of(&said("failed to load content")), Fault::Content);
        assert_eq!(Fault::of(&EngineError::Status(404, String::new())), Fault::Content, "of a playback");
        assert_eq!(Fault::of(&EngineError::Hls(HlsFault::Unfit(ListError::Encrypted))), Fault::Content);
        for error in
            [said("out of order"), EngineError::Silent(PENALTY), EngineError::Status(500, String::new())]
        {
            assert_eq!(Fault::of(&error), Fault::Engine, "{error}");
        }
    }
}
