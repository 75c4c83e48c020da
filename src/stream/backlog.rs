//! The last seconds of a stream, kept for those who join it.
//!
//! A plain value inside the fan-out's lock: it holds chunks in order, without gap, within its bounds, and the marks where
//! a joiner may start. It reads no clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ts::start::StartKind;

use super::chunk::{Chunk, ChunkSlice};
use super::marks::Mark;

/// Marks that are no keyframe are a last resort; more of them than this apart help nobody.
const PES_MARKS_APART: Duration = Duration::from_millis(500);

/// What counts as recent for the bit rate: long enough to even out the bursts of an engine.
pub(super) const RECENT: Duration = Duration::from_secs(5);

/// How much a backlog keeps; the harder bound counts.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of packets.
    pub bytes: u64,
    /// Age of the oldest chunk.
    pub age: Duration,
}

/// The chunks, oldest first, and their marks.
#[derive(Debug)]
pub struct Backlog {
    bounds: Bounds,
    chunks: VecDeque<Arc<Chunk>>,
    marks: VecDeque<Mark>,
    /// Index of the oldest chunk that counts as recent. It moves on with time, so that nobody has to look for it: chunks
    /// are scattered over the memory, and a search among them costs a cache miss a step.
    recent: usize,
    /// Nobody begins before this offset: what lies there is of a source that was lost. Its marks are kept for who has begun
    /// there already.
    floor: u64,
    /// The next chunk is of another source.
    is_broken_off: bool,
}

/// Where a client begins: an offset within the backlog or at its head, and what is sent in front of it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Offset in the stream of the first packet.
    pub offset: u64,
    /// Tables and announcements of the jump.
    pub prefix: Option<Arc<Chunk>>,
}

impl Backlog {
    /// An empty backlog.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            chunks: VecDeque::new(),
            marks: VecDeque::new(),
            recent: 0,
            floor: 0,
            is_broken_off: false,
        }
    }

    /// Takes the newest chunk and the marks that were found with it. Returns what fell out at the other end, so that the
    /// caller can drop it where no lock is held.
    pub fn push(&mut self, chunk: Arc<Chunk>, marks: impl IntoIterator<Item = Mark>) -> Vec<Arc<Chunk>> {
        let (head, now) = (chunk.end, chunk.arrived);
        if std::mem::take(&mut self.is_broken_off) {
            self.floor = chunk.start();
        }
        self.chunks.push_back(chunk);
        self.skip_old(now);
        for mark in marks {
            self.add_mark(mark);
        }
        let newest_keyframe = self.keyframes().next_back().map_or(u64::MAX, |mark| mark.offset);
        let is_beyond = |chunk: &&Arc<Chunk>| {
            // A keyframe to start from is worth twice the room.
            let times = if chunk.end > newest_keyframe { 2 } else { 1 };
            let age = now.saturating_duration_since(chunk.arrived);
            head - chunk.start() > self.bounds.bytes.saturating_mul(times)
                || age > self.bounds.age * times as u32
        };
        // The newest chunk stays, however large it is.
        let evicted = self.chunks.iter().take(self.chunks.len() - 1).take_while(is_beyond).count();
        self.drop_oldest(evicted)
    }

    /// Bytes of packets that it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.back().map_or(0, |newest| newest.end - self.tail())
    }

    /// Gives up the oldest chunks, so many bytes of them if there are; the newest stays.
    pub fn give_up(&mut self, bytes: u64) -> Vec<Arc<Chunk>> {
        let until = self.tail().saturating_add(bytes);
        let is_beyond = |chunk: &&Arc<Chunk>| chunk.start() < until;
        let count =
            self.chunks.iter().take(self.chunks.len().saturating_sub(1)).take_while(is_beyond).count();
        self.drop_oldest(count)
    }

    fn drop_oldest(&mut self, count: usize) -> Vec<Arc<Chunk>> {
        let dropped = self.chunks.drain(..count).collect();
        self.recent = self.recent.saturating_sub(count);
        let tail = self.tail();
        let gone = self.marks.partition_point(|mark| mark.offset < tail);
        self.marks.drain(..gone);
        dropped
    }

    fn add_mark(&mut self, mut mark: Mark) {
        match self.marks.back() {
            Some(last) if last.offset == mark.offset => {
                self.marks.pop_back();
            }
            // The one before was a candidate only; it is dropped unless it is a keyframe or stands alone.
            Some(last) if last.kind == StartKind::Pes => {
                let before = self.marks.iter().rev().nth(1);
                let is_close =
                    |before: &Mark| last.arrived.saturating_duration_since(before.arrived) < PES_MARKS_APART;
                // Where the stream jumps there has to be a mark, unless it does so all the time.
                let is_needed = |before: &Mark| last.is_jump && !before.is_jump;
                if before.is_some_and(|before| is_close(before) && !is_needed(before)) {
                    mark.is_jump |= last.is_jump;
                    self.marks.pop_back();
                }
            }
            _ => {}
        }
        self.marks.push_back(mark);
    }

    /// The marks that a client may begin at: none of a source that was lost.
    fn places(&self) -> impl DoubleEndedIterator<Item = &Mark> {
        self.marks_from(self.floor)
    }

    fn keyframes(&self) -> impl DoubleEndedIterator<Item = &Mark> {
        self.places().filter(|mark| mark.kind == StartKind::Keyframe)
    }

    /// The marks at this offset and behind it, those of sources that were lost included.
    pub fn marks_from(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Mark> {
        self.marks.range(self.marks.partition_point(|mark| mark.offset < offset)..)
    }

    /// The bytes between two offsets, or nothing if they are not all here: published, and not dropped yet.
    #[must_use]
    pub fn cut(&self, from: u64, to: u64) -> Option<Vec<ChunkSlice>> {
        let end = self.chunks.back().map_or(0, |newest| newest.end);
        if from < self.tail() || from > to || to > end {
            return None;
        }
        if from == to {
            return Some(Vec::new());
        }
        let chunks = self.from(from).take_while(|chunk| chunk.start() < to);
        Some(chunks.map(|chunk| ChunkSlice::between(chunk, from, to)).collect())
    }

    /// Offset of the oldest byte that is kept; of the head, if there is none.
    fn tail(&self) -> u64 {
        self.chunks.front().map_or(0, |chunk| chunk.start())
    }

    /// Whether there is a keyframe to start from.
    #[must_use]
    pub fn has_keyframe(&self) -> bool {
        self.keyframes().next().is_some()
    }

    /// When the oldest chunk arrived that a client may begin with.
    #[must_use]
    pub fn oldest_arrival(&self) -> Option<Instant> {
        self.chunks.get(self.index_of(self.floor)).map(|chunk| chunk.arrived)
    }

    /// Where a client of the running stream begins: at the newest keyframe at least this old, else at the oldest. Where no
    /// keyframe is known, and so none is to be expected, at the newest PES start that is as old, else at the newest chunk that
    /// is: a client that began at the oldest would stay so far behind for ever.
    #[must_use]
    pub fn place_behind(&self, behind: Duration, now: Instant) -> Place {
        let is_old = |arrived: Instant| now.saturating_duration_since(arrived) >= behind;
        let old_mark = |mark: &&Mark| is_old(mark.arrived);
        if let Some(mark) = self.keyframes().rev().find(old_mark).or_else(|| self.keyframes().next()) {
            return Place::at(mark);
        }
        if let Some(mark) = self.places().rev().find(old_mark).or_else(|| self.places().next()) {
            return Place::at(mark);
        }
        let oldest = self.index_of(self.floor);
        let young = self.chunks.partition_point(|chunk| is_old(chunk.arrived));
        match self.chunks.get(young.saturating_sub(1).max(oldest)) {
            Some(chunk) => Place { offset: chunk.start().max(self.floor), prefix: None },
            None => self.oldest_place(),
        }
    }

    /// Where a client begins that was there from the start: at the oldest keyframe, else the oldest PES start, else the
    /// oldest packet.
    #[must_use]
    pub fn oldest_place(&self) -> Place {
        match self.keyframes().next().or_else(|| self.places().next()) {
            Some(mark) => Place::at(mark),
            None => Place { offset: self.tail().max(self.floor), prefix: None },
        }
    }

    /// Where a client goes on that fell behind at `offset`: at the newest keyframe if that is ahead, else where it was, if
    /// that is still here, else at the newest PES start, else at the newest chunk.
    #[must_use]
    pub fn place_ahead(&self, offset: u64) -> Place {
        if let Some(mark) = self.keyframes().next_back().filter(|mark| mark.offset > offset) {
            return Place::at(mark);
        }
        if offset >= self.tail() {
            return Place { offset, prefix: None };
        }
        match self.places().next_back() {
            Some(mark) => Place::at(mark),
            None => Place { offset: self.chunks.back().map_or(0, |chunk| chunk.start()), prefix: None },
        }
    }

    /// The chunks from the one with the byte at this offset on.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = &Arc<Chunk>> {
        self.chunks.range(self.index_of(offset)..)
    }

    fn index_of(&self, offset: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.end <= offset)
    }

    /// Age by arrival of the chunk with the byte at this offset; none if it is not published yet. For an offset that has
    /// left the backlog the age of the oldest chunk.
    #[must_use]
    pub fn age_of(&self, offset: u64, now: Instant) -> Option<Duration> {
        let chunk = self.chunks.get(self.index_of(offset))?;
        Some(now.saturating_duration_since(chunk.arrived))
    }

    /// Bytes that arrived within the last five seconds.
    #[must_use]
    pub fn recent_bytes(&mut self, now: Instant) -> u64 {
        self.skip_old(now);
        let end = self.chunks.back().map_or(0, |newest| newest.end);
        self.chunks.get(self.recent).map_or(0, |first| end - first.start())
    }

    fn skip_old(&mut self, now: Instant) {
        let is_old = |chunk: &Arc<Chunk>| now.saturating_duration_since(chunk.arrived) > RECENT;
        while self.chunks.get(self.recent).is_some_and(is_old) {
            self.recent += 1;
        }
    }

    /// Time between the last two keyframes.
    #[must_use]
    pub fn keyframe_interval(&self) -> Option<Duration> {
        let mut keyframes = self.keyframes().rev();
        let (newest, before) = (keyframes.next()?, keyframes.next()?);
        Some(newest.arrived.saturating_duration_since(before.arrived))
    }

    /// The next chunk is of another source: once it is here, nobody begins before it.
    pub fn break_off(&mut self) {
        self.is_broken_off = true;
    }

    /// Empties the backlog into the caller's hands.
    #[must_use = "dropping the chunks is work that belongs outside the lock"]
    pub fn take(&mut self) -> (VecDeque<Arc<Chunk>>, VecDeque<Mark>) {
        self.recent = 0;
        (std::mem::take(&mut self.chunks), std::mem::take(&mut self.marks))
    }
}

impl Place {
    fn at(mark: &Mark) -> Self {
        Self { offset: mark.offset, prefix: mark.prefix.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1000, age: Duration::from_secs(10) };

    /// A stream of chunks of 100 bytes, one a second, with marks by the second.
    struct Source {
        begin: Instant,
        backlog: Backlog,
    }

    impl Source {
        fn new(bounds: Bounds) -> Self {
            Self { begin: Instant::now(), backlog: Backlog::new(bounds) }
        }

        fn at(&self, second: u64) -> Instant {
            self.begin + Duration::from_secs(second)
        }

        fn chunk(&self, second: u64) -> Arc<Chunk> {
            Arc::new(Chunk::new(second * 100, self.at(second), &[0; 100]))
        }

        fn mark(&self, offset: u64, kind: StartKind) -> Mark {
            Mark { offset, kind, prefix: None, arrived: self.at(offset / 100), time: None, is_jump: false }
        }

        fn run(mut self, seconds: std::ops::Range<u64>, marks: &[(u64, StartKind)]) -> Self {
            for second in seconds {
                let of_this = |(offset, _): &&(u64, StartKind)| offset / 100 == second;
                let marks: Vec<_> =
                    marks.iter().filter(of_this).map(|(offset, kind)| self.mark(*offset, *kind)).collect();
                let _evicted = self.backlog.push(self.chunk(second), marks);
            }
            self
        }

        fn starts(&self) -> Vec<u64> {
            self.backlog.from(0).map(|chunk| chunk.start()).collect()
        }
    }

    use StartKind::{Keyframe, Pes};

    #[test]
    fn the_harder_bound_counts() {
        assert_eq!(Source::new(BOUNDS).run(0..5, &[]).starts(), [0, 100, 200, 300, 400]);
        assert_eq!(Source::new(BOUNDS).run(0..30, &[]).starts().len(), 10, "ten chunks are 1000 bytes");
        let short = Bounds { bytes: 1000, age: Duration::from_secs(1) };
        assert_eq!(Source::new(short).run(0..30, &[]).starts(), [2800, 2900]);
    }

    #[test]
    fn a_keyframe_is_kept_up_to_twice_the_bound() {
        let source = |end| Source::new(BOUNDS).run(0..end, &[(350, Keyframe)]);
        assert_eq!(source(13).starts()[0], 300, "not before the keyframe's own chunk");
        assert_eq!(source(23).starts()[0], 300);
        assert_eq!(source(25).starts()[0], 1500, "then the keyframe is gone, and the bound is the usual one");
    }

    #[test]
    fn a_chunk_above_the_bound_is_kept_alone() {
        let mut source = Source::new(BOUNDS).run(0..3, &[]);
        let large = Arc::new(Chunk::new(300, source.at(3), &[0; 5000]));
        assert_eq!(source.backlog.push(large, []).len(), 3);
        assert_eq!(source.starts(), [300]);
    }

    #[test]
    fn what_is_given_up_is_the_oldest_and_never_the_newest() {
        let mut source = Source::new(BOUNDS).run(0..5, &[(150, Keyframe), (350, Pes)]);
        assert_eq!((source.backlog.bytes(), source.backlog.give_up(0).len()), (500, 0));
        assert_eq!(source.backlog.give_up(101).len(), 2, "whole chunks");
        assert_eq!((source.starts(), source.backlog.bytes()), (vec![200, 300, 400], 300));
        assert!(!source.backlog.has_keyframe(), "its mark is gone with it");
        assert_eq!(source.backlog.oldest_place().offset, 350);
        assert_eq!(source.backlog.give_up(u64::MAX).len(), 2);
        assert_eq!((source.starts(), source.backlog.give_up(1).len()), (vec![400], 0));
        let _chunks = source.backlog.take();
        assert_eq!((source.backlog.bytes(), source.backlog.give_up(1).len()), (0, 0));
    }

    #[test]
    fn a_joiner_starts_at_a_keyframe_of_the_right_age() {
        let marks = [(110, Pes), (240, Keyframe), (430, Keyframe), (650, Keyframe), (720, Pes)];
        let source = Source::new(BOUNDS).run(0..8, &marks);
        let place = |behind| source.backlog.place_behind(Duration::from_secs(behind), source.at(8)).offset;
        assert_eq!((place(0), place(2), place(3), place(5), place(60)), (650, 650, 430, 240, 240));
        assert_eq!(source.backlog.oldest_place().offset, 240);
        assert_eq!(source.backlog.keyframe_interval(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn without_a_keyframe_a_joiner_starts_at_a_pes_or_anywhere_but_not_far_behind() {
        let place = |source: &Source, behind, now| {
            source.backlog.place_behind(Duration::from_secs(behind), source.at(now)).offset
        };
        let source = Source::new(BOUNDS).run(0..6, &[(110, Pes), (240, Pes), (430, Pes)]);
        assert_eq!([0, 1, 2, 4].map(|behind| place(&source, behind, 5)), [430, 430, 240, 110]);
        assert_eq!(place(&source, 60, 5), 110, "none is so old");
        assert_eq!(source.backlog.oldest_place().offset, 110, "who waited for the start misses nothing");
        let source = Source::new(BOUNDS).run(0..30, &[]);
        assert_eq!([0, 1, 3, 60].map(|behind| place(&source, behind, 29)), [2900, 2800, 2600, 2000]);
        let mut source = source;
        source.backlog.break_off();
        let source = source.run(30..32, &[]);
        assert_eq!(place(&source, 10, 31), 3000, "not before the source that runs");
        assert_eq!(place(&Source::new(BOUNDS), 1, 5), 0);
    }

    #[test]
    fn nobody_begins_before_the_source_that_runs() {
        let marks = [(110, Keyframe), (240, Pes), (430, Pes)];
        let mut source = Source::new(BOUNDS).run(0..3, &marks);
        source.backlog.break_off();
        assert_eq!(source.backlog.oldest_place().offset, 110, "there is nothing better yet");
        let source = source.run(3..4, &[]);
        let places = |source: &Source| {
            let behind = source.backlog.place_behind(Duration::from_secs(60), source.at(9));
            (source.backlog.oldest_place().offset, behind.offset)
        };
        assert_eq!(places(&source), (300, 300));
        assert_eq!(source.backlog.oldest_arrival(), Some(source.at(3)));
        let source = source.run(4..5, &marks);
        assert_eq!(places(&source), (430, 430));
        assert_eq!(source.starts().len(), 5, "who is further back goes on there");
    }

    #[test]
    fn the_marks_of_a_lost_source_are_kept_and_nobody_begins_at_them() {
        let mut source = Source::new(BOUNDS).run(0..3, &[(110, Keyframe), (240, Pes)]);
        source.backlog.break_off();
        let source = source.run(3..6, &[(450, Pes)]);
        let offsets = |from| source.backlog.marks_from(from).map(|mark| mark.offset).collect::<Vec<_>>();
        assert_eq!((offsets(0), offsets(111)), (vec![110, 240, 450], vec![240, 450]));
        assert!(!source.backlog.has_keyframe());
        assert_eq!((source.backlog.oldest_place().offset, source.backlog.place_ahead(0).offset), (450, 0));
    }

    #[test]
    fn a_mark_where_the_stream_jumps_is_not_thinned_out() {
        let mut source = Source::new(BOUNDS).run(0..1, &[]);
        let mark = |offset, is_jump| Mark { is_jump, ..source.mark(offset, Pes) };
        let jumps = [10, 20, 21, 22];
        let marks: Vec<_> = (0..50).map(|offset| mark(offset, jumps.contains(&offset))).collect();
        let _evicted = source.backlog.push(source.chunk(1), marks);
        let kept: Vec<_> = source.backlog.marks.iter().map(|mark| (mark.offset, mark.is_jump)).collect();
        assert_eq!(
            kept,
            [(0, false), (10, true), (49, true)],
            "the last stands for those that came all at once"
        );
    }

    #[test]
    fn a_cut_is_all_that_lies_between_two_offsets_or_nothing() {
        let mut source = Source::new(BOUNDS).run(0..30, &[]);
        let cut = |source: &Source, from, to| {
            let slices = source.backlog.cut(from, to)?;
            Some(slices.iter().map(|slice| (slice.chunk.start(), slice.range.clone())).collect::<Vec<_>>())
        };
        assert_eq!(cut(&source, 2000, 2200), Some(vec![(2000, 0..100), (2100, 0..100)]));
        assert_eq!(cut(&source, 2050, 2210), Some(vec![(2000, 50..100), (2100, 0..100), (2200, 0..10)]));
        assert_eq!(cut(&source, 2910, 3000), Some(vec![(2900, 10..100)]));
        assert_eq!((cut(&source, 2500, 2500), cut(&source, 2550, 2550)), (Some(vec![]), Some(vec![])));
        assert_eq!(cut(&source, 3000, 3000), Some(vec![]), "the head");
        for (from, to) in [(1999, 2100), (0, 3000), (2900, 3001), (3001, 3001), (2200, 2100)] {
            assert_eq!(cut(&source, from, to), None, "{from} to {to}");
        }
        let _given_up = source.backlog.give_up(100);
        assert_eq!(cut(&source, 2000, 2200), None, "it is gone");
        let _taken = source.backlog.take();
        assert_eq!(cut(&source, 2500, 2600), None);
    }

    #[test]
    fn who_fell_behind_moves_ahead_or_stays() {
        let source = Source::new(BOUNDS).run(0..30, &[(2440, Keyframe)]);
        assert_eq!(source.backlog.place_ahead(2100).offset, 2440);
        assert_eq!(source.backlog.place_ahead(2500).offset, 2500, "never back");
        let source = Source::new(BOUNDS).run(0..30, &[]);
        assert_eq!(source.backlog.place_ahead(2150).offset, 2150);
        assert_eq!(source.backlog.place_ahead(500).offset, 2900, "what is gone is gone");
        let source = Source::new(BOUNDS).run(0..30, &[(2710, Pes)]);
        assert_eq!(source.backlog.place_ahead(500).offset, 2710);
    }

    #[test]
    fn a_pes_start_may_become_a_keyframe_and_others_are_thinned_out() {
        let mut source = Source::new(BOUNDS).run(0..1, &[]);
        let marks: Vec<_> = (0..50).map(|number| source.mark(2 * number, Pes)).collect();
        let _evicted = source.backlog.push(source.chunk(1), marks);
        assert_eq!(source.backlog.marks.len(), 2, "the oldest and the latest");
        assert!(!source.backlog.has_keyframe());
        let upgraded = source.mark(98, Keyframe);
        let _evicted = source.backlog.push(source.chunk(2), [upgraded]);
        assert_eq!(source.backlog.marks.len(), 2);
        assert_eq!(source.backlog.oldest_place().offset, 98);
    }

    #[test]
    fn ages_and_rates_are_by_arrival() {
        let mut source = Source::new(BOUNDS).run(0..8, &[]);
        let now = source.at(7);
        assert_eq!(source.backlog.age_of(650, now), Some(Duration::from_secs(1)));
        assert_eq!(source.backlog.age_of(0, now), Some(Duration::from_secs(7)));
        assert_eq!(source.backlog.age_of(800, now), None);
        assert_eq!(source.backlog.recent_bytes(now), 600);
    }

    #[test]
    fn what_is_recent_is_found_again_whatever_was_dropped() {
        let mut source = Source::new(BOUNDS);
        let check = |source: &mut Source, second, expected| {
            let now = source.at(second);
            assert_eq!(source.backlog.recent_bytes(now), expected, "at {second} s");
        };
        check(&mut source, 0, 0);
        source = source.run(0..30, &[]);
        check(&mut source, 29, 600);
        check(&mut source, 32, 300);
        check(&mut source, 40, 0);
        source = source.run(30..42, &[]);
        check(&mut source, 41, 600);
        let _given_up = source.backlog.give_up(800);
        check(&mut source, 41, 200);
        source = source.run(42..43, &[]);
        check(&mut source, 42, 300);
        let _taken = source.backlog.take();
        check(&mut source, 42, 0);
        source = source.run(43..60, &[]);
        check(&mut source, 59, 600);
    }
}
