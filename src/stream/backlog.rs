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

/// The same by the stream's own time, of 90 kHz.
const PES_TICKS_APART: u64 = 45_000;

/// Jumps so many bytes apart all have their mark, whatever else is left out. With what they hold, marks are no more than a
/// twentieth of the backlog then.
const MIN_BETWEEN_JUMPS: u64 = 100 * 188;

/// What counts as recent for the bit rate: long enough to even out the bursts of an engine.
pub(super) const RECENT: Duration = Duration::from_secs(5);

/// Times of 90 kHz begin anew after so many ticks.
const TIME_CYCLE: u64 = 1 << 33;

/// A backlog holds no two keyframes further apart than five minutes; what seems so went back.
const MAX_INTERVAL_TICKS: u64 = 300 * 90_000;

/// A joiner does not begin so far behind for a keyframe: the longest distance in use is 10 s, so that the stream will not show
/// another one soon. An encoder that refreshes its pictures bit by bit sends one at its start, and never again.
const MAX_KEYFRAME_AGE: Duration = Duration::from_secs(15);

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

    /// How much it keeps.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Keeps so much from now on; what is too much goes with the next chunk.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
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
                // Where the stream jumps there has to be a mark, unless it does so every few packets.
                let is_needed = |before: &Mark| {
                    last.is_jump && (!before.is_jump || last.offset - before.offset >= MIN_BETWEEN_JUMPS)
                };
                if before.is_some_and(|before| is_close(before, last) && !is_needed(before)) {
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

    /// Where a client of the running stream begins: at the newest keyframe at least this old, else at the oldest. Where none is
    /// known that is not far older, and so none is to be expected, at the newest PES start that is as old, else at the newest chunk that
    /// is: a client that began at the oldest would stay so far behind for ever.
    #[must_use]
    pub fn place_behind(&self, behind: Duration, now: Instant) -> Place {
        let is_old = |arrived: Instant| now.saturating_duration_since(arrived) >= behind;
        let old_mark = |mark: &&Mark| is_old(mark.arrived);
        let is_recent = |mark: &&Mark| {
            now.saturating_duration_since(mark.arrived) <= behind.saturating_add(MAX_KEYFRAME_AGE)
        };
        let keyframe = self.keyframes().rev().find(old_mark).or_else(|| self.keyframes().next());
        if let Some(mark) = keyframe.filter(is_recent) {
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

    /// Time between the last two keyframes: by the stream's own time, else by their arrival.
    #[must_use]
    pub fn keyframe_interval(&self) -> Option<Duration> {
        let mut keyframes = self.keyframes().rev();
        let (newest, before) = (keyframes.next()?, keyframes.next()?);
        let jumps = self.marks_from(before.offset).skip(1).any(|mark| mark.is_jump);
        let times = newest.time.zip(before.time).filter(|_| !jumps);
        let ticks = times.map(|(newest, before)| newest.wrapping_sub(before) % TIME_CYCLE);
        let by_time = ticks.filter(|ticks| *ticks <= MAX_INTERVAL_TICKS);
        let by_time = by_time.map(|ticks| Duration::from_micros(ticks * 100 / 9));
        by_time.or_else(|| Some(newest.arrived.saturating_duration_since(before.arrived)))
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

/// Whether a mark is of no use beside the one before it. A burst brings seconds of a stream at once: what is close by arrival
/// may be far apart by the stream's own time.
fn is_close(before: &Mark, mark: &Mark) -> bool {
    let times = mark.time.zip(before.time).filter(|_| !mark.is_jump);
    let apart = times.map(|(time, before)| time.wrapping_sub(before) % TIME_CYCLE);
    let is_far = apart.is_some_and(|ticks| (PES_TICKS_APART..MAX_INTERVAL_TICKS).contains(&ticks));
    !is_far && mark.arrived.saturating_duration_since(before.arrived) < PES_MARKS_APART
}

impl Place {
    fn at(mark: &Mark) -> Self {
        Self { offset: mark.offset, prefix: mark.prefix.clone() }
    }
}

#[cfg(test)]
mod tests;
