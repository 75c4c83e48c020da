//! What is remembered of the contents that were played: which are dead, and which a channel was last well with.
//!
//! A content that failed is left alone for a minute, and twice as long each time it fails again; half a minute of picture makes
//! it good again. In memory only: after a restart everything is worth a try. It must not know engines, whose faults are no
//! content's, nor where channels come from.
//!
//! Lock rule: its one lock is taken last and held for look-ups only.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use crate::id::ContentKey;
use crate::sync::Mutex;
use crate::wanted::StreamKey;

/// A content that failed once is dead for so long ...
const DEAD_AT_FIRST: Duration = Duration::from_secs(60);

/// ... and at most so long, however often it failed: broadcasters come back.
const DEAD_AT_MOST: Duration = Duration::from_secs(30 * 60);

/// Which played last stays first for so long after its channel was stopped.
const GOOD_FOR: Duration = Duration::from_secs(30 * 60);

/// A source has to play for so long before it counts as good: one that connects and dies would else be taken for it.
pub(super) const GOOD_AFTER: Duration = Duration::from_secs(30);

/// As many contents as a house asks for in a day, many times over.
const MAX_REMEMBERED: usize = 4096;

/// What is remembered of contents.
#[derive(Debug, Default)]
pub struct Past {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    failed: HashMap<ContentKey, Failed>,
    good: HashMap<StreamKey, (ContentKey, Instant)>,
}

#[derive(Clone, Debug)]
struct Failed {
    at: Instant,
    on_the_wall: SystemTime,
    times: u32,
    words: String,
}

impl Failed {
    fn is_dead(&self, now: Instant) -> bool {
        let dead = DEAD_AT_FIRST.saturating_mul(1 << (self.times - 1).min(10)).min(DEAD_AT_MOST);
        now.saturating_duration_since(self.at) < dead
    }
}

impl Past {
    /// This content failed, in these words.
    pub(super) fn fail(&self, content: &ContentKey, words: String, now: Instant) {
        let mut table = self.table.lock();
        let times = table.failed.get(content).map_or(0, |failed| failed.times).saturating_add(1);
        if times == 1 && table.failed.len() >= MAX_REMEMBERED {
            let oldest =
                table.failed.iter().min_by_key(|(_, failed)| failed.at).map(|(content, _)| content.clone());
            oldest.and_then(|oldest| table.failed.remove(&oldest));
        }
        let failed = Failed { at: now, on_the_wall: SystemTime::now(), times, words };
        table.failed.insert(content.clone(), failed);
    }

    /// This content has played well for this stream, and does so now.
    pub(super) fn praise(&self, stream: &StreamKey, content: &ContentKey, now: Instant) {
        let mut table = self.table.lock();
        table.failed.remove(content);
        if !table.good.contains_key(stream) && table.good.len() >= MAX_REMEMBERED {
            table.good.retain(|_, (_, at)| now.saturating_duration_since(*at) < GOOD_FOR);
            if table.good.len() >= MAX_REMEMBERED {
                return;
            }
        }
        table.good.insert(stream.clone(), (content.clone(), now));
    }

    /// The contents by how they are to be tried: the one that was good lately, then those that are not dead, then those that
    /// are, each in their order of preference.
    #[must_use]
    pub(super) fn order(&self, stream: &StreamKey, contents: &[ContentKey], now: Instant) -> Vec<usize> {
        let table = self.table.lock();
        let good = table.good.get(stream).filter(|(_, at)| now.saturating_duration_since(*at) < GOOD_FOR);
        let is_dead = |content| table.failed.get(content).is_some_and(|failed| failed.is_dead(now));
        let rank = |index: &usize| {
            let content = &contents[*index];
            let is_dead = is_dead(content);
            (is_dead, good.is_none_or(|(good, _)| is_dead || good != content))
        };
        let mut order: Vec<_> = (0..contents.len()).collect();
        order.sort_by_key(rank);
        order
    }

    /// When and in which words this content failed last, if it is not good again.
    #[must_use]
    pub fn failure_of(&self, content: &ContentKey) -> Option<(SystemTime, String)> {
        self.table.lock().failed.get(content).map(|failed| (failed.on_the_wall, failed.words.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Vec<ContentKey> {
        (1..4).map(|n| ContentKey::from_query(None, [("id", format!("{n:040x}"))]).expect("a key")).collect()
    }

    #[test]
    fn what_is_dead_stands_behind_for_longer_each_time() {
        let (past, contents, now) = (Past::default(), contents(), Instant::now());
        let key = StreamKey::Channel("a".parse().expect("a slug"));
        let order = |seconds| past.order(&key, &contents, now + Duration::from_secs(seconds));
        assert_eq!(order(0), [0, 1, 2]);
        past.fail(&contents[0], "no".to_owned(), now);
        assert_eq!((order(59), order(60)), (vec![1, 2, 0], vec![0, 1, 2]));
        past.fail(&contents[0], "no".to_owned(), now);
        assert_eq!((order(119), order(120)), (vec![1, 2, 0], vec![0, 1, 2]));
        (0..20).for_each(|_| past.fail(&contents[0], "again".to_owned(), now));
        assert_eq!((order(1799), order(1800)), (vec![1, 2, 0], vec![0, 1, 2]));
        past.fail(&contents[1], "no".to_owned(), now);
        past.fail(&contents[2], "no".to_owned(), now);
        assert_eq!(order(10), [0, 1, 2], "all are dead, so all are tried");
        assert_eq!(past.failure_of(&contents[0]).map(|(_, words)| words).as_deref(), Some("again"));
        past.praise(&key, &contents[0], now);
        assert_eq!(past.failure_of(&contents[0]), None);
    }

    #[test]
    fn what_was_good_comes_first_for_half_an_hour_unless_it_died() {
        let (past, contents, now) = (Past::default(), contents(), Instant::now());
        let (key, other) = (
            StreamKey::Channel("a".parse().expect("a slug")),
            StreamKey::Channel("b".parse().expect("a slug")),
        );
        past.praise(&key, &contents[1], now);
        let order = |key, seconds| past.order(key, &contents, now + Duration::from_secs(seconds));
        assert_eq!((order(&key, 1799), order(&key, 1800)), (vec![1, 0, 2], vec![0, 1, 2]));
        assert_eq!(order(&other, 0), [0, 1, 2]);
        past.fail(&contents[1], "no".to_owned(), now);
        assert_eq!(order(&key, 1), [0, 2, 1]);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (past, now) = (Past::default(), Instant::now());
        for n in 0..MAX_REMEMBERED as u64 + 10 {
            let content = ContentKey::from_query(None, [("id", format!("{n:040x}"))]).expect("a key");
            past.fail(&content, String::new(), now + Duration::from_millis(n));
        }
        assert_eq!(past.table.lock().failed.len(), MAX_REMEMBERED);
    }
}
