//! What a stream can still try: engines times contents, less what has failed; a plain value.
//!
//! A start and a recovery ask each engine once before any twice. What failed for good is not asked again within a start; in
//! a recovery it is, since there is time. It reads no clock, does no I/O, and knows engines by their names alone.

/// What there is to try besides the current attempt's engine and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nothing that has not failed for good.
    None,
    /// Nothing new, but this one or another may be asked once more.
    Again,
    /// Something that was asked less often than this one.
    Fresh,
}

/// What was tried since the last picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    tried: Vec<Tried>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tried {
    engine: String,
    /// Which of the wanted contents.
    source: usize,
    times: u32,
    /// The last time: how it failed, and in which words.
    failure: Option<(Failure, String)>,
}

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Its time was over, or its session was lost: it may do better the next time.
    Open,
    /// This engine does not play this content.
    Content,
    /// This engine plays nothing.
    Engine,
}

impl Candidates {
    /// The engine is asked for this content now.
    pub(super) fn begin(&mut self, engine: &str, source: usize) {
        match self.tried.iter_mut().find(|tried| tried.engine == engine && tried.source == source) {
            Some(tried) => tried.times += 1,
            None => {
                let engine = engine.to_owned();
                self.tried.push(Tried { engine, source, times: 1, failure: None });
            }
        }
    }

    /// It failed so, in these words.
    pub(super) fn fail(&mut self, engine: &str, source: usize, failure: Failure, words: String) {
        if let Some(tried) =
            self.tried.iter_mut().find(|tried| tried.engine == engine && tried.source == source)
        {
            // A session that is lost again and again is no better the next time.
            let is_hopeless = failure == Failure::Open && tried.times >= 2;
            let failure = if is_hopeless { Failure::Content } else { failure };
            tried.failure = Some((failure, words));
        }
    }

    /// How often this engine was asked for this content; for any content at all, when it was the engine that failed.
    #[must_use]
    pub(super) fn tries(&self, engine: &str, source: usize) -> u32 {
        let counts = |tried: &&Tried| {
            tried.engine == engine && (tried.source == source || tried.has_failed_as(Failure::Engine))
        };
        self.tried.iter().filter(counts).map(|tried| tried.times).sum()
    }

    /// Whether this engine is not to be asked for this content again within a start.
    #[must_use]
    pub(super) fn is_ruled_out(&self, engine: &str, source: usize) -> bool {
        self.tried.iter().any(|tried| {
            tried.engine == engine
                && (tried.has_failed_as(Failure::Engine)
                    || tried.source == source && tried.has_failed_as(Failure::Content))
        })
    }

    /// The content to ask for next on one of these engines, of those in this order: the one that was asked for least, the
    /// first of equals; one that did not come from some engine stands behind the others. `is_start` leaves out what is ruled out; `None`
    /// when nothing is left.
    #[must_use]
    pub(super) fn next_source(&self, order: &[usize], engines: &[String], is_start: bool) -> Option<usize> {
        let rank = |(place, source): (usize, &usize)| {
            let tries = engines
                .iter()
                .filter(|engine| !is_start || !self.is_ruled_out(engine, *source))
                .map(|engine| self.tries(engine, *source))
                .min()?;
            let missing = self.tried.iter().filter(|tried| tried.lacks(*source)).count();
            Some((tries, missing, place, *source))
        };
        order.iter().enumerate().filter_map(rank).min().map(|(.., source)| source)
    }

    /// What there is besides this engine and content, of so many contents, on these engines (this one among them, if it is
    /// usable).
    #[must_use]
    pub(super) fn others(
        &self,
        (engine, source): (&str, usize),
        sources: usize,
        engines: &[String],
        is_start: bool,
    ) -> Others {
        let own = self.tries(engine, source).max(1);
        let mut others = Others::None;
        for other in engines {
            for content in 0..sources {
                let is_own = other == engine && content == source;
                if is_start && self.is_ruled_out(other, content) {
                    continue;
                }
                if !is_own && self.tries(other, content) < own {
                    return Others::Fresh;
                }
                others = Others::Again;
            }
        }
        others
    }

    /// The engines that were asked.
    #[must_use]
    pub(super) fn engines(&self) -> Vec<String> {
        self.tried.iter().map(|tried| tried.engine.clone()).collect()
    }

    /// What failed, and how, if it was more than one thing; `name` says what a content is called, if there are several.
    #[must_use]
    pub(super) fn summary(&self, name: impl Fn(usize) -> Option<String>) -> Option<Vec<String>> {
        let told = |tried: &Tried| {
            let (_, words) = tried.failure.as_ref()?;
            let engine = &tried.engine;
            Some(match name(tried.source) {
                Some(content) => format!("{content} on {engine}: {words}"),
                None => format!("{engine}: {words}"),
            })
        };
        let all: Vec<_> = self.tried.iter().filter_map(told).collect();
        (all.len() > 1).then_some(all)
    }
}

impl Tried {
    fn has_failed_as(&self, failure: Failure) -> bool {
        self.failure.as_ref().is_some_and(|(last, _)| *last == failure)
    }

    fn lacks(&self, source: usize) -> bool {
        self.source == source && (self.has_failed_as(Failure::Content) || self.has_failed_as(Failure::Open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engines(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn after(tries: &[(&str, usize, Option<Failure>)]) -> Candidates {
        let mut candidates = Candidates::default();
        for (engine, source, failure) in tries {
            candidates.begin(engine, *source);
            if let Some(failure) = failure {
                candidates.fail(engine, *source, *failure, "it failed".to_owned());
            }
        }
        candidates
    }

    #[test]
    fn each_engine_is_asked_once_before_any_twice() {
        let (a, b) = (engines(&["a"]), engines(&["a", "b"]));
        let none = Candidates::default();
        assert_eq!(none.others(("a", 0), 1, &b, true), Others::Fresh);
        assert_eq!(none.others(("a", 0), 1, &a, true), Others::Again);
        let once = after(&[("a", 0, Some(Failure::Open))]);
        assert_eq!((once.tries("a", 0), once.tries("b", 0)), (1, 0));
        assert_eq!(once.others(("a", 0), 1, &b, true), Others::Fresh);
        let both = after(&[("a", 0, Some(Failure::Open)), ("b", 0, Some(Failure::Engine))]);
        assert_eq!(both.others(("b", 0), 1, &b, true), Others::Again, "a had too little time");
        let again = after(&[
            ("a", 0, Some(Failure::Open)),
            ("b", 0, Some(Failure::Engine)),
            ("a", 0, Some(Failure::Open)),
        ]);
        assert_eq!(again.others(("a", 0), 1, &b, true), Others::None);
        assert_eq!(
            again.others(("a", 0), 1, &b, false),
            Others::Fresh,
            "in a recovery b has its second turn"
        );
    }

    #[test]
    fn what_failed_for_good_is_not_asked_again_in_a_start() {
        let one = engines(&["a"]);
        for failure in [Failure::Content, Failure::Engine] {
            let failed = after(&[("a", 0, Some(failure))]);
            assert!(failed.is_ruled_out("a", 0));
            assert_eq!(failed.is_ruled_out("a", 1), failure == Failure::Engine, "{failure:?}");
            assert_eq!(failed.others(("a", 0), 1, &one, true), Others::None);
            assert_eq!(failed.others(("a", 0), 1, &one, false), Others::Again);
            assert_eq!(failed.next_source(&[0], &one, true), None);
            assert_eq!(failed.next_source(&[0], &one, false), Some(0));
        }
    }

    #[test]
    fn a_content_that_is_missing_stands_behind_the_next_and_an_engine_that_fails_behind_the_other() {
        let both = engines(&["a", "b"]);
        let next = |tries: &[_], engines: &[String]| after(tries).next_source(&[0, 1], engines, true);
        assert_eq!(next(&[], &both), Some(0));
        assert_eq!(next(&[("a", 0, Some(Failure::Content))], &both), Some(1));
        assert_eq!(next(&[("a", 0, Some(Failure::Engine))], &both), Some(0));
        assert_eq!(next(&[("a", 0, Some(Failure::Open))], &both), Some(1), "it was silent long enough");
        assert_eq!(Candidates::default().next_source(&[1, 0], &both, true), Some(1), "in their order");
        let missing = [("a", 0, Some(Failure::Content)), ("a", 1, Some(Failure::Content))];
        assert_eq!(next(&missing, &both), Some(0), "b has not been asked");
        assert_eq!(next(&missing, &both[..1]), None);
        assert_eq!(next(&[], &[]), None);
    }

    #[test]
    fn what_was_tried_is_told_if_it_was_more_than_one() {
        let candidates = after(&[("a", 0, Some(Failure::Open))]);
        assert_eq!(candidates.summary(|_| None), None);
        let candidates =
            after(&[("a", 0, Some(Failure::Open)), ("b", 0, Some(Failure::Engine)), ("c", 0, None)]);
        assert_eq!(candidates.summary(|_| None), Some(engines(&["a: it failed", "b: it failed"])));
        let name = |source: usize| Some(format!("content {source}"));
        let expected = engines(&["content 0 on a: it failed", "content 0 on b: it failed"]);
        assert_eq!(candidates.summary(name), Some(expected));
    }
}
