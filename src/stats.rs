//! Totals since the start of the process.
//!
//! They only grow, and each is counted where and when it happens: a sum of what lives and what is gone would fall for a
//! moment whenever something ends, and whoever watches a rate would take that for a restart.
//!
//! Lock rule: the one lock here is taken alone, for a look-up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Counters of the whole process.
#[derive(Debug, Default)]
pub struct Stats {
    streams: AtomicU64,
    clients: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    joins: AtomicU64,
    skips: AtomicU64,
    losses: AtomicU64,
    stalls: AtomicU64,
    recoveries: AtomicU64,
    failovers: AtomicU64,
    failed_starts: AtomicU64,
    first_data: Histogram,
    segments: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

/// The totals at one moment, for metrics.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Streams that were started, successfully or not.
    pub starts: u64,
    /// Bytes read off engines.
    pub bytes_in: u64,
    /// Bytes of packets sent to clients.
    pub bytes_out: u64,
    /// Segments sent to viewers by HLS.
    pub segments: u64,
    /// Clients that began to be sent a stream.
    pub joins: u64,
    /// How often clients were moved ahead.
    pub skips: u64,
    /// How often a running stream lost its source.
    pub losses: u64,
    /// How often it had fallen silent.
    pub stalls: u64,
    /// How often a lost source was replaced.
    pub recoveries: u64,
    /// How often by one of another engine.
    pub failovers: u64,
    /// Starts that failed for a reason that is somebody's trouble.
    pub failed_starts: u64,
    /// Time from the first request to the first packets of a stream.
    pub first_data: Distribution,
    /// Requests for a stream that were refused, by error.
    pub refusals: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Counts a stream that was started.
    pub fn add_stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Streams started.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// A number for a new client, from 1.
    #[must_use]
    pub fn next_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts bytes read off engines.
    pub fn add_bytes_in(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes read off engines.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Counts bytes of packets sent to a client.
    pub fn add_bytes_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of packets sent to clients.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Counts a segment of so many bytes that was sent to a client.
    pub fn add_segment(&self, bytes: u64) {
        self.segments.fetch_add(1, Ordering::Relaxed);
        self.add_bytes_out(bytes);
    }

    /// Counts a client that begins to be sent a stream.
    pub fn add_join(&self) {
        self.joins.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts moves ahead of a client.
    pub fn add_skips(&self, skips: u64) {
        self.skips.fetch_add(skips, Ordering::Relaxed);
    }

    /// Counts a running stream that lost its source.
    pub fn add_loss(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a source that fell silent in mid-stream.
    pub fn add_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a lost source that was replaced by one of another engine.
    pub fn add_failover(&self) {
        self.failovers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a lost source that was replaced.
    pub fn add_recovery(&self) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a start that failed.
    pub fn add_failed_start(&self) {
        self.failed_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a start that succeeded after so long.
    pub fn add_first_data(&self, after: Duration) {
        self.first_data.record(after);
    }

    /// Counts a request for a stream that was refused with this error.
    pub fn add_refusal(&self, error: &'static str) {
        *self.refusals.lock().entry(error).or_default() += 1;
    }

    /// All of them.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            starts: self.streams(),
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out(),
            segments: self.segments.load(Ordering::Relaxed),
            joins: self.joins.load(Ordering::Relaxed),
            skips: self.skips.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
            stalls: self.stalls.load(Ordering::Relaxed),
            recoveries: self.recoveries.load(Ordering::Relaxed),
            failovers: self.failovers.load(Ordering::Relaxed),
            failed_starts: self.failed_starts.load(Ordering::Relaxed),
            first_data: self.first_data.distribution(),
            refusals: self.refusals.lock().clone(),
        }
    }
}

/// Upper ends of a histogram's buckets, in milliseconds: from an engine's answer in the same house to the longest start
/// that the default limits allow.
const BOUNDS_MS: [u64; 12] = [5, 25, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 30_000, 60_000];

/// Counts times by their length.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for what is longer than all bounds.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Upper end of each bucket and how many were no longer than that, shortest first.
    pub buckets: Vec<(Duration, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, time: Duration) {
        let bucket = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < time);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // More than half a million years of it do not fit.
        self.sum_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// What was counted. The count is that of the buckets, also while somebody counts.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS_MS.len());
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(bound) = BOUNDS_MS.get(index) {
                buckets.push((Duration::from_millis(*bound), count));
            }
        }
        Distribution { buckets, count, sum: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it_and_in_all_longer_ones() {
        let histogram = Histogram::default();
        for ms in [5, 6, 60_001] {
            histogram.record(Duration::from_millis(ms));
        }
        let Distribution { buckets, count, sum } = histogram.distribution();
        assert_eq!(buckets[..2], [(Duration::from_millis(5), 1), (Duration::from_millis(25), 2)]);
        assert_eq!(buckets.last(), Some(&(Duration::from_secs(60), 2)));
        assert_eq!((count, sum), (3, Duration::from_millis(60_012)));
    }
}
