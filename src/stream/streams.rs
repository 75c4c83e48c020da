//! Who comes and goes: gives seats, starts fetchers, and keeps house.
//!
//! It must not know how a source is obtained. It holds no lock of its own; what is there stands in the `directory`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::config::{self, Live};
use crate::engine::pool::Pool;
use crate::stats::Stats;
use crate::threads::{LARGE_STACK_BYTES, Threads};
use crate::wanted::{Slug, Wanted};

use super::client::ClientRecord;
use super::directory::{Directory, Found, NoSeat};
use super::fetcher::{self, Resources};
use super::lease::Leases;
use super::memory::Memory;
use super::past::Past;
use super::state::{Event, State, Why};
use super::stream::{Seat, Stream};

/// While there is no stream, the housekeeper turns round so often: what it does then (forgetting what ended a minute ago,
/// joining threads that are over) has time, and whatever begins wakes it.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

/// While there are viewers without a connection, it turns round so often; they are given seconds.
const LEASE_INTERVAL: Duration = Duration::from_secs(1);

/// How often whoever waits is looked after: is the client still there?
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A viewer without a connection is gone after so long without a request: one that plays asks every 3 to 6 s, and one that
/// waits for a source that is being looked for comes back within this.
const LEASE_IDLE: Duration = Duration::from_secs(20);

/// Viewers without a connection at most, each a few hundred bytes and a seat. How many clients there may be is decided elsewhere;
/// this is beyond what any house has.
const MAX_LEASES: usize = 16_384;

/// All streams of the process. A stream keeps the settings that it began with.
pub struct Streams {
    settings: Arc<Live<config::Stream>>,
    stats: Arc<Stats>,
    memory: Arc<Memory>,
    leases: Leases,
    past: Arc<Past>,
    resources: Arc<Resources>,
    /// Wakes the housekeeper. It holds one piece of news, so that none is lost while the housekeeper is at work, and none
    /// piles up: whoever changes something does so first and tells of it then.
    news: (Sender<()>, Receiver<()>),
}

impl Streams {
    /// No streams yet.
    #[must_use]
    pub fn new(
        settings: Arc<Live<config::Stream>>,
        pool: Arc<Pool>,
        stats: Arc<Stats>,
        threads: Threads,
    ) -> Arc<Self> {
        let memory = Memory::new(settings.get().memory_bytes);
        let directory = Directory::default();
        Arc::new(Self {
            settings,
            stats,
            memory,
            leases: Leases::new(LEASE_IDLE, MAX_LEASES),
            past: Arc::default(),
            resources: Arc::new(Resources { directory, pool, threads }),
            news: crossbeam_channel::bounded(1),
        })
    }

    /// A seat on the stream that is wanted, which is started if it is not there: one start, however many ask at once.
    /// Waits while a previous engine session of the stream is being stopped, as long as `is_there` says that who asks
    /// still does.
    ///
    /// # Errors
    ///
    /// When there is no room for a stream, the proxy shuts down, or nobody is there any more.
    pub fn seat(
        &self,
        wanted: &Wanted,
        client: &Arc<ClientRecord>,
        is_there: impl Fn() -> bool,
    ) -> Result<Seat, NoSeat> {
        let settings = self.settings.get();
        let deadline = Instant::now() + settings.connect_timeout;
        let directory = &self.resources.directory;
        loop {
            let begin = || {
                let (stats, client) = (Arc::clone(&self.stats), Arc::clone(client));
                let pool = Arc::clone(&self.resources.pool);
                let past = Arc::clone(&self.past);
                Stream::begin(wanted.clone(), &settings, stats, client, &self.memory, pool, past)
            };
            let at_hand = self.resources.pool.at_hand();
            let closing = match directory.seat(wanted, client, &at_hand, settings.max_streams, begin)? {
                Found::Seat(seat) => return Ok(seat),
                Found::New(seat) => {
                    self.start(seat.stream());
                    return Ok(seat);
                }
                Found::Full(unwatched) => {
                    // If somebody has just come to watch it, it stays, and the next look finds another one or no room.
                    unwatched.apply(&Event::GiveWay);
                    continue;
                }
                Found::Closing(closing) => closing,
            };
            let now = Instant::now();
            if !closing.wait_stopped(deadline.min(now + LOOK_INTERVAL)) {
                if !is_there() {
                    return Err(NoSeat::Gone);
                }
                if now >= deadline {
                    return Err(NoSeat::StillStopping);
                }
                continue;
            }
            // The fetcher's thread retires it a moment after it stopped. Done here too, so that the next look does not
            // find the stopped stream again.
            directory.retire(&closing);
        }
    }

    fn start(&self, stream: &Arc<Stream>) {
        self.stats.add_stream();
        stream.tell_changes(self.news.0.clone());
        let name = format!("fetch-{:.8}", stream.stream_id());
        let (resources, fetched) = (Arc::clone(&self.resources), Arc::clone(stream));
        let body = move || {
            let _retire = Retire { directory: &resources.directory, stream: &fetched };
            fetcher::run(&fetched, &resources);
        };
        if let Err(error) = self.resources.threads.spawn(&name, LARGE_STACK_BYTES, body) {
            log::error!("No thread for stream {}: {error}", stream.stream_id());
            stream.apply(&Event::Stop(Why::NoThread));
            stream.apply(&Event::FetcherGone);
            self.resources.directory.retire(stream);
        }
    }

    /// The seats of viewers without a connection.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// What is remembered of contents that were played.
    #[must_use]
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// The channels that play now, with the names in paths of the streams that do.
    #[must_use]
    pub fn by_channel(&self) -> HashMap<Slug, String> {
        let live = self.resources.directory.live();
        live.iter().filter_map(|stream| Some((stream.channel()?, stream.stream_id().to_owned()))).collect()
    }

    /// What all backlogs hold.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        self.memory.budget().kept_bytes()
    }

    /// The streams there are, live ones first, newest first, then those that ended lately.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Stream>> {
        self.resources.directory.list()
    }

    /// Takes no new streams any more and stops all there are. Their threads end by themselves.
    pub fn close(&self) {
        for stream in self.resources.directory.close() {
            stream.apply(&Event::Stop(Why::Shutdown));
        }
        self.leases.clear();
    }

    /// Whether [`Streams::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.resources.directory.is_closed()
    }

    /// Lets time pass for everything there is; tells when that has to be done again, if nothing changes before.
    fn tick(&self) -> Instant {
        let now = Instant::now();
        self.memory.set_limit(self.settings.get().memory_bytes);
        self.leases.expire(now);
        self.resources.directory.forget_old(now);
        let mut next = now + if self.leases.count() > 0 { LEASE_INTERVAL } else { IDLE_INTERVAL };
        for stream in self.resources.directory.live() {
            next = next.min(stream.tick());
        }
        self.resources.threads.reap();
        next
    }
}

/// Drives every deadline of every stream, until `stop` is closed; `give_back` is called when much memory has become free.
///
/// It sleeps until the next deadline, or until a stream begins or changes its state.
pub fn keep_house(streams: &Streams, stop: &Receiver<()>, beat: impl Fn(), give_back: impl Fn()) {
    loop {
        beat();
        let next = streams.tick();
        if streams.memory.budget().has_shrunk() {
            give_back();
        }
        crossbeam_channel::select! {
            recv(stop) -> _ => return,
            recv(streams.news.1) -> _ => {}
            default(next.saturating_duration_since(Instant::now())) => {}
        }
    }
}

/// Takes the stream off the table when its thread ends, whichever way.
struct Retire<'a> {
    directory: &'a Directory,
    stream: &'a Arc<Stream>,
}

impl Drop for Retire<'_> {
    fn drop(&mut self) {
        debug_assert!(matches!(self.stream.state(), State::Stopped(_)), "a fetcher ended without saying so");
        self.directory.retire(self.stream);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::client::Protocol;
    use super::super::lease::Token;
    use super::*;
    use crate::id::ContentKey;

    #[test]
    fn the_housekeeper_ends_the_leases_that_nobody_renews() {
        const LONG: Duration = Duration::from_secs(30);
        let settings = config::Stream { abandon: LONG, ..config::Stream::default() };
        let threads = Threads::new();
        let pool = Arc::new(Pool::new(Vec::new()));
        let mut streams =
            Streams::new(Live::new(settings), Arc::clone(&pool), Arc::default(), threads.clone());
        let inner = Arc::get_mut(&mut streams).expect("nobody else has it yet");
        inner.leases = Leases::new(Duration::from_millis(250), 1);
        let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
        let client =
            Arc::new(ClientRecord::new(1, Protocol::Ts, SocketAddr::from(([127, 0, 0, 1], 1)), None));
        // Without an engine, and without a fetcher: only who watches it is looked at.
        let wanted = key.expect("a good key").into();
        let seat = Stream::begin(
            wanted,
            &streams.settings.get(),
            Arc::default(),
            client,
            &streams.memory,
            pool,
            Arc::default(),
        );
        let stream = Arc::clone(seat.stream());
        drop(streams.leases().grant(Token::random(), seat, Instant::now()));
        let is_empty = || {
            let view = stream.view();
            view.waiting + view.clients.len() == 0
        };
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let house = Arc::clone(&streams);
        let body = move || keep_house(&house, &stopped, || {}, || {});
        threads.spawn("house", LARGE_STACK_BYTES, body).expect("a thread");
        let deadline = Instant::now() + LONG;
        while !is_empty() && Instant::now() < deadline {
            let _paused = crossbeam_channel::never::<()>().recv_timeout(Duration::from_millis(25));
        }
        assert!(is_empty() && streams.leases().count() == 0);
        let seat = stream.take_seat(Arc::new(ClientRecord::new(
            2,
            Protocol::Ts,
            SocketAddr::from(([127, 0, 0, 1], 1)),
            None,
        )));
        drop(stop);
        threads.join_all(deadline).expect("the housekeeper ends");
        drop(streams.leases().grant(Token::random(), seat.expect("it is still starting"), Instant::now()));
        streams.close();
        assert_eq!((streams.leases().count(), is_empty()), (0, true), "nobody watches at the end");
    }
}
