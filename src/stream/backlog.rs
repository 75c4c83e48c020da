//! The last seconds of a stream, kept for those who join it.
//!
//! A plain value inside the fan-out's lock: it holds chunks in order, without gap, within its bounds, and knows
//! where a joiner starts. It reads no clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chunk::Chunk;

/// How much a backlog keeps; the harder bound counts.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of packets.
    pub bytes: u64,
    /// Age of the oldest chunk.
    pub age: Duration,
}

/// The chunks, oldest first.
#[derive(Debug)]
pub struct Backlog {
    bounds: Bounds,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    chunk: Arc<Chunk>,
    /// PAT and PMT as they were before this chunk.
    tables: Option<Arc<Chunk>>,
}

impl Backlog {
    /// An empty backlog.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: VecDeque::new() }
    }

    /// Takes the newest chunk and the tables that were valid before it. Returns what fell out at the other end, so
    /// that the caller can drop it where no lock is held.
    pub fn push(&mut self, chunk: Arc<Chunk>, tables: Option<Arc<Chunk>>) -> Vec<Arc<Chunk>> {
        let (head, now) = (chunk.end, chunk.arrived);
        self.entries.push_back(Entry { chunk, tables });
        let is_beyond = |entry: &Entry| {
            let age = now.saturating_duration_since(entry.chunk.arrived);
            head - entry.chunk.start() > self.bounds.bytes || age > self.bounds.age
        };
        // The newest chunk stays, however large it is.
        let keep_from = self.entries.iter().take(self.entries.len() - 1).take_while(|entry| is_beyond(entry)).count();
        self.entries.drain(..keep_from).map(|entry| entry.chunk).collect()
    }

    /// Where a client starts that wants to be `behind` the newest chunk: the newest chunk at least that old, else the
    /// oldest. An index for [`Backlog::from`].
    #[must_use]
    pub fn start_behind(&self, behind: Duration, now: Instant) -> usize {
        let is_old = |entry: &Entry| now.saturating_duration_since(entry.chunk.arrived) >= behind;
        self.entries.partition_point(is_old).saturating_sub(1)
    }

    /// The tables before the chunk at this index.
    #[must_use]
    pub fn tables_at(&self, index: usize) -> Option<&Arc<Chunk>> {
        self.entries.get(index)?.tables.as_ref()
    }

    /// The chunks from this index on.
    pub fn from(&self, index: usize) -> impl Iterator<Item = &Arc<Chunk>> {
        self.entries.range(index.min(self.entries.len())..).map(|entry| &entry.chunk)
    }

    /// Age by arrival of the chunk with the byte at this offset; none if it is not published yet. For an offset that
    /// has left the backlog the age of the oldest chunk.
    #[must_use]
    pub fn age_of(&self, offset: u64, now: Instant) -> Option<Duration> {
        let index = self.entries.partition_point(|entry| entry.chunk.end <= offset);
        Some(now.saturating_duration_since(self.entries.get(index)?.chunk.arrived))
    }

    /// Bytes that arrived within the last `window`.
    #[must_use]
    pub fn bytes_within(&self, window: Duration, now: Instant) -> u64 {
        let is_recent = |entry: &&Entry| now.saturating_duration_since(entry.chunk.arrived) <= window;
        self.entries.iter().rev().take_while(is_recent).map(|entry| entry.chunk.packets().len() as u64).sum()
    }

    /// Empties the backlog into the caller's hands.
    #[must_use = "dropping the chunks is work that belongs outside the lock"]
    pub fn take(&mut self) -> Vec<Arc<Chunk>> {
        self.entries.drain(..).map(|entry| entry.chunk).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1000, age: Duration::from_secs(10) };

    /// Chunks of 100 bytes, one a second.
    fn filled(count: u64) -> (Backlog, Instant) {
        let begin = Instant::now();
        let mut backlog = Backlog::new(BOUNDS);
        for number in 0..count {
            let arrived = begin + Duration::from_secs(number);
            let chunk = Arc::new(Chunk::new(number * 100, arrived, &[0; 100]));
            let _evicted = backlog.push(chunk, None);
        }
        (backlog, begin + Duration::from_secs(count - 1))
    }

    fn starts(backlog: &Backlog, index: usize) -> Vec<u64> {
        backlog.from(index).map(|chunk| chunk.start()).collect()
    }

    #[test]
    fn the_harder_bound_counts() {
        let (backlog, _) = filled(5);
        assert_eq!(starts(&backlog, 0), [0, 100, 200, 300, 400]);
        let (backlog, _) = filled(30);
        assert_eq!(starts(&backlog, 0).len(), 10, "ten chunks are 1000 bytes");
        let mut backlog = Backlog::new(Bounds { bytes: 1000, age: Duration::from_secs(1) });
        let begin = Instant::now();
        for number in 0..5 {
            let arrived = begin + Duration::from_secs(number);
            let evicted = backlog.push(Arc::new(Chunk::new(number * 10, arrived, &[0; 10])), None);
            assert_eq!(evicted.len(), usize::from(number > 1));
        }
        assert_eq!(starts(&backlog, 0), [30, 40]);
    }

    #[test]
    fn a_chunk_above_the_bound_is_kept_alone() {
        let (mut backlog, now) = filled(3);
        let evicted = backlog.push(Arc::new(Chunk::new(300, now, &[0; 5000])), None);
        assert_eq!(evicted.len(), 3);
        assert_eq!(starts(&backlog, 0), [300]);
    }

    #[test]
    fn a_joiner_starts_behind_the_edge_or_at_the_oldest() {
        let (backlog, now) = filled(8);
        let start = |behind| starts(&backlog, backlog.start_behind(Duration::from_millis(behind), now))[0];
        assert_eq!(start(0), 700);
        assert_eq!(start(1000), 600);
        assert_eq!(start(1500), 500);
        assert_eq!(start(60_000), 0);
        let empty = Backlog::new(BOUNDS);
        assert!(starts(&empty, empty.start_behind(Duration::ZERO, now)).is_empty());
    }

    #[test]
    fn ages_and_rates_are_by_arrival() {
        let (backlog, now) = filled(8);
        assert_eq!(backlog.age_of(650, now), Some(Duration::from_secs(1)));
        assert_eq!(backlog.age_of(0, now), Some(Duration::from_secs(7)));
        assert_eq!(backlog.age_of(800, now), None);
        assert_eq!(backlog.bytes_within(Duration::from_secs(2), now), 300);
    }
}
