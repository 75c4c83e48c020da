//! How the bytes of a stream come in: how many, how lately, and how many of them from the current source.
//!
//! The fetcher's thread writes it, the housekeeper reads it; no lock is needed, since each number stands for itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::state::Yield;

/// A source that gave less is barren: an engine that refuses sends an error page or a burst that was cut off.
const BARREN_BYTES: u64 = 64 * 1024;
const BARREN_TIME: Duration = Duration::from_millis(500);

/// The flow of one stream. Times are milliseconds since it was asked for.
#[derive(Debug)]
pub(super) struct Flow {
    created: Instant,
    bytes: AtomicU64,
    last_bytes_ms: AtomicU64,
    last_picture_ms: AtomicU64,
    source_began_ms: AtomicU64,
    bytes_before_source: AtomicU64,
}

impl Flow {
    /// Nothing has come yet.
    #[must_use]
    pub(super) fn new(created: Instant) -> Self {
        Self {
            created,
            bytes: AtomicU64::new(0),
            last_bytes_ms: AtomicU64::new(0),
            last_picture_ms: AtomicU64::new(0),
            source_began_ms: AtomicU64::new(0),
            bytes_before_source: AtomicU64::new(0),
        }
    }

    /// A new source has begun to answer; its silence is counted from here.
    pub(super) fn begin_source(&self) {
        let now = self.now_ms();
        self.last_picture_ms.store(now, Ordering::Relaxed);
        self.source_began_ms.store(now, Ordering::Relaxed);
        self.last_bytes_ms.store(now, Ordering::Relaxed);
        self.bytes_before_source.store(self.bytes(), Ordering::Relaxed);
    }

    /// So many bytes came.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.last_bytes_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// There was picture or sound in them, or the source was made to wait. Tables and null packets are silence.
    pub(super) fn see_picture(&self) {
        self.last_picture_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// All bytes that came, of all sources.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When picture or sound came last, or the source began.
    #[must_use]
    pub(super) fn last_picture(&self) -> Instant {
        self.created + Duration::from_millis(self.last_picture_ms.load(Ordering::Relaxed))
    }

    /// How much the current source has given, its silence at the end not counted.
    #[must_use]
    pub(super) fn given(&self) -> Yield {
        let bytes = self.bytes() - self.bytes_before_source.load(Ordering::Relaxed);
        let began = self.source_began_ms.load(Ordering::Relaxed);
        let time = Duration::from_millis(self.last_bytes_ms.load(Ordering::Relaxed).saturating_sub(began));
        if bytes < BARREN_BYTES || time < BARREN_TIME { Yield::Barren } else { Yield::Some }
    }

    fn now_ms(&self) -> u64 {
        self.created.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(created_ago: Duration) -> Flow {
        Flow::new(Instant::now().checked_sub(created_ago).expect("the machine runs for longer"))
    }

    #[test]
    fn a_source_is_barren_unless_it_gave_enough_for_long_enough() {
        let flow = flow(Duration::from_secs(10));
        assert_eq!(flow.given(), Yield::Barren);
        flow.add(BARREN_BYTES);
        assert_eq!(flow.given(), Yield::Some, "10 s since it began");
        flow.begin_source();
        flow.add(BARREN_BYTES * 2);
        assert_eq!(flow.given(), Yield::Barren, "much, but all at once");
        let flow = self::flow(Duration::from_secs(10));
        flow.add(BARREN_BYTES - 1);
        assert_eq!(flow.given(), Yield::Barren, "for long, but little");
    }

    #[test]
    fn only_picture_and_sound_break_the_silence() {
        let flow = flow(Duration::from_secs(10));
        flow.add(1000);
        assert!(flow.last_picture().elapsed() >= Duration::from_secs(10));
        flow.see_picture();
        assert!(flow.last_picture().elapsed() < Duration::from_secs(5));
    }
}
