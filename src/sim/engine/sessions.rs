//! The session table and its rules (engine-contract.md 8.3): who may read what, and who ends whom.
//!
//! Values and `now` in, what has ended out; no I/O, no clock, no counters.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::script::PlaybackStep;

/// Which of a real engine's rules hold. All of them by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// A player (the same `pid`, or none) who starts another content ends its session with the first.
    pub one_content_per_player: bool,
    /// A stop of one session ends every session of the same content.
    pub stop_ends_all_of_content: bool,
    /// A second reader on one session gets two status lines; else it reads beside the first.
    pub second_reader_is_broken: bool,
    /// The same player and the same content again get the URLs of the session that is there.
    pub reuse: bool,
    /// A stop that came while the engine was frozen ends whatever session of the content is the newest at the thaw.
    pub late_stop_ends_newest: bool,
    /// What the readers of an ended session see.
    pub ended_readers: EndedReaders,
}

impl Default for SessionRules {
    fn default() -> Self {
        Self {
            one_content_per_player: true,
            stop_ends_all_of_content: true,
            second_reader_is_broken: true,
            reuse: true,
            late_stop_ends_newest: true,
            ended_readers: EndedReaders::End,
        }
    }
}

/// What the readers of an ended session see; both were seen with real engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedReaders {
    /// A clean end.
    End,
    /// Silence.
    Stall,
}

/// One playback session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Which content, by its place in the engine's list.
    pub(super) content: usize,
    /// Which of the content's files, by its place.
    pub(super) file: usize,
    /// The player; none is a player too.
    pub(super) player: Option<String>,
    /// The `playback_session_id` of the start answer.
    pub(super) id: String,
    pub(super) client_session_id: i64,
    pub(super) opened: Instant,
    /// Since when its content is downloaded.
    pub(super) buffers_since: Instant,
    /// The last call that counts as activity of a player.
    pub(super) active: Instant,
    pub(super) readers: u32,
    /// Requests to its playback URL that are being answered.
    pub(super) asking: u32,
    /// Bytes of its bodies.
    pub(super) sent: u64,
    /// Whether a stat call was answered: the first one is answered empty.
    pub(super) was_asked: bool,
    /// Whether a newer reader takes over from an older one (`stop_prev_read_thread`).
    pub(super) newest_reads: bool,
}

/// What a getstream call asks for.
pub(super) struct Wish {
    pub(super) content: usize,
    pub(super) file: usize,
    pub(super) player: Option<String>,
    pub(super) client_session_id: i64,
    pub(super) newest_reads: bool,
    pub(super) is_forced: bool,
    pub(super) buffers_since: Instant,
}

/// What a getstream call has done.
pub(super) struct Opened {
    pub(super) token: String,
    pub(super) is_new: bool,
    /// Contents of the sessions that it ended.
    pub(super) superseded: Vec<usize>,
}

/// A redirect to `/content/...` that was handed out.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) token: String,
    pub(super) playback: PlaybackStep,
}

/// The open sessions by token, and their tickets by name.
pub(super) struct Sessions {
    open: HashMap<String, Session>,
    tickets: HashMap<String, Ticket>,
    token_digits: usize,
    /// Tells the tokens of this engine from all others, however long ago they were handed out.
    mark: RandomState,
}

/// Digits at the end of a token that are worked out from those before.
const MARK_DIGITS: usize = 8;

impl Default for Sessions {
    fn default() -> Self {
        Self::new(32)
    }
}

/// So many random hex digits.
pub(super) fn random_hex(digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(fastrand::u32(0..16), 16).expect("a digit below 16")).collect()
}

impl Sessions {
    pub(super) fn new(token_digits: usize) -> Self {
        Self {
            open: HashMap::new(),
            tickets: HashMap::new(),
            token_digits: token_digits.max(2 * MARK_DIGITS),
            mark: RandomState::new(),
        }
    }

    fn new_token(&self) -> String {
        let random = random_hex(self.token_digits - MARK_DIGITS);
        let mark = self.mark_of(&random);
        random + &mark
    }

    fn mark_of(&self, random: &str) -> String {
        format!("{:08x}", self.mark.hash_one(random) as u32)
    }

    /// Whether this engine has ever handed out such a token.
    pub(super) fn has_handed_out(&self, token: &str) -> bool {
        let parts = token.split_at_checked(self.token_digits - MARK_DIGITS);
        parts.is_some_and(|(random, mark)| mark == self.mark_of(random))
    }

    pub(super) fn open(&mut self, wish: Wish, rules: SessionRules, now: Instant) -> Opened {
        let same = self.open.iter_mut().find(|(_, session)| {
            (session.content, session.file) == (wish.content, wish.file) && session.player == wish.player
        });
        if let Some((token, session)) = same
            && rules.reuse
            && !wish.is_forced
        {
            session.active = now;
            return Opened { token: token.clone(), is_new: false, superseded: Vec::new() };
        }
        let superseded = if rules.one_content_per_player {
            self.end_where(|_, session| {
                session.player == wish.player && (session.content != wish.content || wish.is_forced)
            })
        } else {
            Vec::new()
        };
        let token = self.new_token();
        let session = Session {
            content: wish.content,
            file: wish.file,
            player: wish.player,
            id: random_hex(40),
            client_session_id: wish.client_session_id,
            opened: now,
            buffers_since: wish.buffers_since,
            active: now,
            readers: 0,
            asking: 0,
            sent: 0,
            was_asked: false,
            newest_reads: wish.newest_reads,
        };
        self.open.insert(token.clone(), session);
        Opened { token, is_new: true, superseded }
    }

    /// The session of this token, if it is one of this content.
    pub(super) fn get_mut(&mut self, token: &str, content: usize) -> Option<&mut Session> {
        self.open.get_mut(token).filter(|session| session.content == content)
    }

    pub(super) fn contains(&self, token: &str) -> bool {
        self.open.contains_key(token)
    }

    /// The token of the session of this content that was opened last.
    pub(super) fn newest(&self, content: usize) -> Option<String> {
        let of_content = self.open.iter().filter(|(_, session)| session.content == content);
        of_content.max_by_key(|(_, session)| session.opened).map(|(token, _)| token.clone())
    }

    /// Ends a session and, by the rules, the others of its content: how many others; `None` if it is not there.
    pub(super) fn stop(&mut self, token: &str, content: usize, rules: SessionRules) -> Option<usize> {
        self.get_mut(token, content)?;
        let ended = self.end_where(|name, session| {
            name == token || rules.stop_ends_all_of_content && session.content == content
        });
        Some(ended.len() - 1)
    }

    /// Ends those that nobody read or asked for since `now - idle`: their contents.
    pub(super) fn expire(&mut self, now: Instant, idle: Duration) -> Vec<usize> {
        self.end_where(|_, session| session.expires(idle).is_some_and(|at| at <= now))
    }

    /// When the next of them expires, or is as old as a session may get.
    pub(super) fn next_expiry(&self, idle: Duration, lifetime: Option<Duration>) -> Option<Instant> {
        let idle = self.open.values().filter_map(|session| session.expires(idle));
        idle.chain(self.open.values().filter_map(|session| session.dies(lifetime))).min()
    }

    /// Ends those that are older: their contents.
    pub(super) fn forget(&mut self, now: Instant, lifetime: Option<Duration>) -> Vec<usize> {
        self.end_where(|_, session| session.dies(lifetime).is_some_and(|at| at <= now))
    }

    /// Forgets everything, as a restart does: the contents of the sessions.
    pub(super) fn lose_all(&mut self) -> Vec<usize> {
        self.end_where(|_, _| true)
    }

    /// Hands out a name for `/content/<infohash>/<name>`.
    pub(super) fn add_ticket(&mut self, ticket: Ticket) -> String {
        let name = format!("0.{:012}", fastrand::u64(0..1_000_000_000_000));
        self.tickets.insert(name.clone(), ticket);
        name
    }

    pub(super) fn ticket(&self, name: &str) -> Option<Ticket> {
        self.tickets.get(name).cloned()
    }

    fn end_where(&mut self, mut ends: impl FnMut(&str, &Session) -> bool) -> Vec<usize> {
        let mut contents = Vec::new();
        self.open.retain(|token, session| {
            let ends = ends(token, session);
            if ends {
                contents.push(session.content);
            }
            !ends
        });
        let open = &self.open;
        self.tickets.retain(|_, ticket| open.contains_key(&ticket.token));
        contents
    }
}

impl Session {
    fn dies(&self, lifetime: Option<Duration>) -> Option<Instant> {
        self.opened.checked_add(lifetime?)
    }

    fn expires(&self, idle: Duration) -> Option<Instant> {
        if self.readers == 0 { self.active.checked_add(idle) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sessions: &mut Sessions, content: usize, player: Option<&str>) -> Opened {
        let wish = Wish {
            content,
            file: 0,
            player: player.map(str::to_owned),
            client_session_id: -1,
            newest_reads: false,
            is_forced: false,
            buffers_since: Instant::now(),
        };
        sessions.open(wish, SessionRules::default(), Instant::now())
    }

    #[test]
    fn the_same_player_and_content_get_the_same_session() {
        let mut sessions = Sessions::default();
        for player in [None, Some("1")] {
            let first = open(&mut sessions, 0, player);
            let second = open(&mut sessions, 0, player);
            assert!(first.is_new && !second.is_new);
            assert_eq!(first.token, second.token);
        }
        assert_eq!(sessions.open.len(), 2);
    }

    #[test]
    fn a_player_has_one_content_at_a_time() {
        let mut sessions = Sessions::default();
        let first = open(&mut sessions, 0, None);
        let other_player = open(&mut sessions, 0, Some("1"));
        let second = open(&mut sessions, 1, None);
        assert_eq!(second.superseded, [0]);
        assert!(!sessions.contains(&first.token));
        assert!(sessions.contains(&other_player.token) && sessions.contains(&second.token));
    }

    #[test]
    fn a_stop_ends_all_sessions_of_the_content() {
        let mut sessions = Sessions::default();
        let rules = SessionRules::default();
        let one = open(&mut sessions, 0, Some("1"));
        open(&mut sessions, 0, Some("2"));
        let other = open(&mut sessions, 1, Some("3"));
        assert_eq!(sessions.stop(&one.token, 1, rules), None);
        assert_eq!(sessions.stop(&one.token, 0, rules), Some(1));
        assert_eq!(sessions.stop(&one.token, 0, rules), None);
        assert!(sessions.contains(&other.token));
    }

    #[test]
    fn a_session_without_reader_expires_with_its_tickets() {
        let mut sessions = Sessions::default();
        let idle = Duration::from_secs(60);
        let opened = open(&mut sessions, 0, None);
        let name =
            sessions.add_ticket(Ticket { token: opened.token.clone(), playback: PlaybackStep::default() });
        let at = sessions.next_expiry(idle, None).expect("it will expire");
        assert!(sessions.expire(at - Duration::from_millis(1), idle).is_empty());
        let session = sessions.get_mut(&opened.token, 0).expect("it is there");
        session.readers = 1;
        assert_eq!(sessions.next_expiry(idle, None), None);
        sessions.get_mut(&opened.token, 0).expect("it is there").readers = 0;
        assert!(sessions.ticket(&name).is_some());
        assert_eq!(sessions.expire(at, idle), [0]);
        assert!(sessions.ticket(&name).is_none());
    }
}
