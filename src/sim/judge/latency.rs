//! How long packets were under way: a histogram that is small and fine enough for percentiles.
//!
//! It knows numbers only, not packets.

use std::time::Duration;

/// Each doubling of the time is cut into so many buckets, so a quantile is exact to one part in as many.
const BUCKETS_PER_OCTAVE: u64 = 16;

/// How long packets were under way, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Packets measured.
    pub count: u64,
    /// The shortest time.
    pub min_us: u64,
    /// The longest time.
    pub max_us: u64,
    sum_us: u128,
    /// As long as the last bucket that is not empty.
    buckets: Vec<u64>,
}

/// The bucket of this time: one a microsecond at first, then as many for each doubling.
fn bucket_of(us: u64) -> usize {
    let shift = (us / BUCKETS_PER_OCTAVE).checked_ilog2().unwrap_or(0);
    (u64::from(shift) * BUCKETS_PER_OCTAVE + (us >> shift)) as usize
}

/// The longest time in this bucket.
fn longest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / BUCKETS_PER_OCTAVE).saturating_sub(1);
    let next = u128::from(bucket - shift * BUCKETS_PER_OCTAVE + 1) << shift;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

impl Latency {
    pub(super) fn add(&mut self, us: u64) {
        self.min_us = if self.count == 0 { us } else { self.min_us.min(us) };
        self.max_us = self.max_us.max(us);
        self.sum_us += u128::from(us);
        self.count += 1;
        let bucket = bucket_of(us);
        self.make_room(bucket + 1);
        self.buckets[bucket] += 1;
    }

    fn make_room(&mut self, buckets: usize) {
        if self.buckets.len() < buckets {
            self.buckets.resize(buckets, 0);
        }
    }

    /// The mean time; zero if nothing was measured.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let mean = self.sum_us / u128::from(self.count.max(1));
        Duration::from_micros(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// A bound that at least this share (0 to 1) of the packets kept, too high by a sixteenth at most.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (share.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let us = bucket.map_or(self.max_us, longest_in);
        Duration::from_micros(us.min(self.max_us))
    }

    /// Adds what another one measured.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min_us = if self.count == 0 { other.min_us } else { self.min_us.min(other.min_us) };
        self.max_us = self.max_us.max(other.max_us);
        self.sum_us += other.sum_us;
        self.count += other.count;
        self.make_room(other.buckets.len());
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for us in (0..100_000).chain([u64::MAX - 1, u64::MAX]) {
            let bucket = bucket_of(us);
            assert!(us <= longest_in(bucket), "{us}");
            assert!(bucket == 0 || us > longest_in(bucket - 1), "{us}");
            assert!(longest_in(bucket) - us <= us / BUCKETS_PER_OCTAVE, "{us}");
        }
    }

    #[test]
    fn quantiles_are_right_to_a_sixteenth() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|us| latency.add(us));
        for (share, right) in [(0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1000)] {
            let told = latency.quantile(share).as_micros();
            assert!((right..=right + right / 16).contains(&told), "{share}: {told}");
        }
        assert_eq!(latency.mean(), Duration::from_micros(500));
        assert_eq!(Latency::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn what_was_merged_counts_as_if_measured_here() {
        let (mut all, mut low, mut high) = (Latency::default(), Latency::default(), Latency::default());
        (1..=1000).for_each(|us| all.add(us));
        (1..=400).for_each(|us| low.add(us));
        (401..=1000).for_each(|us| high.add(us));
        low.merge(&high);
        low.merge(&Latency::default());
        assert_eq!(low, all);
    }
}
