//! Where the head of a stream was some time ago: what lies before that has arrived long ago.
//!
//! It knows no clients, and reads no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// In how many steps the time is told. Finer than a thirtieth of it matters to nobody.
const STEPS: u32 = 32;

/// Remembers where the head was, up to a certain time ago.
#[derive(Debug)]
pub(super) struct Past {
    limit: Duration,
    /// When the head was where, oldest first. Never more than there was room for from the beginning.
    heads: VecDeque<(Instant, u64)>,
    /// Where it was at least `limit` ago.
    old: u64,
}

impl Past {
    /// Nothing has been published yet; `limit` is how long ago is long ago.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, heads: VecDeque::with_capacity(STEPS as usize + 2), old: 0 }
    }

    /// The head is here now and moves on. Tells where it was long ago: whatever lies before that arrived no later.
    pub(super) fn advance(&mut self, now: Instant, head: u64) -> u64 {
        while let Some((at, offset)) = self.heads.front()
            && now.saturating_duration_since(*at) >= self.limit
        {
            self.old = *offset;
            self.heads.pop_front();
        }
        let step = self.limit / STEPS;
        if self.heads.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= step) {
            self.heads.push_back((now, head));
        }
        self.old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_where_the_head_was_and_never_grows() {
        let (start, limit) = (Instant::now(), Duration::from_secs(32));
        let mut past = Past::new(limit);
        let room = past.heads.capacity();
        let mut tell = |second: u64, head| past.advance(start + Duration::from_millis(1000 * second), head);
        assert_eq!([tell(0, 0), tell(1, 10), tell(31, 310)], [0, 0, 0]);
        assert_eq!([tell(32, 320), tell(33, 330), tell(40, 400)], [0, 10, 10]);
        assert_eq!(tell(1000, 410), 400, "nothing came for long");
        for number in 0..10_000 {
            let now = start + Duration::from_millis(1_000_000 + 10 * number);
            let old = past.advance(now, 410 + number);
            let exact = (410 + number).saturating_sub(3200);
            assert!(old <= exact.max(400) && old + 101 >= exact, "{number}: {old}, not {exact}");
        }
        assert_eq!(past.heads.capacity(), room);
    }
}
