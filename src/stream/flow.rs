//! How the bytes of a stream come in: how many, how lately, how many of them from the current source, and whether its picture
//! is among them.
//!
//! The fetcher's thread writes it, the housekeeper reads it; no lock is needed, since each number stands for itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::marks::Seen;
use super::state::Yield;

/// A source that gave less is barren: an engine that refuses sends an error page or a burst that was cut off.
const BARREN_BYTES: u64 = 64 * 1024;
const BARREN_TIME: Duration = Duration::from_millis(500);

/// A picture that came for so long is one that moves, and is missed when it does not come any more. One still picture is not.
const MOVING_FOR: Duration = Duration::from_secs(5);

/// From one arrival of sound to the next at most so much counts as time without the picture: after a silence of all streams
/// whichever comes first comes alone for a moment.
const MAX_STEP_MS: u64 = 500;

/// A picture is overdue after so many times the longest time for which it was away before: still pictures that follow each
/// other slowly are no loss.
const TIMES_AWAY: u64 = 3;

/// No such moment.
const NEVER: u64 = u64::MAX;

/// The flow of one stream. Times are milliseconds since it was asked for.
#[derive(Debug)]
pub(super) struct Flow {
    created: Instant,
    bytes: AtomicU64,
    last_bytes_ms: AtomicU64,
    last_picture_ms: AtomicU64,
    source_began_ms: AtomicU64,
    bytes_before_source: AtomicU64,
    video: VideoFlow,
}

/// What there is to be told of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PictureNews {
    /// It does not come any more, and the sound does.
    Gone,
    /// It is there again.
    Back,
}

/// How the picture of the current source comes.
#[derive(Debug)]
struct VideoFlow {
    first_ms: AtomicU64,
    last_ms: AtomicU64,
    /// For so long something else has come without it.
    away_ms: AtomicU64,
    longest_away_ms: AtomicU64,
    /// Somebody was told that it is missing.
    is_missed: AtomicBool,
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
            video: VideoFlow {
                first_ms: AtomicU64::new(NEVER),
                last_ms: AtomicU64::new(0),
                away_ms: AtomicU64::new(0),
                longest_away_ms: AtomicU64::new(0),
                is_missed: AtomicBool::new(false),
            },
        }
    }

    /// A new source has begun to answer; its silence is counted from here.
    pub(super) fn begin_source(&self) {
        let now = self.now_ms();
        self.last_picture_ms.store(now, Ordering::Relaxed);
        self.source_began_ms.store(now, Ordering::Relaxed);
        self.last_bytes_ms.store(now, Ordering::Relaxed);
        self.bytes_before_source.store(self.bytes(), Ordering::Relaxed);
        self.video.forget();
    }

    /// So many bytes came.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.last_bytes_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// There was picture or sound in them. Tables and null packets are silence.
    pub(super) fn see(&self, seen: Seen) {
        if !seen.media {
            return;
        }
        let now = self.now_ms();
        let before = self.last_picture_ms.swap(now, Ordering::Relaxed);
        match seen.picture {
            None => self.video.forget(),
            Some(true) => self.video.come(now),
            Some(false) => self.video.stay_away(now.saturating_sub(before).min(MAX_STEP_MS)),
        }
    }

    /// The source was made to wait: that is no silence of its own.
    pub(super) fn hold(&self) {
        self.last_picture_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// For how long the sound has come without the picture that was there before. `None` where there was none that moves.
    #[must_use]
    pub(super) fn picture_missing(&self) -> Option<Duration> {
        let first = Some(self.video.first_ms.load(Ordering::Relaxed)).filter(|first| *first != NEVER)?;
        let moved_for = self.video.last_ms.load(Ordering::Relaxed).saturating_sub(first);
        let away = Duration::from_millis(self.video.away_ms.load(Ordering::Relaxed));
        (Duration::from_millis(moved_for) >= MOVING_FOR).then_some(away)
    }

    /// The same, as long as it is not more than the source has shown to be usual.
    #[must_use]
    pub(super) fn picture_overdue(&self) -> Duration {
        let usual = self.video.longest_away_ms.load(Ordering::Relaxed).saturating_mul(TIMES_AWAY);
        let missing = self.picture_missing().unwrap_or_default();
        if missing > Duration::from_millis(usual) { missing } else { Duration::ZERO }
    }

    /// Whether it is to be told now that the picture is missing, or that it is there again.
    #[must_use]
    pub(super) fn news_of_picture(&self, told_after: Duration) -> Option<PictureNews> {
        let is_missed = &self.video.is_missed;
        if self.picture_overdue() >= told_after {
            return (!is_missed.swap(true, Ordering::Relaxed)).then_some(PictureNews::Gone);
        }
        let is_back = self.picture_missing() == Some(Duration::ZERO);
        (is_back && is_missed.swap(false, Ordering::Relaxed)).then_some(PictureNews::Back)
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

impl VideoFlow {
    fn forget(&self) {
        self.first_ms.store(NEVER, Ordering::Relaxed);
        self.away_ms.store(0, Ordering::Relaxed);
        self.longest_away_ms.store(0, Ordering::Relaxed);
        self.is_missed.store(false, Ordering::Relaxed);
    }

    fn come(&self, now_ms: u64) {
        if self.first_ms.load(Ordering::Relaxed) == NEVER {
            self.first_ms.store(now_ms, Ordering::Relaxed);
        }
        self.last_ms.store(now_ms, Ordering::Relaxed);
        let away = self.away_ms.swap(0, Ordering::Relaxed);
        self.longest_away_ms.fetch_max(away, Ordering::Relaxed);
    }

    fn stay_away(&self, ms: u64) {
        if self.first_ms.load(Ordering::Relaxed) != NEVER {
            self.away_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: Seen = Seen { media: true, picture: Some(true) };
    const SOUND: Seen = Seen { media: true, picture: Some(false) };
    const RADIO: Seen = Seen { media: true, picture: None };

    /// Lets time pass before what comes next.
    fn see_after(flow: &mut Flow, ms: u64, seen: Seen) {
        flow.created -= Duration::from_millis(ms);
        flow.see(seen);
    }

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
        flow.see(Seen::default());
        assert!(flow.last_picture().elapsed() >= Duration::from_secs(10));
        flow.see(RADIO);
        assert!(flow.last_picture().elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_picture_that_moved_and_stops_is_missed_while_the_sound_goes_on() {
        let mut flow = flow(Duration::from_secs(10));
        (0..60).for_each(|_| see_after(&mut flow, 100, PICTURE));
        assert_eq!(
            (flow.picture_missing(), flow.news_of_picture(Duration::from_secs(5))),
            (Some(Duration::ZERO), None)
        );
        // The sound that comes first after a silence is not to be blamed on the picture.
        see_after(&mut flow, 60_000, SOUND);
        assert!(flow.picture_overdue() < Duration::from_secs(1));
        (0..80).for_each(|_| see_after(&mut flow, 100, SOUND));
        let missing = flow.picture_overdue();
        assert!((8..10).contains(&missing.as_secs()), "{missing:?}");
        let news = || flow.news_of_picture(Duration::from_secs(5));
        assert_eq!([news(), news()], [Some(PictureNews::Gone), None], "told once");
        flow.see(PICTURE);
        let news = || flow.news_of_picture(Duration::from_secs(5));
        assert_eq!([news(), news()], [Some(PictureNews::Back), None]);
        (0..200).for_each(|_| see_after(&mut flow, 100, SOUND));
        assert_eq!(flow.picture_overdue(), Duration::ZERO, "three times as long as before would be odd");
    }

    #[test]
    fn neither_radio_nor_still_pictures_miss_anything() {
        let mut radio = flow(Duration::from_secs(10));
        (0..600).for_each(|_| see_after(&mut radio, 100, RADIO));
        assert_eq!((radio.picture_missing(), radio.picture_overdue()), (None, Duration::ZERO));
        let mut still = flow(Duration::from_secs(10));
        for _ in 0..5 {
            (0..10).for_each(|_| see_after(&mut still, 50, PICTURE));
            for _ in 0..300 {
                see_after(&mut still, 100, SOUND);
                assert_eq!(still.picture_overdue(), Duration::ZERO);
            }
        }
        // A picture that the tables drop: it is radio now.
        let mut dropped = flow(Duration::from_secs(10));
        (0..60).for_each(|_| see_after(&mut dropped, 100, PICTURE));
        see_after(&mut dropped, 100, RADIO);
        (0..600).for_each(|_| see_after(&mut dropped, 100, SOUND));
        assert_eq!(dropped.picture_missing(), None);
    }
}
