//! The thread that looks after the lists: fetches each in its own rhythm, and makes the channels anew when one has changed.
//!
//! A list that cannot be fetched, is empty or is none stays what it was, also over a restart: its last good copy is kept on
//! disk. Whoever plays notices nothing of any of this. It must not know how channels are played or served.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, select};

use crate::allocator;
use crate::config::{self, Live, Place};
use crate::escape::Escaped;
use crate::fnv::fnv64;

use super::list::{Channel, List, Report};
use super::m3u::{self, M3u};
use super::merge::{Count, Input, merge};
use super::register::Register;
use super::sources::{self, FetchError, Fetched, Fetcher, Limits, Validators};
use super::state::StateDir;

/// A list of fifty thousand entries has half of this; what is larger is no list.
const MAX_LIST_BYTES: u64 = 32 * 1024 * 1024;

/// What one fetch may cost: the largest list over a slow line.
const LIMITS: Limits =
    Limits { time: Duration::from_secs(60), packed_bytes: MAX_LIST_BYTES, bytes: MAX_LIST_BYTES };

/// How often it is looked whether a file has changed: a question to the file system that costs nothing.
const FILE_INTERVAL: Duration = Duration::from_secs(10);

/// After a failed fetch, doubled each time up to the list's own interval.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Between two beats lie at most one fetch, the reading of all lists, and the writing of one.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(240);

/// Where numbers and paths are kept.
const REGISTER: &str = "channels.json";

/// A hundred thousand records of names.
const MAX_REGISTER_BYTES: u64 = 64 * 1024 * 1024;

/// What the configuration says of the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `[[channels]]`
    pub channels: Vec<config::Channel>,
    /// `[[playlists]]`
    pub playlists: Vec<config::Playlist>,
}

/// Tells the keeper of other settings.
pub struct Reload {
    settings: Arc<Live<Settings>>,
    wake: Sender<()>,
}

impl Reload {
    /// Goes by these from now on, and fetches all lists anew.
    pub fn reload(&self, settings: Settings) {
        self.settings.replace(settings);
        // Full means that it is about to look.
        let _told = self.wake.try_send(());
    }
}

/// Looks after the lists.
pub struct Keeper {
    settings: Arc<Live<Settings>>,
    woken: Receiver<()>,
    state: StateDir,
    live: Arc<Live<List>>,
    register: Register,
    shelves: Vec<Shelf>,
    /// What came of each list when the channels were last made.
    counts: Vec<Count>,
    version: u64,
}

/// One list.
struct Shelf {
    settings: config::Playlist,
    place: Place,
    /// The last good copy, as it came: what is read out of it is larger, and seldom needed.
    body: Option<Vec<u8>>,
    fetched_at: Option<SystemTime>,
    error: Option<String>,
    validators: Validators,
    /// What a file looked like when it was read.
    stamp: Option<Stamp>,
    failures: u32,
    next: Instant,
}

/// By what it is seen that a file has changed: also one that was renamed to its place.
type Stamp = (u64, i64, i64, u64);

impl Keeper {
    /// One that begins with what it kept, before anything is fetched.
    #[must_use]
    pub fn new(settings: Settings, state: StateDir, live: Arc<Live<List>>) -> (Self, Reload) {
        let settings = Live::new(settings);
        let (wake, woken) = crossbeam_channel::bounded(1);
        let reload = Reload { settings: Arc::clone(&settings), wake };
        // An ETag is made of it, so it must not begin anew with the process.
        let version = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
        let register = read_register(&state);
        let is_empty = settings.get().channels.is_empty() && settings.get().playlists.is_empty();
        if !is_empty && !state.is_lasting() {
            log::info!("Without --state-dir the numbers and lists of channels last as long as this process");
        }
        let mut keeper =
            Self { settings, woken, state, live, register, shelves: Vec::new(), counts: Vec::new(), version };
        keeper.take_settings();
        (keeper, reload)
    }

    /// Looks after the lists until `stop` is closed; says so by `beat`.
    pub fn run(mut self, stop: &Receiver<()>, beat: impl Fn()) {
        let fetcher = Fetcher::new(stop.clone());
        loop {
            for at in 0..self.shelves.len() {
                beat();
                if self.shelves[at].is_due(Instant::now()) && self.refresh(at, &fetcher).is_err() {
                    return;
                }
            }
            beat();
            let now = Instant::now();
            let next = self.shelves.iter().map(|shelf| shelf.next).min();
            let pause =
                next.map_or(FILE_INTERVAL, |next| next.saturating_duration_since(now)).min(FILE_INTERVAL);
            select! {
                recv(stop) -> _ => return,
                recv(self.woken) -> _ => self.take_settings(),
                default(pause) => {}
            }
        }
    }

    /// Goes by the settings as they are now. Lists that were there before keep what they have.
    fn take_settings(&mut self) {
        let settings = self.settings.get();
        let mut before = std::mem::take(&mut self.shelves);
        for playlist in &settings.playlists {
            let Some(place) = playlist.place() else { continue };
            let shelf = match before.iter().position(|shelf| shelf.place == place) {
                Some(at) => {
                    let shelf = before.swap_remove(at);
                    Shelf { settings: playlist.clone(), stamp: None, next: Instant::now(), ..shelf }
                }
                None => Shelf::new(playlist.clone(), place, &self.state),
            };
            self.shelves.push(shelf);
        }
        // Copies of lists that are not wanted any more.
        let known: Vec<_> = self.shelves.iter().map(|shelf| file_of(&shelf.place)).collect();
        self.state.remove_where(|name| name.starts_with("list-") && !known.iter().any(|known| known == name));
        self.rebuild();
    }

    /// Asks for one list. An error only when the program ends.
    fn refresh(&mut self, at: usize, fetcher: &Fetcher) -> Result<(), FetchError> {
        let shelf = &mut self.shelves[at];
        let outcome = match shelf.fetch(fetcher) {
            Err(FetchError::Stopped) => return Err(FetchError::Stopped),
            Err(error) => Err(error.to_string()),
            Ok(None) => Ok(None),
            Ok(Some(body)) => match m3u::parse(&body) {
                Ok(_) => Ok(Some(body)),
                Err(why) => Err(why.to_string()),
            },
        };
        let name = Escaped(&shelf.settings.name).to_string();
        let is_new = match outcome {
            Ok(body) => {
                let is_new = body.is_some() && body != shelf.body;
                if let Some(body) = body.filter(|_| is_new) {
                    if let Err(error) = self.state.write(&file_of(&shelf.place), &body) {
                        log::warn!("List {name} cannot be kept on disk: {error}");
                    }
                    shelf.body = Some(body);
                }
                shelf.succeed();
                is_new
            }
            Err(why) => {
                if shelf.error.as_ref() != Some(&why) {
                    let kept =
                        if shelf.body.is_some() { "the last good one is kept" } else { "there is none" };
                    log::warn!("List {name} ({}): {why}; {kept}", shelf.place);
                }
                shelf.fail(why);
                false
            }
        };
        if is_new {
            self.rebuild();
            self.tell(at);
        } else {
            self.publish(None);
        }
        Ok(())
    }

    /// Makes the channels anew of all that there is.
    fn rebuild(&mut self) {
        let settings = self.settings.get();
        let read: Vec<M3u> = self
            .shelves
            .iter()
            .map(|shelf| shelf.body.as_deref().and_then(|body| m3u::parse(body).ok()).unwrap_or_default())
            .collect();
        let inputs: Vec<_> = self
            .shelves
            .iter()
            .zip(&read)
            .map(|(shelf, m3u)| Input {
                name: shelf.settings.name.as_str().into(),
                settings: &shelf.settings,
                m3u,
            })
            .collect();
        let (drafts, counts) = merge(&settings.channels, &inputs);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let channels = self.register.assign(drafts, now);
        self.counts = counts;
        if let Err(error) = self.state.write(REGISTER, &self.register.to_json()) {
            log::warn!("The numbers of channels cannot be kept on disk: {error}");
        }
        let mut guides: Vec<Box<str>> = Vec::new();
        for guide in read.iter().flat_map(|m3u| &m3u.guides) {
            let is_web = guide.parse::<config::SourceUrl>().is_ok();
            if is_web && !guides.iter().any(|known| **known == **guide) {
                guides.push(guide.as_str().into());
            }
        }
        self.publish(Some((channels, guides)));
        // All lists were in memory as they were read, which is several times what is kept of them.
        drop(read);
        allocator::give_memory_back();
    }

    /// Lets everybody see what there is now: other channels, or the same with another report.
    fn publish(&mut self, channels: Option<(Vec<Channel>, Vec<Box<str>>)>) {
        let reports =
            self.shelves.iter().zip(&self.counts).map(|(shelf, count)| shelf.report(*count)).collect();
        let list = match channels {
            Some((channels, guides)) => {
                self.version += 1;
                List::new(channels, guides, reports, self.version)
            }
            None => self.live.get().with_reports(reports),
        };
        self.live.replace(list);
    }

    /// One line about a list that was read.
    fn tell(&self, at: usize) {
        let (shelf, count) = (&self.shelves[at], self.counts[at]);
        let skipped = count.skipped;
        let reasons = [
            (skipped.other, "not AceStream"),
            (skipped.bad_ids, "bad ids"),
            (skipped.without_url, "without an address"),
            (skipped.excluded, "excluded"),
            (skipped.over_bounds, "too long or too many"),
        ];
        let reasons: Vec<_> = reasons
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, reason)| match (*reason, count.first_bad_line) {
                ("bad ids", Some(line)) => format!("{number} bad ids, the first in line {line}"),
                _ => format!("{number} {reason}"),
            })
            .collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        log::info!(
            "List {}: {} entries, {} channels, {} skipped{reasons}",
            Escaped(&shelf.settings.name),
            count.entries,
            count.channels,
            skipped.count()
        );
    }
}

impl Shelf {
    /// A list with the copy that was kept of it, if there is one.
    fn new(settings: config::Playlist, place: Place, state: &StateDir) -> Self {
        let file = file_of(&place);
        let body = state.read(&file, MAX_LIST_BYTES).unwrap_or_else(|error| {
            log::warn!("The kept copy of list {} cannot be read: {error}", Escaped(&settings.name));
            None
        });
        let body = body.filter(|body| m3u::parse(body).is_ok());
        let kept = || state.open_file(&file).ok()??.metadata().ok()?.modified().ok();
        let fetched_at = body.is_some().then(kept).flatten();
        Self {
            settings,
            place,
            body,
            fetched_at,
            error: None,
            validators: Validators::default(),
            stamp: None,
            failures: 0,
            next: Instant::now(),
        }
    }

    /// Whether it is to be asked for: when its time has come, and when it is a file that looks otherwise than before.
    fn is_due(&self, now: Instant) -> bool {
        match &self.place {
            Place::Web(_) => now >= self.next,
            Place::File(path) => self.stamp.is_none() && now >= self.next || stamp_of(path) != self.stamp,
        }
    }

    /// The list as it is now; `None` for what is there already.
    fn fetch(&mut self, fetcher: &Fetcher) -> Result<Option<Vec<u8>>, FetchError> {
        let (reader, validators) = match &self.place {
            Place::File(path) => {
                self.stamp = stamp_of(path);
                (sources::open(path, LIMITS)?, Validators::default())
            }
            Place::Web(url) => match fetcher.fetch(url, &self.validators, LIMITS)? {
                Fetched::Unchanged => return Ok(None),
                Fetched::Body(reader, validators) => (reader, validators),
            },
        };
        let mut body = Vec::new();
        reader.take(MAX_LIST_BYTES).read_to_end(&mut body)?;
        self.validators = validators;
        Ok(Some(body))
    }

    fn succeed(&mut self) {
        self.fetched_at = Some(SystemTime::now());
        self.error = None;
        self.failures = 0;
        self.next = Instant::now() + jittered(self.settings.refresh);
    }

    fn fail(&mut self, why: String) {
        // It may be another one the next time, whatever the server called it.
        self.validators = Validators::default();
        self.error = Some(why);
        let pause = RETRY_AFTER.saturating_mul(1 << self.failures.min(12)).min(self.settings.refresh);
        self.failures = self.failures.saturating_add(1);
        self.next = Instant::now() + jittered(pause);
    }

    fn report(&self, count: Count) -> Report {
        Report {
            name: self.settings.name.as_str().into(),
            place: self.place.to_string().into(),
            is_file: matches!(self.place, Place::File(_)),
            entries: count.entries,
            channels: count.channels,
            skipped: count.skipped,
            fetched_at: self.fetched_at,
            error: self.error.as_deref().map(Into::into),
        }
    }
}

/// A tenth more or less, so that all the boxes of the world do not ask at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()))
}

/// Where the copy of a list is kept: a name that shows no password.
fn file_of(place: &Place) -> String {
    let text = match place {
        Place::Web(url) => url.as_str().to_owned(),
        Place::File(path) => path.display().to_string(),
    };
    format!("list-{:016x}.m3u", fnv64(text.bytes()))
}

fn read_register(state: &StateDir) -> Register {
    let read = state.read(REGISTER, MAX_REGISTER_BYTES).map_err(|error| error.to_string());
    let register = read.and_then(|bytes| {
        bytes.map(|bytes| Register::from_json(&bytes).map_err(|error| error.to_string())).transpose()
    });
    register
        .unwrap_or_else(|why| {
            log::error!(
                "The kept numbers of channels ({REGISTER}) cannot be read: {why}; they are given anew"
            );
            None
        })
        .unwrap_or_default()
}
