//! Settings that may be replaced while the program runs.
//!
//! Whoever goes by them keeps the handle, not a copy: it asks for the settings when it needs them, and what is replaced
//! counts from the next time on. It must not know what is in them, nor who replaces them.
//!
//! Lock rule: the one lock is held while a pointer is copied or exchanged.

use std::sync::Arc;

use parking_lot::RwLock;

/// Settings as they are now, shared by all who go by them.
#[derive(Debug)]
pub struct Live<T> {
    current: RwLock<Arc<T>>,
}

impl<T> Live<T> {
    /// These, until others replace them.
    #[must_use]
    pub fn new(settings: T) -> Arc<Self> {
        Arc::new(Self { current: RwLock::new(Arc::new(settings)) })
    }

    /// The settings as they are now. Who holds them longer holds on to what they were.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }

    /// Puts others in their place, for everybody who asks from now on.
    pub fn replace(&self, settings: T) {
        let settings = Arc::new(settings);
        let before = std::mem::replace(&mut *self.current.write(), settings);
        // Outside the lock.
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_gets_the_newest_and_who_holds_keeps_the_old() {
        let live = Live::new(1);
        let held = live.get();
        live.replace(2);
        assert_eq!((*held, *live.get()), (1, 2));
    }
}
