//! What failed starts say about an engine: a pure value.
//!
//! An engine whose starts fail stands behind the others for a while; nothing is ever refused for it. But a channel that is
//! offline is no reason to start the next one elsewhere: a fault that may be the content's own counts for this content
//! alone, so that its next try goes to another engine. Only when content after content fails so, the engine may have lost its
//! network. It must not know what a start is for.

use std::time::{Duration, Instant};

use crate::id::ContentName;

use super::error::{EngineError, HlsFault};

/// After a failed start an engine stands behind the others for so long: the next try goes elsewhere first.
const PENALTY: Duration = Duration::from_secs(10);

/// Whose fault a failed start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The engine's: it does not answer, or not as an engine should.
    Engine,
    /// Most likely the content's: it is not to be found, or nobody sends it.
    Content,
}

impl Fault {
    /// Whose fault a getstream is that failed so.
    #[must_use]
    pub fn of(error: &EngineError) -> Self {
        // What a list says is what its broadcaster made of it.
        let is_unfit = matches!(error, EngineError::Hls(HlsFault::Unfit(_)));
        if is_unfit || error.is_unknown_content() { Self::Content } else { Self::Engine }
    }
}

/// What is held against an engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Blame {
    failed_at: Option<Instant>,
    /// The last content whose fault a start was, with no success since.
    doubted: Option<(ContentName, Instant)>,
}

impl Blame {
    /// A start of this content failed. Tells whether that is held against the engine itself.
    pub(super) fn fail(&mut self, content: ContentName, fault: Fault, now: Instant) -> bool {
        let is_the_engine_s = match fault {
            Fault::Engine => true,
            Fault::Content => {
                let last = self.doubted.replace((content, now));
                last.is_some_and(|(last, _)| last != content)
            }
        };
        if is_the_engine_s {
            self.failed_at = Some(now);
        }
        is_the_engine_s
    }

    /// Something started on it.
    pub(super) fn succeed(&mut self) {
        self.doubted = None;
    }

    /// Whether it stands behind the others for this content.
    pub(super) fn is_penalised(&self, content: ContentName, now: Instant) -> bool {
        let is_late = |at: Instant| now.saturating_duration_since(at) < PENALTY;
        self.failed_at.is_some_and(is_late)
            || self.doubted.is_some_and(|(doubted, at)| doubted == content && is_late(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::m3u8::ListError;
    use crate::id::Digest;

    const ONE: ContentName = ContentName::Id(Digest::new([1; 20]));
    const TWO: ContentName = ContentName::Id(Digest::new([2; 20]));

    /// After these starts, of which those without a fault succeed: whether the engine stands behind the others for the one
    /// content, and for the other.
    fn check(starts: &[(ContentName, Option<Fault>)], expected: [bool; 2]) {
        let (mut blame, now) = (Blame::default(), Instant::now());
        for (content, fault) in starts {
            match fault {
                Some(fault) => drop(blame.fail(*content, *fault, now)),
                None => blame.succeed(),
            }
        }
        assert_eq!([ONE, TWO].map(|content| blame.is_penalised(content, now)), expected, "{starts:?}");
        let later = now + PENALTY;
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
        check(&[(ONE, content), (TWO, None)], [false, false]);
        check(&[(ONE, content), (TWO, None), (TWO, content)], [false, true]);
        check(&[(ONE, content), (TWO, engine)], [true, true]);
    }

    #[test]
    fn only_what_is_not_to_be_found_or_not_to_be_played_is_the_content_s_fault() {
        let said = |text: &str| EngineError::Said(text.to_owned());
        assert_eq!(Fault::of(&said("failed to load content")), Fault::Content);
        assert_eq!(Fault::of(&EngineError::Hls(HlsFault::Unfit(ListError::Encrypted))), Fault::Content);
        for error in
            [said("out of order"), EngineError::Silent(PENALTY), EngineError::Status(500, String::new())]
        {
            assert_eq!(Fault::of(&error), Fault::Engine, "{error}");
        }
    }
}
