//! Where an engine is: its addresses, looked up by name on a thread that nobody has to wait for.
//!
//! An IP address needs no look-up. A name is looked up once, and its addresses are kept while they work; after a connect
//! that failed it is looked up anew, and until the answer is there, or if there is none, the old addresses serve on. At most
//! one look-up runs at a time and all who need it wait for the same one, each as long as it may; an answer that comes later
//! is there for the next. What cannot be interrupted is the one system call, which is left to end by itself.
//!
//! It must not know what is asked of an engine. Lock rule: the one lock here is taken alone, never over a look-up.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::threads::{LARGE_STACK_BYTES, Threads};

use super::error::{EngineError, NoConnection};
use super::relays::Relays;

/// A resolver that answers one of its two questions and swallows the other gives up after 5 s: its answer is worth waiting
/// for, if the call may take so long.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(7);

/// Who has an old address waits no longer for a new one: most connects fail since nobody is there.
const RENEWAL_PATIENCE: Duration = Duration::from_millis(500);

/// Who waits looks so often whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// As many as `ureq` takes; no house has so many.
const MAX_ADDRESSES: usize = 16;

pub(super) type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Where an engine is.
pub(super) struct Host {
    authority: String,
    /// Who we are to it.
    relays: Arc<Relays>,
    /// Asks the system; replaced in tests.
    look_up: Box<LookUp>,
    /// Never joined: a look-up in progress ends when the system says so.
    threads: Threads,
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    /// A connect to them failed, or there never were any: they are to be looked up.
    is_doubted: bool,
    is_looking: bool,
    /// Look-ups that have ended.
    answers: u64,
    /// Why the last one had no answer.
    failure: Option<String>,
}

impl Host {
    /// The host of this `host:port`, by the system's resolver.
    pub(super) fn new(authority: &str, relays: Arc<Relays>) -> Arc<Self> {
        let ask_the_system = |authority: &str| Ok(authority.to_socket_addrs()?.collect());
        Self::with(authority, relays, Box::new(ask_the_system))
    }

    #[cfg(test)]
    pub(super) fn with_look_up(authority: &str, look_up: Box<LookUp>) -> Arc<Self> {
        Self::with(authority, Arc::default(), look_up)
    }

    fn with(authority: &str, relays: Arc<Relays>, look_up: Box<LookUp>) -> Arc<Self> {
        let known = match authority.parse::<SocketAddr>() {
            Ok(address) => Known { addresses: [address].into(), ..Known::default() },
            Err(_) => Known { is_doubted: true, ..Known::default() },
        };
        Arc::new(Self {
            authority: authority.to_owned(),
            relays,
            look_up,
            threads: Threads::new(),
            known: Mutex::new(known),
            changed: Condvar::new(),
        })
    }

    /// The `host:port`.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// What its questions have for a `Via` header.
    pub(super) fn via(&self) -> String {
        self.relays.via(Instant::now())
    }

    /// Its addresses as far as they are known.
    pub(super) fn known(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.known.lock().addresses)
    }

    /// Looks its addresses up if that is needed, at most until `deadline` and while `is_wanted`.
    ///
    /// # Errors
    ///
    /// When there is no address, neither a new one nor an old one.
    pub(super) fn find(
        self: &Arc<Self>,
        deadline: Instant,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), EngineError> {
        let mut known = self.known.lock();
        if !known.is_doubted {
            return Ok(());
        }
        let patience = if known.addresses.is_empty() { LOOKUP_PATIENCE } else { RENEWAL_PATIENCE };
        let deadline = deadline.min(Instant::now() + patience);
        let answers = known.answers;
        let mut is_started = Ok(());
        if !known.is_looking {
            known.is_looking = true;
            drop(known);
            is_started = self.start_look_up();
            known = self.known.lock();
        }
        while known.is_looking && known.answers == answers && is_wanted() {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            self.changed.wait_until(&mut known, deadline.min(now + LOOK));
        }
        if !known.addresses.is_empty() {
            return Ok(());
        }
        Err(EngineError::Unreachable(match (is_started, &known.failure) {
            (Err(error), _) => {
                log::debug!("No thread to look {} up: {error}", self.authority);
                NoConnection::Unanswered("this system has no thread to look its host name up")
            }
            (Ok(()), Some(failure)) if !known.is_looking => NoConnection::Refused(failure.clone()),
            _ => NoConnection::Unanswered("its host name was not looked up in time"),
        }))
    }

    /// A connect has failed: the next one is preceded by a look-up, unless the address was given as such.
    pub(super) fn doubt(&self) {
        if self.authority.parse::<SocketAddr>().is_err() {
            self.known.lock().is_doubted = true;
        }
    }

    fn start_look_up(self: &Arc<Self>) -> io::Result<()> {
        self.threads.reap();
        let looking = Looking { host: Arc::clone(self), answer: None };
        // Without a thread the closure is dropped here, and with it the claim to be looking.
        self.threads.spawn("look-up", LARGE_STACK_BYTES, move || {
            let mut looking = looking;
            looking.answer = Some((looking.host.look_up)(&looking.host.authority));
        })
    }

    fn record(&self, answer: Option<io::Result<Vec<SocketAddr>>>) {
        let failure = match answer {
            Some(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Some(Ok(_)) => Err(self.explain("it has no address")),
            Some(Err(error)) => Err(self.explain(&error.to_string())),
            None => Err(self.explain("the look-up broke off")),
        };
        let mut known = self.known.lock();
        known.is_looking = false;
        known.answers += 1;
        match failure {
            Ok(addresses) => {
                known.addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
                known.is_doubted = false;
                known.failure = None;
            }
            Err(failure) => known.failure = Some(failure),
        }
        drop(known);
        self.changed.notify_all();
    }

    fn explain(&self, why: &str) -> String {
        let name = self.authority.rsplit_once(':').map_or(&*self.authority, |(name, _)| name);
        let is_local = name.trim_end_matches('.').to_ascii_lowercase().ends_with(".local");
        let hint = if is_local && cfg!(target_env = "musl") { NO_MDNS } else { "" };
        format!("its host name {name} cannot be looked up: {why}{hint}")
    }
}

/// musl knows DNS and the hosts file, and no other source of names.
const NO_MDNS: &str =
    " (names under .local need mDNS, which this static build does not know: give the engine's address)";

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.authority).finish()
    }
}

/// Records the answer of a look-up, whichever way its thread ends.
struct Looking {
    host: Arc<Host>,
    answer: Option<io::Result<Vec<SocketAddr>>>,
}

impl Drop for Looking {
    fn drop(&mut self) {
        let answer = self.answer.take();
        self.host.record(answer);
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    type Answer = io::Result<Vec<SocketAddr>>;

    /// A host whose look-ups the test answers; each is told first.
    fn asked() -> (Arc<Host>, Receiver<()>, Sender<Answer>) {
        let (tell, told) = crossbeam_channel::bounded(10);
        let (answer, answers) = crossbeam_channel::bounded::<Answer>(10);
        let look_up = move |_: &str| {
            let _told = tell.send(());
            answers.recv().map_err(io::Error::other)?
        };
        (Host::with_look_up("engine.example:6878", Box::new(look_up)), told, answer)
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6878))
    }

    fn find(host: &Arc<Host>, limit: Duration) -> Result<Arc<[SocketAddr]>, EngineError> {
        host.find(Instant::now() + limit, || true).map(|()| host.known())
    }

    #[test]
    fn an_address_is_never_looked_up() {
        for authority in ["127.0.0.1:6878", "[::1]:6878"] {
            let host = Host::with_look_up(authority, Box::new(|_| panic!("not to be asked")));
            host.doubt();
            let found = find(&host, Duration::ZERO).expect("it is known");
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [authority]);
            assert_eq!(host.threads.count(), 0);
        }
    }

    #[test]
    fn a_name_is_looked_up_once_and_again_when_its_address_does_not_work() {
        let (host, told, answer) = asked();
        answer.send(Ok(vec![address(1)])).expect("it listens");
        for _ in 0..3 {
            assert_eq!(*find(&host, SOON).expect("it is found"), [address(1)]);
        }
        assert_eq!(told.len(), 1);
        host.doubt();
        answer.send(Ok(vec![address(2), address(3)])).expect("it listens");
        assert_eq!(*find(&host, SOON).expect("it is found"), [address(2), address(3)]);
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_late_answer_is_there_for_the_next_and_no_look_ups_pile_up() {
        let (host, told, answer) = asked();
        for _ in 0..5 {
            let error = find(&host, Duration::from_millis(5)).expect_err("there is no answer");
            assert!(error.to_string().contains("not looked up in time"), "{error}");
            assert!(!error.is_refused(), "it may be there");
        }
        told.recv_timeout(SOON).expect("it is asked");
        assert!(host.threads.count() <= 1 && told.is_empty());
        answer.send(Ok(vec![address(1)])).expect("it listens");
        assert_eq!(*find(&host, SOON).expect("it is found"), [address(1)]);
        assert!(told.is_empty(), "nobody asks twice");
    }

    #[test]
    fn old_addresses_serve_on_while_nobody_knows_better() {
        let (host, _told, answer) = asked();
        answer.send(Ok(vec![address(1)])).expect("it listens");
        find(&host, SOON).expect("it is found");
        host.doubt();
        answer.send(Err(io::Error::other("try again"))).expect("it listens");
        assert_eq!(*find(&host, SOON).expect("the old one"), [address(1)]);
        assert_eq!(*find(&host, Duration::from_millis(5)).expect("the old one"), [address(1)]);
    }

    #[test]
    fn a_name_that_nobody_knows_is_nobody_there_and_heals() {
        let (host, _told, answer) = asked();
        answer.send(Err(io::Error::other("name not known"))).expect("it listens");
        let error = find(&host, SOON).expect_err("it has no address");
        assert!(error.is_refused() && error.to_string().contains("engine.example"), "{error}");
        answer.send(Ok(Vec::new())).expect("it listens");
        let error = find(&host, SOON).expect_err("it has no address");
        assert!(error.to_string().contains("has no address"), "{error}");
        answer.send(Ok(vec![address(1)])).expect("it listens");
        find(&host, SOON).expect("it is found");
    }

    #[test]
    fn all_who_need_it_wait_for_the_same_look_up_and_who_is_not_wanted_leaves() {
        let (host, told, answer) = asked();
        let threads = Threads::new();
        let (give, given) = crossbeam_channel::bounded(10);
        for _ in 0..5 {
            let (host, give) = (Arc::clone(&host), give.clone());
            let body = move || drop(give.send(find(&host, SOON)));
            threads.spawn("asker", LARGE_STACK_BYTES, body).expect("a thread");
        }
        told.recv_timeout(SOON).expect("it is asked");
        host.find(Instant::now() + SOON, || false).expect_err("it has no address yet");
        answer.send(Ok(vec![address(1)])).expect("it listens");
        for _ in 0..5 {
            given.recv_timeout(SOON).expect("it comes back").expect("it is found");
        }
        assert!(told.is_empty());
        threads.join_all(Instant::now() + SOON).expect("all end");
    }

    #[test]
    fn a_look_up_that_panics_is_one_without_an_answer() {
        let host = Host::with_look_up("engine.example:1", Box::new(|_| panic!("on purpose")));
        let error = find(&host, SOON).expect_err("it has no address");
        assert!(error.to_string().contains("broke off"), "{error}");
    }
}
