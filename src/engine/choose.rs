//! Which engine takes the next stream: a pure function of plain values.
//!
//! It must not know how an engine came to be as it is, nor what becomes of the choice.

/// What the choice is made of.
#[derive(Clone, Copy, Debug)]
pub struct EngineView {
    /// Not known to be down.
    pub is_usable: bool,
    /// Its P2P port is reachable from outside: it finds more peers.
    pub is_forwarded: bool,
    /// Streams it has, those just starting included.
    pub streams: usize,
    /// Streams it may have.
    pub max_streams: usize,
    /// Streams being started on it.
    pub starts: usize,
    /// Streams that may be started at once.
    pub max_starts: usize,
    /// A start failed on it lately, in a way that speaks against another one.
    pub is_penalised: bool,
    /// The stream that looks for an engine has its clients' picture from this one.
    pub is_preferred: bool,
    /// It plays the same content with other parameters.
    pub has_other_variant: bool,
    /// How often the stream has asked it since its last picture; `None` if it is not to be asked again.
    pub tries: Option<u32>,
}

/// Why no engine can take a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Every engine is down.
    AllDown,
    /// Every engine that is up has as many streams as it may.
    AllFull,
    /// Every engine with room starts as many streams as it may: one's turn comes soon.
    AllStarting,
    /// Every engine with room plays the same content with other parameters.
    OtherVariant,
    /// Every engine that could take it was asked, and failed for good.
    AllTried,
}

/// The engine for the next stream, as an index: of those that are up and have room, the one that was asked least first, then
/// one without a failed start, then the preferred one, then a forwarded one, then the one with the fewest streams, then the first.
///
/// # Errors
///
/// When there is none.
pub fn choose(views: &[EngineView]) -> Result<usize, Unavailable> {
    let usable = || views.iter().enumerate().filter(|(_, view)| view.is_usable);
    let untried = || usable().filter(|(_, view)| view.tries.is_some());
    let with_place = || untried().filter(|(_, view)| view.streams < view.max_streams);
    let without_variant = || with_place().filter(|(_, view)| !view.has_other_variant);
    let with_turn = without_variant().filter(|(_, view)| view.starts < view.max_starts);
    let rank = |view: &EngineView| {
        (view.tries, view.is_penalised, !view.is_preferred, !view.is_forwarded, view.streams)
    };
    match with_turn.min_by_key(|(_, view)| rank(view)) {
        Some((index, _)) => Ok(index),
        None if without_variant().next().is_some() => Err(Unavailable::AllStarting),
        None if with_place().next().is_some() => Err(Unavailable::OtherVariant),
        None if untried().next().is_some() => Err(Unavailable::AllFull),
        None if usable().next().is_some() => Err(Unavailable::AllTried),
        None => Err(Unavailable::AllDown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(is_usable: bool, is_forwarded: bool, streams: usize) -> EngineView {
        EngineView {
            is_usable,
            is_forwarded,
            streams,
            max_streams: 4,
            starts: 0,
            max_starts: 2,
            is_penalised: false,
            is_preferred: false,
            has_other_variant: false,
            tries: Some(0),
        }
    }

    #[test]
    fn a_forwarded_engine_beats_a_plain_one() {
        assert_eq!(choose(&[view(true, false, 0), view(true, true, 0)]), Ok(1));
    }

    #[test]
    fn a_forwarded_engine_with_streams_still_beats_an_idle_plain_one() {
        assert_eq!(choose(&[view(true, false, 0), view(true, true, 2)]), Ok(1));
    }

    #[test]
    fn an_unhealthy_engine_is_never_chosen() {
        assert_eq!(choose(&[view(false, true, 0), view(true, false, 3)]), Ok(1));
    }

    #[test]
    fn of_equals_the_least_loaded_is_chosen_then_the_first() {
        assert_eq!(choose(&[view(true, true, 3), view(true, true, 1), view(true, true, 2)]), Ok(1));
        assert_eq!(choose(&[view(true, true, 1), view(true, true, 1)]), Ok(0));
    }

    #[test]
    fn none_is_chosen_when_all_are_down_or_full() {
        assert_eq!(choose(&[]), Err(Unavailable::AllDown));
        assert_eq!(choose(&[view(false, true, 0), view(false, false, 0)]), Err(Unavailable::AllDown));
        assert_eq!(choose(&[view(false, true, 0), view(true, false, 4)]), Err(Unavailable::AllFull));
    }

    #[test]
    fn an_engine_that_failed_stands_behind_the_others_but_is_better_than_none() {
        let failed = EngineView { is_penalised: true, ..view(true, true, 0) };
        assert_eq!(choose(&[failed, view(true, false, 3)]), Ok(1));
        assert_eq!(choose(&[failed, view(false, false, 0)]), Ok(0));
    }

    #[test]
    fn a_lost_picture_is_looked_for_on_its_own_engine_first() {
        let own = EngineView { is_preferred: true, ..view(true, false, 3) };
        assert_eq!(choose(&[view(true, true, 0), own]), Ok(1));
        assert_eq!(choose(&[view(true, true, 0), EngineView { is_penalised: true, ..own }]), Ok(0));
        assert_eq!(choose(&[view(true, true, 0), EngineView { is_usable: false, ..own }]), Ok(0));
    }

    #[test]
    fn an_engine_with_another_variant_of_the_content_is_never_chosen() {
        let taken = EngineView { has_other_variant: true, ..view(true, true, 1) };
        assert_eq!(choose(&[taken, view(true, false, 3)]), Ok(1));
        assert_eq!(choose(&[taken, view(true, false, 4)]), Err(Unavailable::OtherVariant));
        let starting = EngineView { starts: 2, ..view(true, false, 3) };
        assert_eq!(choose(&[taken, starting]), Err(Unavailable::AllStarting));
    }

    #[test]
    fn each_engine_is_asked_once_before_any_twice() {
        let tried = |tries| EngineView { tries, ..view(true, true, 0) };
        let ill = EngineView { is_penalised: true, ..view(true, false, 3) };
        assert_eq!(choose(&[tried(Some(1)), ill]), Ok(1));
        assert_eq!(choose(&[tried(Some(2)), tried(Some(1))]), Ok(1));
        assert_eq!(choose(&[tried(None), tried(Some(3))]), Ok(1));
        assert_eq!(choose(&[tried(None), view(false, true, 0)]), Err(Unavailable::AllTried));
        assert_eq!(choose(&[tried(None), view(true, true, 4)]), Err(Unavailable::AllFull));
    }

    #[test]
    fn who_finds_every_engine_starting_has_to_wait_its_turn() {
        let busy = EngineView { starts: 2, ..view(true, true, 2) };
        assert_eq!(choose(&[busy, view(true, false, 0)]), Ok(1));
        assert_eq!(choose(&[busy, view(true, false, 4)]), Err(Unavailable::AllStarting));
    }
}
