//! Who we are to the engines that we ask, and who asks us: how a relay notices that it stands behind itself.
//!
//! An engine may be another acerelay, and what stands behind that is not known here. So every question to an engine
//! carries the names of this relay and of all that have lately asked it, in a `Via` header (RFC 9110 section 7.6.3). Who
//! finds its own name in a question is reached through itself. Since health checks are such questions, a circle of any
//! length is found within a few of them, before anybody asks for a stream.
//!
//! Lock rule: the one lock is held for a look-up, alone.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What the names of relays begin with; other proxies on the way name themselves in the same header.
const PREFIX: &str = "acerelay-";

/// 64 bits of a name in hex: no two relays of a town draw the same.
const NAME_BYTES: usize = PREFIX.len() + 16;

/// A relay that asks us checks our health at least once within this time, unless its interval is longer than anybody's.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);

/// More relays than any house has before one; a flood of invented names must not make our own questions long.
const MAX_REMEMBERED: usize = 32;

/// The names of this relay and of those that ask it.
pub struct Relays {
    own: String,
    before_us: Mutex<HashMap<String, Instant>>,
}

impl Default for Relays {
    fn default() -> Self {
        Self { own: format!("{PREFIX}{:016x}", fastrand::u64(..)), before_us: Mutex::default() }
    }
}

impl Relays {
    /// Reads the `Via` header of a request: whether it has come through us before. The other relays in it are remembered
    /// for a while.
    pub fn has_come_through_us(&self, via: &str, now: Instant) -> bool {
        let mut names = via.split([',', ' ', '\t']).filter(|word| is_name(word)).peekable();
        if names.peek().is_none() {
            return false;
        }
        let mut before_us = self.before_us.lock();
        let mut is_own = false;
        for name in names {
            if name == self.own {
                is_own = true;
            } else if before_us.len() < MAX_REMEMBERED || before_us.contains_key(name) {
                before_us.insert(name.to_owned(), now);
            }
        }
        is_own
    }

    /// What our own questions have for a `Via` header.
    pub(super) fn via(&self, now: Instant) -> String {
        let mut before_us = self.before_us.lock();
        before_us.retain(|_, seen| now.saturating_duration_since(*seen) < REMEMBERED_FOR);
        let mut via = String::new();
        for name in before_us.keys() {
            // Writing to a text cannot fail.
            let _written = write!(via, "1.1 {name}, ");
        }
        drop(before_us);
        via + "1.1 " + &self.own
    }
}

fn is_name(word: &str) -> bool {
    word.len() == NAME_BYTES
        && word
            .strip_prefix(PREFIX)
            .is_some_and(|rest| rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_of_any_length_is_found_by_its_questions() {
        for length in 1..6 {
            let relays: Vec<_> = (0..length).map(|_| Relays::default()).collect();
            let now = Instant::now();
            let is_found = (0..length).any(|_| {
                (0..length).any(|at| {
                    let asked = &relays[(at + 1) % length];
                    asked.has_come_through_us(&relays[at].via(now), now)
                })
            });
            assert!(is_found, "{length}");
        }
    }

    #[test]
    fn a_row_of_relays_is_no_circle() {
        let relays: Vec<_> = (0..5).map(|_| Relays::default()).collect();
        let now = Instant::now();
        for _ in 0..5 {
            for pair in relays.windows(2) {
                assert!(!pair[1].has_come_through_us(&pair[0].via(now), now));
            }
        }
    }

    #[test]
    fn others_in_the_header_are_passed_over_and_names_are_forgotten() {
        let relay = Relays::default();
        let now = Instant::now();
        for via in
            ["", "1.1 varnish", "1.1 acerelay-, 1.1 acerelay-XYZ", "1.0 fred, 1.1 p.example.net (Apache)"]
        {
            assert!(!relay.has_come_through_us(via, now), "{via}");
        }
        assert_eq!(relay.via(now), format!("1.1 {}", relay.own));
        let other = Relays::default();
        let via = format!("1.1 nginx, {}", other.via(now));
        assert!(!relay.has_come_through_us(&via, now) && relay.via(now).contains(&other.own));
        let later = now + REMEMBERED_FOR;
        assert!(!relay.via(later).contains(&other.own));
        for number in 0..2 * MAX_REMEMBERED {
            relay.has_come_through_us(&format!("1.1 {PREFIX}{number:016x}"), now);
        }
        assert!(relay.via(now).len() < (MAX_REMEMBERED + 1) * (NAME_BYTES + 6));
    }
}
