//! What an engine tells about a playback session while it runs (engine-contract.md section 3).
//!
//! A session that wants to be asked about holds a [`Watched`]; the engine's watch thread asks. Neither knows of streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::answer::{integer_of, text_of};
use super::error::EngineError;
use super::url::Target;

/// While `downloaded` or `progress` has risen within this time, the engine is on its way: it is asked every few seconds,
/// and counts whole pieces.
const RISING_FOR: Duration = Duration::from_secs(10);

/// The fields of `livepos`: times in seconds since 1970, whether it is at the live edge, and pieces (engine-contract.md
/// section 3). Engines write them as texts.
const LIVE_POSITION: [&str; 8] =
    ["is_live", "live_first", "live_last", "first_ts", "last_ts", "pos", "last", "buffer_pieces"];

/// An engine's word on one session. Fields it does not give are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// `prebuf`, `dl`, `buf` and others.
    pub status: String,
    /// Connected peers.
    pub peers: Option<u64>,
    /// Download in kilobytes a second.
    pub speed_down_kbps: Option<u64>,
    /// Upload in kilobytes a second.
    pub speed_up_kbps: Option<u64>,
    /// Bytes from the swarm.
    pub downloaded: Option<u64>,
    /// Bytes to the swarm.
    pub uploaded: Option<u64>,
    /// Percent of what is being buffered.
    pub progress: Option<u64>,
    /// Where the broadcast is: those of `LIVE_POSITION` that it tells, as it writes them.
    pub live_position: Vec<(&'static str, String)>,
}

impl Stat {
    /// Reads the answer out of its envelope; an empty one is a session that was just created.
    pub(super) fn read(answer: &Value) -> Self {
        let number =
            |field| answer.get(field).and_then(integer_of).and_then(|number| u64::try_from(number).ok());
        Self {
            status: answer.get("status").and_then(text_of).unwrap_or_default(),
            peers: number("peers"),
            speed_down_kbps: number("speed_down"),
            speed_up_kbps: number("speed_up"),
            downloaded: number("downloaded"),
            uploaded: number("uploaded"),
            progress: number("progress"),
            live_position: live_position(answer.get("livepos")),
        }
    }

    /// Whether the engine has not begun to play yet.
    #[must_use]
    pub fn is_warming_up(&self) -> bool {
        matches!(self.status.as_str(), "" | "idle" | "check" | "checking" | "prebuf" | "loading" | "starting")
    }

    fn is_working(&self) -> bool {
        matches!(self.status.as_str(), "prebuf" | "buf" | "dl")
    }

    fn has_risen_since(&self, before: &Self) -> bool {
        self.downloaded > before.downloaded || self.progress > before.progress
    }
}

fn live_position(told: Option<&Value>) -> Vec<(&'static str, String)> {
    let Some(told) = told else { return Vec::new() };
    let field = |name| Some((name, told.get(name).and_then(integer_of)?.to_string()));
    LIVE_POSITION.into_iter().filter_map(field).collect()
}

/// A session that the engine's watch thread asks about, as long as this lives.
#[derive(Debug)]
pub struct Watched {
    pub(super) target: Target,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<Arc<Stat>>,
    last_at: Option<Instant>,
    /// When the engine gave the last two answers between which `downloaded` or `progress` rose.
    risen: Option<(Instant, Instant)>,
    /// When the engine said that it does not know the session.
    unknown_at: Option<Instant>,
    /// When it is to be asked again; at once, if never.
    due: Option<Instant>,
}

impl Watched {
    pub(super) fn new(target: Target) -> Arc<Self> {
        Arc::new(Self { target, seen: Mutex::default() })
    }

    /// The last word on the session.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Stat>> {
        self.seen.lock().last.clone()
    }

    /// The last word on the session, if it was said so lately.
    #[must_use]
    pub fn last_within(&self, age: Duration, now: Instant) -> Option<Arc<Stat>> {
        let seen = self.seen.lock();
        let is_fresh = seen.last_at.is_some_and(|at| now.saturating_duration_since(at) <= age);
        seen.last.clone().filter(|_| is_fresh)
    }

    /// Whether the engine has been filling its buffer since this time, and gets on with it.
    #[must_use]
    pub fn is_filling(&self, since: Instant, now: Instant) -> bool {
        let seen = self.seen.lock();
        let is_rising = seen
            .risen
            .is_some_and(|(from, to)| from >= since && now.saturating_duration_since(to) <= RISING_FOR);
        is_rising && seen.last.as_ref().is_some_and(|stat| stat.is_working())
    }

    /// Whether the engine said, at this time or later, that it does not know the session.
    #[must_use]
    pub fn is_unknown_since(&self, time: Instant) -> bool {
        self.seen.lock().unknown_at.is_some_and(|at| at >= time)
    }

    /// When it is to be asked; a session that was never asked about comes first.
    pub(super) fn due(&self) -> Option<Instant> {
        self.seen.lock().due
    }

    pub(super) fn set_due(&self, due: Option<Instant>) {
        self.seen.lock().due = due;
    }

    pub(super) fn record(&self, outcome: Result<Stat, EngineError>, now: Instant) {
        let mut seen = self.seen.lock();
        match outcome {
            Ok(stat) => {
                if let (Some(last), Some(at)) = (&seen.last, seen.last_at)
                    && stat.has_risen_since(last)
                {
                    seen.risen = Some((at, now));
                }
                (seen.last, seen.last_at) = (Some(Arc::new(stat)), Some(now));
                seen.unknown_at = None;
            }
            Err(error) if error.is_unknown_session() => seen.unknown_at = Some(now),
            // A slow or broken answer says nothing about the session.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(status: &str, downloaded: u64) -> Stat {
        Stat { status: status.to_owned(), downloaded: Some(downloaded), ..Stat::default() }
    }

    #[test]
    fn numbers_are_read_as_numbers_or_text_and_nonsense_is_left_out() {
        let text = r#"{"status": "dl", "peers": "7", "speed_down": 12, "downloaded": -5, "uploaded": null}"#;
        let stat = Stat::read(&serde_json::from_str(text).expect("JSON"));
        let expected =
            Stat { status: "dl".to_owned(), peers: Some(7), speed_down_kbps: Some(12), ..Stat::default() };
        assert_eq!(stat, expected);
        assert_eq!(Stat::read(&Value::Array(Vec::new())), Stat::default());
        assert!(Stat::default().is_warming_up());
    }

    #[test]
    fn an_engine_is_filling_while_it_gets_on_since_the_silence_began() {
        let watched = Watched::new(Target::GET_STATUS);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let is_filling = |since, now| watched.is_filling(at(since), at(now));
        watched.record(Ok(stat("dl", 16384)), at(0));
        assert!(!is_filling(0, 1), "one word tells no progress");
        watched.record(Ok(stat("dl", 32768)), at(3));
        assert!(is_filling(0, 4));
        assert!(!is_filling(1, 4), "that may have come before the silence");
        watched.record(Ok(stat("buf", 32768)), at(6));
        assert!(!is_filling(1, 7), "nothing came since");
        watched.record(Ok(stat("buf", 49152)), at(9));
        assert!(is_filling(1, 19));
        assert!(!is_filling(1, 20), "not for ever");
        watched.record(Err(EngineError::NoAnswer("broken")), at(12));
        assert!(is_filling(1, 19));
        watched.record(Ok(stat("idle", 65536)), at(15));
        assert!(!is_filling(1, 16));
    }

    #[test]
    fn a_word_is_the_last_one_for_a_while() {
        let watched = Watched::new(Target::GET_STATUS);
        let begin = Instant::now();
        let word = |seconds| {
            let now = begin + Duration::from_secs(seconds);
            watched.last_within(Duration::from_secs(10), now).and_then(|stat| stat.downloaded)
        };
        assert_eq!(word(0), None);
        watched.record(Ok(stat("dl", 7)), begin);
        watched.record(Err(EngineError::NoAnswer("broken")), begin + Duration::from_secs(9));
        assert_eq!((word(10), word(11)), (Some(7), None));
    }

    #[test]
    fn a_session_is_unknown_from_the_moment_it_was_said() {
        let watched = Watched::new(Target::GET_STATUS);
        let begin = Instant::now();
        let unknown = || Err(EngineError::Said("unknown playback session id".to_owned()));
        watched.record(unknown(), begin + Duration::from_secs(5));
        assert!(watched.is_unknown_since(begin));
        assert!(!watched.is_unknown_since(begin + Duration::from_secs(6)));
        watched.record(Ok(stat("dl", 1)), begin + Duration::from_secs(7));
        assert!(!watched.is_unknown_since(begin));
    }
}
