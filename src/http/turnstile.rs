//! Lets so many in at once, whatever they come for.

use std::sync::Arc;

use parking_lot::Mutex;

/// Lets so many in at once. A [`Pass`] is given back when dropped.
#[derive(Debug)]
pub struct Turnstile {
    max: usize,
    passes: Arc<()>,
    entering: Mutex<()>,
}

/// Somebody is in.
#[derive(Debug)]
pub struct Pass {
    _pass: Arc<()>,
}

impl Turnstile {
    /// A turnstile for `max` at once.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, passes: Arc::new(()), entering: Mutex::new(()) }
    }

    /// A pass, if there is one left.
    pub fn enter(&self) -> Option<Pass> {
        let _entering = self.entering.lock();
        let inside = Arc::strong_count(&self.passes) - 1;
        (inside < self.max).then(|| Pass { _pass: Arc::clone(&self.passes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turnstile_lets_in_as_many_as_it_may() {
        let turnstile = Turnstile::new(2);
        let first = turnstile.enter().expect("room");
        let _second = turnstile.enter().expect("room");
        assert!(turnstile.enter().is_none());
        drop(first);
        assert!(turnstile.enter().is_some());
    }
}
