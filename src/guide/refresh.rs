//! The thread that keeps the guide: fetches each source in its turn, keeps what is wanted of it, and makes one guide of all.
//!
//! One guide is fetched at a time, and nobody waits for it. A source that fails keeps what it had; it is asked again soon,
//! then less and less often. All that is kept lies on disk: where there is no state directory, in a directory of its own for
//! temporary files, which is gone when the proxy ends.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::channels::list::List;
use crate::channels::sources::{FetchError, Fetched, Fetcher, Limits, Validators};
use crate::channels::state::StateDir;
use crate::config::{self, Live, SourceUrl};
use crate::fnv::{Fnv64, fnv64};

use super::current::{Copy, Current, Edition};
use super::filter::{Window, filter};
use super::merge::merge;
use super::part::{Elements, Header, Writer};
use super::time::DAY;
use super::wanted::Wanted;

/// Of a guide, as it comes and unpacked alike: many are not packed at all.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The largest guides that people have are 120 MB packed and a gigabyte unpacked (playlist-facts.md section 4).
const LIMITS: Limits = Limits { time: Duration::from_secs(600), packed_bytes: MAX_BYTES, bytes: MAX_BYTES };

/// The longest that the thread is silent: a server that answers nothing until the time of a fetch is over.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(660);

/// How often the thread looks whether something is to be done: seldom, since each look wakes a small box, and nobody waits for
/// a guide.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Guides are made once or twice a day.
const REFRESH_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// After the first failure; then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// Lists come one after the other, and a guide is large: it is not fetched anew for each of them.
const LIST_PAUSE: Duration = Duration::from_secs(600);

/// What has ended so long ago is not in the guide: players show what was on a little earlier.
const PAST: i64 = 6 * 3600;

/// What was filtered so long ago lacks the end of the days ahead, whatever its server says of a change.
const MAX_UNCHANGED: i64 = DAY;

/// The guide is made anew so often even if nothing has come, to let go of what is over.
const MERGE_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// More guides than this are a slip, and each is fetched twice a day.
const MAX_GUIDES: usize = 64;

/// What it works with.
pub struct GuideKeeper {
    /// The channels, as they are now.
    pub channels: Arc<Live<List>>,
    /// `[epg]`, as it is now.
    pub epg: Arc<Live<config::Epg>>,
    /// Where the guide is put for whoever asks for it.
    pub current: Arc<Live<Current>>,
    /// Fetches.
    pub fetcher: Fetcher,
    /// Where files are kept that last.
    pub state: StateDir,
}

/// One guide.
struct Source {
    url: SourceUrl,
    /// The name of its file.
    name: String,
    header: Option<Header>,
    due: Instant,
    asked: Option<Instant>,
    failures: u32,
    told: String,
}

/// A directory for temporary files, as long as it lives.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

impl GuideKeeper {
    /// Keeps the guide until `stop` is closed, and calls `beat` all the while.
    pub fn run(mut self, stop: &Receiver<()>, beat: &dyn Fn()) {
        let mut scratch = None;
        let mut sources: Vec<Source> = Vec::new();
        let (mut list, mut epg) = (Arc::new(List::default()), None);
        let mut wanted = Wanted::default();
        let mut merged_at: Option<Instant> = None;
        let mut is_stale = false;
        loop {
            beat();
            let (list_now, epg_now) = (self.channels.get(), self.epg.get());
            let is_new_epg = epg.as_ref().is_none_or(|epg| !Arc::ptr_eq(epg, &epg_now));
            if is_new_epg || !Arc::ptr_eq(&list, &list_now) {
                wanted = wanted_of(&list_now);
                let urls = urls(&list_now, &epg_now);
                if !urls.is_empty() && !self.state.is_lasting() && scratch.is_none() {
                    scratch = self.make_scratch();
                    if scratch.is_none() {
                        self.wait_for_end(stop, beat);
                        return;
                    }
                }
                sources = self.sources(urls, sources, &wanted, is_new_epg);
                (list, epg, is_stale) = (list_now, Some(Arc::clone(&epg_now)), true);
            }
            for source in &mut sources {
                if source.due <= Instant::now() {
                    is_stale |= self.refresh(source, &wanted, epg_now.days, beat);
                    beat();
                }
                if !matches!(stop.try_recv(), Err(crossbeam_channel::TryRecvError::Empty)) {
                    return;
                }
            }
            if is_stale || merged_at.is_some_and(|at| at.elapsed() >= MERGE_PAUSE) {
                if let Err(error) = self.make(&sources, &wanted) {
                    log::error!("The guide cannot be written: {error}");
                }
                (merged_at, is_stale) = (Some(Instant::now()), false);
            }
            if !matches!(stop.recv_timeout(LOOK_INTERVAL), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    /// Beats until the proxy ends.
    fn wait_for_end(&self, stop: &Receiver<()>, beat: &dyn Fn()) {
        while matches!(stop.recv_timeout(LOOK_INTERVAL), Err(RecvTimeoutError::Timeout)) {
            beat();
        }
    }

    /// Takes a directory for temporary files in place of the state directory.
    fn make_scratch(&mut self) -> Option<Scratch> {
        let path = std::env::temp_dir().join(format!("acerelay-guide-{:016x}", fastrand::u64(..)));
        // Ours alone, and new: nobody else has put anything there.
        let made = DirBuilder::new().mode(0o700).create(&path).and_then(|()| StateDir::open(&path));
        match made {
            Ok(state) => {
                log::info!(
                    "Without a state directory the guide is kept in {} until the proxy ends",
                    path.display()
                );
                self.state = state;
                Some(Scratch(path))
            }
            Err(error) => {
                log::error!("There is no guide: no state directory, and {}: {error}", path.display());
                None
            }
        }
    }

    /// The sources of these URLs; those that there were go on as they are, unless all are to be asked anew.
    fn sources(
        &self,
        urls: Vec<SourceUrl>,
        before: Vec<Source>,
        wanted: &Wanted,
        is_anew: bool,
    ) -> Vec<Source> {
        let now = Instant::now();
        let mut before = before;
        let sources: Vec<_> = urls
            .into_iter()
            .map(|url| match before.iter().position(|source| source.url == url) {
                Some(at) => {
                    let mut source = before.swap_remove(at);
                    let is_other =
                        source.header.as_ref().is_some_and(|header| header.wanted != wanted.digest());
                    if is_anew {
                        source.due = now;
                    } else if is_other {
                        let free = source.asked.map_or(now, |asked| asked + LIST_PAUSE);
                        source.due = source.due.min(free.max(now));
                    }
                    source
                }
                None => {
                    let name = format!("guide-{:016x}.part", fnv64(url.as_str().bytes()));
                    let part = self.state.open_file(&name).ok().flatten();
                    let header = part.and_then(|file| Elements::open(file).ok()).map(|(header, _)| header);
                    let age = header.as_ref().map(|header| unix_now().saturating_sub(header.fetched_at));
                    let is_good = header
                        .as_ref()
                        .is_some_and(|header| header.is_whole && header.wanted == wanted.digest());
                    let left = age.and_then(|age| {
                        REFRESH_PAUSE.checked_sub(Duration::from_secs(u64::try_from(age).ok()?))
                    });
                    let due = now + left.filter(|_| is_good).unwrap_or_default();
                    Source { url, name, header, due, asked: None, failures: 0, told: String::new() }
                }
            })
            .collect();
        // What no list and no configuration names any more.
        self.state.remove_where(|name| {
            name.starts_with("guide-")
                && name.ends_with(".part")
                && sources.iter().all(|source| source.name != name)
        });
        sources
    }

    /// Fetches a guide and keeps what is wanted of it. True if there is something else than before.
    fn refresh(&self, source: &mut Source, wanted: &Wanted, days: u32, beat: &dyn Fn()) -> bool {
        source.asked = Some(Instant::now());
        let outcome = self.fetch(source, wanted, days, beat);
        let now = Instant::now();
        match outcome {
            Ok((is_other, said)) => {
                source.failures = 0;
                source.due = now + REFRESH_PAUSE;
                source.told.clear();
                log::info!("Guide {}: {said}", source.url);
                is_other
            }
            Err(Failure { is_other, why }) => {
                let pause = FIRST_RETRY.saturating_mul(1 << source.failures.min(16)).min(MAX_RETRY);
                source.failures += 1;
                source.due = now + pause;
                let kept = match (is_other, &source.header) {
                    (true, _) => "what came before that is taken",
                    (false, Some(_)) => "the last good one is kept",
                    (false, None) => "nothing of it is there",
                };
                if source.told == why {
                    log::debug!("Guide {}: {why}; {kept}", source.url);
                } else {
                    log::warn!("Guide {}: {why}; {kept}", source.url);
                    source.told = why;
                }
                is_other
            }
        }
    }

    fn fetch(
        &self,
        source: &mut Source,
        wanted: &Wanted,
        days: u32,
        beat: &dyn Fn(),
    ) -> Result<(bool, String), Failure> {
        let now = unix_now();
        let is_whole = source.header.as_ref().is_some_and(|header| header.is_whole);
        let known = source.header.as_ref().filter(|header| {
            let is_same = header.wanted == wanted.digest() && header.days == days;
            header.is_whole && is_same && now.saturating_sub(header.fetched_at) < MAX_UNCHANGED
        });
        let known = known.map(|header| header.validators.clone()).unwrap_or_default();
        let (body, validators) = match self.fetcher.fetch(&source.url, &known, LIMITS)? {
            Fetched::Unchanged => return Ok((false, "unchanged".to_owned())),
            Fetched::Body(body, validators) => (body, validators),
        };
        let window = Window { from: now - PAST, to: now + i64::from(days) * DAY };
        let mut told = None;
        let mut header = None;
        let written = self.state.replace(&source.name, |file| {
            let mut writer = Writer::new(file)?;
            let (found, fault) = filter(body, wanted, window, &mut |kept| writer.add(&kept), beat);
            let is_useless = found.channels + found.programmes == 0;
            let is_worse = fault.is_some() && (is_whole || is_useless);
            let is_good = fault.is_none();
            told = Some((found, fault));
            if is_worse {
                return Err(io::Error::other("what was had is better"));
            }
            let validators = if is_good { validators } else { Validators::default() };
            let made =
                Header { wanted: wanted.digest(), days, fetched_at: now, is_whole: is_good, validators };
            writer.finish(&made)?;
            header = Some(made);
            Ok(())
        });
        let is_other = written.is_ok() && header.is_some();
        if is_other {
            source.header = header;
        }
        match (told, written) {
            (Some((_, Some(fault))), _) => Err(Failure { is_other, why: fault.to_string() }),
            (Some((found, None)), Ok(())) => Ok((
                true,
                format!(
                    "{} channels and {} programmes of {} elements, {} broken ones left out",
                    found.channels, found.programmes, found.elements, found.broken
                ),
            )),
            (_, Err(error)) => Err(Failure { is_other, why: format!("it cannot be kept: {error}") }),
            (None, Ok(())) => Err(Failure { is_other, why: "there is nowhere to keep it".to_owned() }),
        }
    }

    /// Makes one guide of all parts, and puts it where it is served, if it differs from what is there.
    fn make(&self, sources: &[Source], wanted: &Wanted) -> io::Result<()> {
        if sources.iter().all(|source| source.header.is_none()) {
            self.current.replace(if sources.is_empty() { Current::None } else { Current::Awaited });
            return Ok(());
        }
        let from = unix_now() - PAST;
        let open = |part: usize| match self.state.open_file(&sources[part].name)? {
            Some(file) => Ok(Elements::open(file).ok().map(|(_, elements)| elements)),
            None => Ok(None),
        };
        let write = |out: &mut dyn Write| merge(sources.len(), &open, wanted, from, out);
        let mut digest = Fnv64::default();
        write(&mut digest)?;
        if matches!(&*self.current.get(), Current::Here(edition) if edition.digest == digest.hash()) {
            return Ok(());
        }
        self.state.replace(PLAIN, |file| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        })?;
        self.state.replace(PACKED, |file| {
            let mut out = GzEncoder::new(BufWriter::new(file), Compression::default());
            write(&mut out)?;
            out.finish()?.flush()
        })?;
        let edition = Edition { digest: digest.hash(), plain: self.open(PLAIN)?, packed: self.open(PACKED)? };
        self.current.replace(Current::Here(edition));
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Copy> {
        let file: File = self.state.open_file(name)?.ok_or(io::ErrorKind::NotFound)?;
        let length = file.metadata()?.len();
        Ok(Copy { file: Arc::new(file), length })
    }
}

/// The names of the guide's files.
const PLAIN: &str = "epg.xml";
const PACKED: &str = "epg.xml.gz";

/// Why a guide was not taken as it is.
struct Failure {
    /// There is something else than before all the same.
    is_other: bool,
    why: String,
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self { is_other: false, why: error.to_string() }
    }
}

/// What is wanted for these channels.
fn wanted_of(list: &List) -> Wanted {
    let channels = list.channels().iter().map(|channel| {
        let named = channel.attributes.iter().filter(|(name, _)| name.eq_ignore_ascii_case("tvg-name"));
        let names = named.map(|(_, value)| &**value).chain([&*channel.name]).collect();
        (channel.guide_id(), channel.tvg_id.as_deref(), names)
    });
    Wanted::new(channels)
}

/// Where guides are: first those that the configuration names, then those of the lists.
fn urls(list: &List, epg: &config::Epg) -> Vec<SourceUrl> {
    let of_lists = list.guides().iter().filter_map(|text| text.parse().ok());
    let mut urls: Vec<SourceUrl> = Vec::new();
    for url in epg.urls.iter().cloned().chain(of_lists) {
        if !urls.contains(&url) && urls.len() < MAX_GUIDES {
            urls.push(url);
        }
    }
    urls
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
