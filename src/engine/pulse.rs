//! Signs of life of one engine: what was asked, what was answered, when packets came.
//!
//! Whether it is dead, ill or slow is decided by others. It must not know what the questions were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A question that an engine in good health answers at once counts as unanswered after so long.
const PROMPT: Duration = Duration::from_secs(2);

/// After so many questions in a row without an answer, whoever waits for one waits in vain.
const UNANSWERED: u32 = 2;

/// Signs of life of one engine.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Instant,
    told: Mutex<Told>,
    /// Milliseconds since `began`, plus one, of the last packets; 0 before the first.
    packets_at: AtomicU64,
}

#[derive(Debug, Default)]
struct Told {
    answered_at: Option<Instant>,
    /// The first question since then that should have been answered at once.
    asked_at: Option<Instant>,
    /// Such questions since then whose time was over.
    unanswered: u32,
    /// That it has fallen silent was told.
    is_told: bool,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, told: Mutex::default(), packets_at: AtomicU64::new(0) }
    }

    /// A question was asked that should be answered at once.
    pub(super) fn ask(&self, now: Instant) {
        self.told.lock().asked_at.get_or_insert(now);
    }

    /// Its time is over.
    pub(super) fn miss(&self) {
        let mut told = self.told.lock();
        told.unanswered = told.unanswered.saturating_add(1);
    }

    /// Some question, whichever, was answered, however badly.
    pub(super) fn answer(&self, now: Instant) {
        *self.told.lock() = Told { answered_at: Some(now), ..Told::default() };
    }

    /// Nobody is there: that is no silence.
    pub(super) fn reset(&self) {
        let mut told = self.told.lock();
        (told.asked_at, told.unanswered, told.is_told) = (None, 0, false);
    }

    /// Packets came.
    pub(super) fn record_packets(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_millis();
        self.packets_at.store(u64::try_from(since).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    pub(super) fn last_packets(&self) -> Option<Instant> {
        let since = self.packets_at.load(Ordering::Relaxed).checked_sub(1)?;
        self.began.checked_add(Duration::from_millis(since))
    }

    /// Whether it has left several questions in a row without an answer, and sends nothing; tells so once in each silence.
    pub(super) fn has_fallen_silent(&self, now: Instant) -> bool {
        let is_mute = self.is_mute(now);
        let mut told = self.told.lock();
        let is_news = is_mute && !told.is_told;
        told.is_told |= is_news;
        is_news
    }

    /// Whether it has left several questions in a row without an answer, and sends nothing.
    pub(super) fn is_mute(&self, now: Instant) -> bool {
        let is_unanswered = self.told.lock().unanswered >= UNANSWERED;
        is_unanswered && self.is_silent_for(PROMPT, now)
    }

    /// Whether it was asked, and neither answered nor sent packets for so long.
    pub(super) fn is_silent_for(&self, limit: Duration, now: Instant) -> bool {
        let (answered_at, asked_at) = {
            let told = self.told.lock();
            (told.answered_at, told.asked_at)
        };
        let Some(asked_at) = asked_at else {
            return false;
        };
        let sign = [answered_at.unwrap_or(asked_at)].into_iter().chain(self.last_packets()).max();
        let is_over = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        is_over(asked_at, PROMPT) && sign.is_some_and(|sign| is_over(sign, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to an engine at which second.
    enum At {
        Ask(u64),
        Answer(u64),
        Packets(u64),
    }

    fn check(story: &[At], silent: u64, now: u64, expected: bool) {
        let begin = Instant::now();
        let at = |seconds: &u64| begin + Duration::from_secs(*seconds);
        let pulse = Pulse::new(begin);
        for event in story {
            match event {
                At::Ask(time) => pulse.ask(at(time)),
                At::Answer(time) => pulse.answer(at(time)),
                At::Packets(time) => pulse.record_packets(at(time)),
            }
        }
        let found = pulse.is_silent_for(Duration::from_secs(silent), at(&now));
        assert_eq!(found, expected, "silent for {silent} s at {now} s");
    }

    #[test]
    fn an_engine_is_silent_that_was_asked_and_gave_neither_answer_nor_packets() {
        use At::{Answer, Ask, Packets};
        check(&[], 10, 100, false);
        check(&[Ask(0)], 10, 9, false);
        check(&[Ask(0)], 10, 10, true);
        check(&[Ask(0), Ask(3), Ask(6)], 10, 10, true);
        check(&[Ask(0), Answer(1)], 10, 100, false);
        // Whom nobody asks has nothing to answer.
        check(&[Answer(0), Ask(90)], 10, 91, false);
        check(&[Answer(0), Ask(90)], 10, 92, true);
        // Frozen after its answer: known ten seconds later.
        check(&[Ask(0), Answer(0), Ask(3)], 10, 9, false);
        check(&[Ask(0), Answer(0), Ask(3)], 10, 10, true);
        check(&[Ask(0), Packets(8)], 10, 17, false);
        check(&[Ask(0), Packets(8)], 10, 18, true);
    }

    #[test]
    fn that_it_has_fallen_silent_is_told_once_in_each_silence() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let pulse = Pulse::new(begin);
        for silence in [0, 100] {
            pulse.answer(at(silence));
            pulse.ask(at(silence));
            pulse.miss();
            assert!(!pulse.has_fallen_silent(at(silence + 5)), "one question may be lost");
            pulse.ask(at(silence + 5));
            pulse.miss();
            pulse.record_packets(at(silence + 9));
            assert!(!pulse.has_fallen_silent(at(silence + 10)), "it plays");
            assert!(pulse.has_fallen_silent(at(silence + 11)));
            assert!(!pulse.has_fallen_silent(at(silence + 12)), "once");
        }
        pulse.reset();
        assert!(!pulse.has_fallen_silent(at(200)), "nobody there is no silence");
    }
}
