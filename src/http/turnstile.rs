//! Lets so many in at once, whatever they come for.
//!
//! How many that is may change while some are in.

use std::sync::Arc;

use parking_lot::Mutex;

/// Counts who is in, and lets nobody in above a limit. A [`Pass`] is given back when dropped.
#[derive(Debug, Default)]
pub struct Turnstile {
    passes: Arc<()>,
    entering: Mutex<()>,
}

/// Somebody is in.
#[derive(Debug)]
pub struct Pass {
    _pass: Arc<()>,
}

impl Turnstile {
    /// A pass, if fewer than `max` are in.
    pub fn enter(&self, max: usize) -> Option<Pass> {
        let _entering = self.entering.lock();
        let inside = Arc::strong_count(&self.passes) - 1;
        (inside < max).then(|| Pass { _pass: Arc::clone(&self.passes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turnstile_lets_in_as_many_as_it_may() {
        let turnstile = Turnstile::default();
        let first = turnstile.enter(2).expect("room");
        let second = turnstile.enter(2).expect("room");
        assert!(turnstile.enter(2).is_none());
        drop(first);
        assert!(turnstile.enter(2).is_some());
        let _third = turnstile.enter(3).expect("there is more room now");
        assert!(turnstile.enter(1).is_none(), "there is less room than are in");
        drop(second);
        assert!(turnstile.enter(2).is_some());
    }
}
