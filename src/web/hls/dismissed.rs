//! Who was sent away: a player that has a list goes on asking for it, and would start the stream again that somebody has just
//! stopped.
//!
//! Lock rule: the one lock is held for a look-up, alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::stream::lease::Token;

/// So long after its last request a player is forgotten: it asks every few seconds while its page is open.
const MEMORY: Duration = Duration::from_secs(60);

/// No more are remembered. That many are sent away within a minute by nobody's hand.
const MAX: usize = 1024;

/// The tokens of those who were sent away lately.
#[derive(Debug, Default)]
pub(super) struct Dismissed {
    last_asked: Mutex<HashMap<Token, Instant>>,
}

impl Dismissed {
    /// This one is sent away.
    pub(super) fn add(&self, token: Token, now: Instant) {
        let mut all = self.last_asked.lock();
        all.retain(|_, asked| now.saturating_duration_since(*asked) < MEMORY);
        if all.len() >= MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, asked)| **asked).map(|(token, _)| *token)
        {
            all.remove(&oldest);
        }
        all.insert(token, now);
    }

    /// Whether this one, who asks for something now, was sent away.
    pub(super) fn meets(&self, token: Token, now: Instant) -> bool {
        let mut all = self.last_asked.lock();
        let Some(asked) = all.get_mut(&token) else { return false };
        let is_remembered = now.saturating_duration_since(*asked) < MEMORY;
        *asked = now;
        if !is_remembered {
            all.remove(&token);
        }
        is_remembered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_asking_is_remembered_and_who_was_away_is_not() {
        let dismissed = Dismissed::default();
        let (one, other, begin) = (Token::random(), Token::random(), Instant::now());
        dismissed.add(one, begin);
        assert!(!dismissed.meets(other, begin));
        for minute in 0..5 {
            assert!(dismissed.meets(one, begin + minute * (MEMORY - Duration::from_secs(1))));
        }
        let late = begin + 5 * MEMORY;
        assert!(!dismissed.meets(one, late) && !dismissed.meets(one, late));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let dismissed = Dismissed::default();
        let (first, begin) = (Token::random(), Instant::now());
        dismissed.add(first, begin);
        let later = begin + Duration::from_secs(1);
        (0..MAX).for_each(|_| dismissed.add(Token::random(), later));
        assert_eq!(dismissed.last_asked.lock().len(), MAX);
        assert!(!dismissed.meets(first, later), "the oldest has made room");
    }
}
