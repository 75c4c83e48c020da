//! Which threads still do their work: each that must never stop beats, and who is asked after its health looks.
//!
//! A thread that has panicked, ended or hangs for good beats no more, whichever it was. It must not know what the threads
//! do.
//!
//! Lock rule: the lock guards the list alone; nothing else is taken under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The beats of all threads that have to.
#[derive(Debug)]
pub struct Heartbeats {
    began: Instant,
    list: Mutex<Vec<Arc<Beats>>>,
}

#[derive(Debug)]
struct Beats {
    name: String,
    limit: Duration,
    /// Since `began`, in ms: the time of the last beat.
    last_ms: AtomicU64,
}

/// What a thread says with that it still does its work.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    began: Instant,
    beats: Arc<Beats>,
}

/// A thread that has not beaten for longer than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Its name.
    pub name: String,
    /// Since its last beat.
    pub since: Duration,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self { began: Instant::now(), list: Mutex::default() }
    }
}

impl Heartbeats {
    /// A thread of this name beats from now on, and never pauses for longer than `limit`: several times its rhythm, and
    /// the longest call that it makes.
    #[must_use]
    pub fn add(&self, name: &str, limit: Duration) -> Heartbeat {
        let beats = Arc::new(Beats { name: name.to_owned(), limit, last_ms: AtomicU64::default() });
        let heartbeat = Heartbeat { began: self.began, beats: Arc::clone(&beats) };
        heartbeat.beat();
        self.list.lock().push(beats);
        heartbeat
    }

    /// A thread that was told to end need not beat any more.
    pub fn forget(&self, heartbeat: &Heartbeat) {
        self.list.lock().retain(|beats| !Arc::ptr_eq(beats, &heartbeat.beats));
    }

    /// The one that has been silent for longest of those that were for too long.
    #[must_use]
    pub fn silent(&self) -> Option<Silent> {
        let list = self.list.lock();
        let told = list.iter().map(|beats| (beats, self.age_of(beats)));
        let (beats, since) =
            told.filter(|(beats, since)| *since > beats.limit).max_by_key(|(_, since)| *since)?;
        Some(Silent { name: beats.name.clone(), since })
    }

    /// All that beat, with the time since each did last.
    #[must_use]
    #[allow(dead_code, reason = "tests look at each thread")]
    pub fn ages(&self) -> Vec<(String, Duration)> {
        self.list.lock().iter().map(|beats| (beats.name.clone(), self.age_of(beats))).collect()
    }

    fn age_of(&self, beats: &Beats) -> Duration {
        let last = Duration::from_millis(beats.last_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }
}

impl Heartbeat {
    /// It still does its work.
    pub fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beats.last_ms.store(now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_longer_than_it_may_is_named_until_it_beats() {
        let heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.silent(), None);
        let patient = heartbeats.add("patient", Duration::from_secs(3600));
        let hasty = heartbeats.add("hasty", Duration::ZERO);
        let silent = loop {
            if let Some(silent) = heartbeats.silent() {
                break silent;
            }
        };
        assert_eq!(silent.name, "hasty");
        // A thread that is gone is not one that is well.
        drop(patient);
        assert_eq!(heartbeats.ages().len(), 2);
        hasty.beats.last_ms.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(heartbeats.silent(), None);
        heartbeats.forget(&hasty);
        assert_eq!(heartbeats.ages().len(), 1);
    }
}
