//! When the fetcher pauses between two reads, for how long, and when it lets the engine wait. A plain value.
//!
//! What is read is published at once, and each publishing wakes every client's thread: that is most of what a stream costs.
//! So reads are gathered by a pause, and the pause is chosen by cost, since the picture is seconds behind the event anyway.
//! It reads no clock, and knows neither sockets nor clients beyond their number.
//!
//! A fixed pause is unsound. The kernel holds no more than its receive window, and a source that finds that full waits: with
//! 64 KiB and a pause of 60 ms, 50 Mbit/s came through as 9. So much in one pause shortens the next, which is enough where the
//! window is larger than a read. Linux begins with 64 KiB and makes it twice what is read at a time, up to megabytes; it is
//! left to that, since a receive buffer of a fixed size would end it, and is smaller than what an engine behind a VPN needs.
//! Where it stays small all the same, this helps: now and then a pause is a quarter as long, to see what that changes. A source
//! that runs freely gives a quarter, and one that waits for us as much as before, and then no pause is longer than half of that
//! for a while.

use std::time::{Duration, Instant};

/// One read, and so one chunk, at most. As much as ureq takes from a socket at a time.
pub(super) const READ_BYTES: usize = 128 * 1024;

/// A read that gave so much may have left something: a body in chunked coding never fills the buffer to its end. And a pause
/// that brought so much was long enough: a stream of 8 Mbit/s brings 100 kB in the longest.
const MUCH_BYTES: usize = READ_BYTES / 16 * 15;

/// The pause at its shortest.
pub(super) const SHORTEST: Duration = Duration::from_millis(2);

/// While somebody waits for the first picture. A start and a join lose nothing by a pause that is no longer than that.
const FRESH: Duration = Duration::from_millis(10);

/// Players gather what they need to begin within this time.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// At its longest for a household: 40 wakes a second for one viewer, and packets that are 50 ms old.
const LONG: Duration = Duration::from_millis(50);

/// At its longest for nobody, for many, whose wakes are what the process does, and for a slow stream, which has less to give
/// in the same time. A packet comes to the last of a thousand clients within 120 ms.
const LONGEST: Duration = Duration::from_millis(100);

/// From here on it is no household: who joins does not make it shorter, since the others pay for that.
const MANY: usize = 32;

/// Below so many bytes a millisecond, 4 Mbit/s, a stream is slow.
const SLOW_BYTES: u128 = 500;

/// Every so many pauses one is cut to a quarter, while they are long enough to tell.
const PROBE_EVERY: u32 = 10;

/// No kernel lets less than this be under way, so a source that gave less did not wait for us: it sends in pieces, and a read
/// waits for the next of them.
const SMALLEST_WINDOW: usize = 16 * 1024;

/// The engine is made to wait for slow clients for no longer than this.
const MAX_HOLD: Duration = Duration::from_secs(10);

/// The pauses in the reading of one source.
#[derive(Debug)]
pub(super) struct Pacing {
    pause: Duration,
    /// No pause is longer, since a longer one has held the source back.
    ceiling: Duration,
    since_pause: usize,
    probe: Probe,
    clients: usize,
    /// Until then somebody may wait for the first picture.
    fresh_until: Instant,
    holding_since: Option<Instant>,
}

/// How far it is to the next cut pause.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// So many pauses.
    In(u32),
    /// This is it; the whole pause before it brought so many bytes.
    Now(usize),
}

impl Pacing {
    /// For a source that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pause: FRESH,
            ceiling: LONGEST,
            since_pause: 0,
            probe: Probe::In(PROBE_EVERY),
            clients: 0,
            fresh_until: now + FRESH_FOR,
            holding_since: None,
        }
    }

    /// The pause after a read of so many bytes for so many clients; none after a large one, since there may be more.
    pub(super) fn after_read(&mut self, read: usize, clients: usize, now: Instant) -> Option<Duration> {
        self.since_pause += read;
        if clients > self.clients && clients < MANY {
            self.fresh_until = now + FRESH_FOR;
        }
        self.clients = clients;
        if read >= MUCH_BYTES {
            return None;
        }
        let came = std::mem::take(&mut self.since_pause);
        self.probe = match self.probe {
            Probe::Now(before) => {
                if came >= SMALLEST_WINDOW.max(before / 3 * 2) {
                    self.ceiling = (self.pause / 2).max(SHORTEST);
                    self.pause = self.ceiling;
                } else {
                    self.raise_ceiling();
                }
                Probe::In(PROBE_EVERY)
            }
            Probe::In(pauses) => {
                let longest = self.longest(came, now);
                self.pause = if came >= MUCH_BYTES {
                    (self.pause / 2).max(SHORTEST)
                } else {
                    (self.pause + self.pause / 4).min(longest)
                };
                match pauses {
                    // A quarter of it is still a pause.
                    0 if self.pause >= 4 * SHORTEST => Probe::Now(came),
                    0 => {
                        self.raise_ceiling();
                        Probe::In(PROBE_EVERY)
                    }
                    pauses => Probe::In(pauses - 1),
                }
            }
        };
        Some(if matches!(self.probe, Probe::Now(_)) { self.pause / 4 } else { self.pause })
    }

    /// Nothing speaks against longer pauses than before; if something does, the next probe tells.
    fn raise_ceiling(&mut self) {
        self.ceiling = (self.ceiling + self.ceiling / 4).min(LONGEST);
    }

    /// The longest pause for now, when the last one brought so many bytes.
    fn longest(&self, came: usize, now: Instant) -> Duration {
        let is_slow = (came as u128) < SLOW_BYTES * self.pause.as_millis();
        let by_cost = match self.clients {
            _ if now < self.fresh_until => FRESH,
            0 | MANY.. => LONGEST,
            _ if is_slow => LONGEST,
            _ => LONG,
        };
        by_cost.min(self.ceiling)
    }

    /// Whether to let the engine wait (on): not for longer than [`MAX_HOLD`], and then not again before somebody has
    /// caught up.
    pub(super) fn may_hold(&mut self, is_everybody_behind: bool, now: Instant) -> bool {
        if !is_everybody_behind {
            self.holding_since = None;
            return false;
        }
        now.duration_since(*self.holding_since.get_or_insert(now)) < MAX_HOLD
    }
}

#[cfg(test)]
mod tests;
