//! Makes channels of the entries of all lists, by rules that surprise nobody.
//!
//! The channels of the configuration come first and claim what is theirs. Two entries are one channel when their names say so
//! and their guide ids do not contradict; everything that was merged can be looked up in the result. Pure: which numbers and
//! paths channels get is not known here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{self, Merge, Other};
use crate::id::{ContentKey, Digest};

use super::address::Address;
use super::list::{Channel, Elsewhere, Skipped, Source};
use super::m3u::{Entry, M3u, MAX_ENTRIES, MAX_NAME_BYTES};
use super::names::{self, Key};
use super::text::{Glob, clean};

/// More sources than this are never tried in a lifetime of one start.
const MAX_SOURCES: usize = 64;

/// A list that was read.
pub(super) struct Input<'a> {
    /// What it is called.
    pub(super) name: Arc<str>,
    /// How it is to be taken.
    pub(super) settings: &'a config::Playlist,
    /// What it says.
    pub(super) m3u: &'a M3u,
}

/// A channel that has no number and no path yet.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// What it is known again by, after names of the same channel have changed in their details.
    pub(super) key: String,
    /// The path that the configuration wants for it.
    pub(super) slug: Option<crate::wanted::Slug>,
    /// The number that the configuration wants for it.
    pub(super) number: Option<u32>,
    /// The number that a list would like for it.
    pub(super) wish: Option<u32>,
    pub(super) name: String,
    pub(super) group: Option<Arc<str>>,
    pub(super) logo: Option<Box<str>>,
    pub(super) tvg_id: Option<Box<str>>,
    pub(super) attributes: Vec<(Box<str>, Box<str>)>,
    pub(super) sources: Vec<Source>,
    pub(super) elsewhere: Option<Box<Elsewhere>>,
    is_radio: bool,
    /// By the words that the configuration prefers: the smaller the better.
    ranks: Vec<usize>,
}

/// What came of one list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) entries: usize,
    pub(super) channels: usize,
    pub(super) skipped: Skipped,
    /// Where the first address stands that was to be AceStream, and is none.
    pub(super) first_bad_line: Option<u32>,
}

/// The channels of the configuration and of these lists, with what came of each list.
pub(super) fn merge(channels: &[config::Channel], lists: &[Input<'_>]) -> (Vec<Draft>, Vec<Count>) {
    let mut merging = Merging::new(channels);
    let mut left = MAX_ENTRIES;
    let mut counts: Vec<_> = lists
        .iter()
        .map(|list| {
            let mut count = Count { entries: list.m3u.entries.len(), ..Count::default() };
            count.skipped.without_url = list.m3u.without_url;
            count.skipped.over_bounds = list.m3u.over_bounds;
            let filter = Filter::new(list.settings);
            for entry in &list.m3u.entries {
                if left == 0 {
                    count.skipped.over_bounds += 1;
                    continue;
                }
                let bad_ids = count.skipped.bad_ids;
                left -= usize::from(merging.take(list, &filter, entry, &mut count.skipped));
                if count.skipped.bad_ids > bad_ids {
                    count.first_bad_line.get_or_insert(entry.line);
                }
            }
            count
        })
        .collect();
    let mut drafts = merging.drafts;
    drafts.retain(|draft| !draft.sources.is_empty() || draft.elsewhere.is_some());
    for draft in &mut drafts {
        sort_sources(draft);
        let mut seen: Vec<&str> = draft.sources.iter().filter_map(|source| source.list.as_deref()).collect();
        seen.extend(draft.elsewhere.as_ref().map(|elsewhere| &*elsewhere.list));
        seen.sort_unstable();
        seen.dedup();
        for (list, count) in lists.iter().zip(&mut counts) {
            count.channels += usize::from(seen.contains(&&*list.name));
        }
    }
    (drafts, counts)
}

/// Puts what is preferred first; what is preferred alike stays in the order in which it appeared.
fn sort_sources(draft: &mut Draft) {
    let mut order: Vec<_> = draft.ranks.drain(..).zip(draft.sources.drain(..)).collect();
    order.sort_by_key(|(rank, _)| *rank);
    draft.sources = order.into_iter().map(|(_, source)| source).collect();
}

/// What a list's settings let through.
struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    prefer: Vec<String>,
}

enum Pattern {
    Name(Glob),
    Group(Glob),
}

impl Filter {
    fn new(settings: &config::Playlist) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        Self {
            include: patterns(&settings.include),
            exclude: patterns(&settings.exclude),
            prefer: settings.prefer.iter().map(|word| word.to_lowercase()).collect(),
        }
    }

    fn lets_through(&self, name: &str, group: &str) -> bool {
        let is_one = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.is_match(name, group));
        (self.include.is_empty() || is_one(&self.include)) && !is_one(&self.exclude)
    }

    fn rank(&self, name: &str) -> usize {
        let name = name.to_lowercase();
        self.prefer.iter().position(|word| name.contains(word)).unwrap_or(self.prefer.len())
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        match text.get(.."group:".len()) {
            Some(head) if head.eq_ignore_ascii_case("group:") => {
                Self::Group(Glob::new(&text["group:".len()..]))
            }
            _ => Self::Name(Glob::new(text)),
        }
    }

    fn is_match(&self, name: &str, group: &str) -> bool {
        match self {
            Self::Name(glob) => glob.is_match(name),
            Self::Group(glob) => {
                glob.is_match(group) || group.split(';').any(|one| glob.is_match(one.trim()))
            }
        }
    }
}

struct Merging {
    drafts: Vec<Draft>,
    /// Which drafts have a key.
    by_key: HashMap<String, Vec<usize>>,
    /// Which channel of the configuration claims a content.
    claims: HashMap<Digest, usize>,
    /// Which claim names by a pattern.
    patterns: Vec<(Glob, usize)>,
    groups: HashMap<String, Arc<str>>,
}

impl Merging {
    fn new(channels: &[config::Channel]) -> Self {
        let mut merging = Self {
            drafts: Vec::with_capacity(channels.len()),
            by_key: HashMap::new(),
            claims: HashMap::new(),
            patterns: Vec::new(),
            groups: HashMap::new(),
        };
        for channel in channels {
            let at = merging.drafts.len();
            let mut draft = merging.configured(channel);
            for content in channel.ids.iter().chain(&channel.infohashes) {
                merging.claims.entry(content.name.digest()).or_insert(at);
                let source = Source {
                    content: content.clone(),
                    list: None,
                    line: 0,
                    name: channel.name.as_str().into(),
                };
                draft.add(source, 0);
            }
            if !channel.pattern.is_empty() {
                merging.patterns.push((Glob::new(&channel.pattern), at));
            }
            merging.drafts.push(draft);
        }
        merging
    }

    fn configured(&mut self, channel: &config::Channel) -> Draft {
        Draft {
            key: names::key(&channel.name, None, Merge::Name).name,
            slug: channel.slug.clone(),
            number: channel.number,
            wish: None,
            name: clean(&channel.name, MAX_NAME_BYTES),
            group: self.group(&channel.group),
            logo: some(&channel.logo),
            tvg_id: some(&channel.tvg_id),
            attributes: Vec::new(),
            sources: Vec::new(),
            elsewhere: None,
            is_radio: false,
            ranks: Vec::new(),
        }
    }

    /// The same group as one allocation, however many channels have it.
    fn group(&mut self, group: &str) -> Option<Arc<str>> {
        if group.is_empty() {
            return None;
        }
        if let Some(known) = self.groups.get(group) {
            return Some(Arc::clone(known));
        }
        let shared: Arc<str> = group.into();
        self.groups.insert(group.to_owned(), Arc::clone(&shared));
        Some(shared)
    }

    /// Takes one entry. Tells whether it counts among those that there may be.
    fn take(&mut self, list: &Input<'_>, filter: &Filter, entry: &Entry, skipped: &mut Skipped) -> bool {
        let settings = list.settings;
        let address = Address::of(&entry.url);
        let content = match &address {
            Address::Content(content) => Some(content),
            Address::BadId => {
                skipped.bad_ids += 1;
                return false;
            }
            Address::Other if settings.other == Other::Keep && is_playable(&entry.url) => None,
            Address::Other => {
                skipped.other += 1;
                return false;
            }
        };
        let said = said_name(entry, content);
        let group = group_of(entry, settings);
        if !filter.lets_through(&said, &group) {
            skipped.excluded += 1;
            return false;
        }
        let shown = names::shown(&said, content.map(digest_of), &settings.strip);
        let rank = filter.rank(&said);
        let Some(content) = content else {
            let draft = self.passed_through(list, entry, shown, &group);
            self.drafts.push(draft);
            return true;
        };
        let source = Source {
            content: content.clone(),
            list: Some(Arc::clone(&list.name)),
            line: entry.line,
            name: said.as_str().into(),
        };
        if let Some(at) = self.claimed_by(&source, &shown) {
            self.give(at, source, rank, entry, &group, skipped);
            return true;
        }
        let key = names::key(&shown, Some(content.name.digest()), settings.merge);
        let is_radio = is_radio(entry);
        if let Some(at) = self.find(&key, entry, is_radio, settings.merge) {
            let is_new = self.drafts[at].add(source, rank);
            skipped.repeated += usize::from(!is_new);
            let draft = &mut self.drafts[at];
            draft.wish = draft.wish.or_else(|| wish(entry));
            draft.fill(entry);
            return true;
        }
        let at = self.drafts.len();
        let mut draft = self.listed(entry, &key, shown, &group);
        draft.add(source, rank);
        self.drafts.push(draft);
        if settings.merge != Merge::Off {
            self.by_key.entry(key.name).or_default().push(at);
        }
        true
    }

    /// The channel of the configuration that this entry is for.
    fn claimed_by(&self, source: &Source, shown: &str) -> Option<usize> {
        let by_id = self.claims.get(&source.content.name.digest()).copied();
        by_id.or_else(|| {
            let is_match = |(glob, _): &&(Glob, usize)| glob.is_match(shown) || glob.is_match(&source.name);
            self.patterns.iter().find(is_match).map(|(_, at)| *at)
        })
    }

    /// Gives an entry to a channel of the configuration, which keeps what it says itself.
    fn give(
        &mut self,
        at: usize,
        source: Source,
        rank: usize,
        entry: &Entry,
        group: &str,
        skipped: &mut Skipped,
    ) {
        let group = self.group(group);
        let draft = &mut self.drafts[at];
        // Behind those that the configuration names.
        let is_new = draft.add(source, rank + 1);
        skipped.claimed += usize::from(!is_new);
        draft.group = draft.group.take().or(group);
        draft.fill(entry);
        if draft.attributes.is_empty() {
            draft.attributes = passed_on(entry);
        }
    }

    /// The channel that this entry is a source of.
    fn find(&self, key: &Key, entry: &Entry, is_radio: bool, merge: Merge) -> Option<usize> {
        if merge == Merge::Off {
            return None;
        }
        let id = entry.attribute("tvg-id").map(|id| names::key(id, None, merge).name);
        let fits = |at: &&usize| {
            let draft = &self.drafts[**at];
            let other = draft.tvg_id.as_deref().map(|id| names::key(id, None, merge).name);
            draft.is_radio == is_radio && (id.is_none() || other.is_none() || id == other)
        };
        self.by_key.get(&key.name)?.iter().find(fits).copied()
    }

    fn listed(&mut self, entry: &Entry, key: &Key, shown: String, group: &str) -> Draft {
        let mut draft = Draft {
            key: key.name.clone(),
            slug: None,
            number: None,
            wish: wish(entry),
            name: shown,
            group: self.group(group),
            logo: None,
            tvg_id: None,
            attributes: passed_on(entry),
            sources: Vec::new(),
            elsewhere: None,
            is_radio: is_radio(entry),
            ranks: Vec::new(),
        };
        draft.fill(entry);
        draft
    }

    fn passed_through(&mut self, list: &Input<'_>, entry: &Entry, shown: String, group: &str) -> Draft {
        let key = names::key(&shown, None, Merge::Name);
        let elsewhere = Elsewhere {
            url: entry.url.as_str().into(),
            options: entry.options.iter().map(|option| option.as_str().into()).collect(),
            list: Arc::clone(&list.name),
            line: entry.line,
        };
        Draft { elsewhere: Some(Box::new(elsewhere)), ..self.listed(entry, &key, shown, group) }
    }
}

impl Draft {
    /// Adds a source unless it is there. Tells whether it was new.
    fn add(&mut self, source: Source, rank: usize) -> bool {
        let is_same = |other: &Source| is_same(&other.content, &source.content);
        if self.sources.iter().any(is_same) || self.sources.len() >= MAX_SOURCES {
            return false;
        }
        self.sources.push(source);
        self.ranks.push(rank);
        true
    }

    /// Takes over what the entry says and nobody has said before.
    fn fill(&mut self, entry: &Entry) {
        let logo =
            || entry.attribute("tvg-logo").or_else(|| entry.attribute("logo")).filter(|url| is_web(url));
        self.logo = self.logo.take().or_else(|| logo().map(Into::into));
        self.tvg_id = self.tvg_id.take().or_else(|| entry.attribute("tvg-id").map(Into::into));
    }
}

impl From<(Draft, crate::wanted::Slug, u32)> for Channel {
    fn from((draft, slug, number): (Draft, crate::wanted::Slug, u32)) -> Self {
        Self {
            slug,
            number,
            name: draft.name.into(),
            group: draft.group,
            logo: draft.logo,
            tvg_id: draft.tvg_id,
            attributes: draft.attributes.into(),
            sources: draft.sources.into(),
            elsewhere: draft.elsewhere,
        }
    }
}

fn some(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn digest_of(content: &ContentKey) -> Digest {
    content.name.digest()
}

/// Many published ids are infohashes: the same digits are the same content, whichever it says they are.
fn is_same(one: &ContentKey, other: &ContentKey) -> bool {
    one.name.digest() == other.name.digest() && one.params == other.params
}

/// The name that an entry has, from wherever it says it.
fn said_name(entry: &Entry, content: Option<&ContentKey>) -> String {
    let said = [Some(entry.name.as_str()), entry.attribute("tvg-name"), entry.attribute("tvc-guide-title")];
    let said =
        said.into_iter().flatten().map(|name| clean(name, MAX_NAME_BYTES)).find(|name| !name.is_empty());
    said.unwrap_or_else(|| match content {
        Some(content) => format!("{:.8}", content.name.digest().to_string()),
        None => {
            let place = entry.url.split("://").nth(1).unwrap_or(&entry.url);
            clean(place.split(['/', '?']).next().unwrap_or("?"), MAX_NAME_BYTES)
        }
    })
}

fn group_of(entry: &Entry, settings: &config::Playlist) -> String {
    let group = clean(entry.attribute("group-title").unwrap_or_default(), MAX_NAME_BYTES);
    if settings.group_prefix.is_empty() { group } else { format!("{}{group}", settings.group_prefix) }
}

fn is_radio(entry: &Entry) -> bool {
    entry.attribute("radio").is_some_and(|radio| radio.eq_ignore_ascii_case("true") || radio == "1")
}

/// The number that an entry asks for. One with a sub-channel is none of ours.
fn wish(entry: &Entry) -> Option<u32> {
    ["tvg-chno", "ch-number", "channel-number"]
        .iter()
        .find_map(|name| entry.attribute(name)?.trim().parse().ok())
}

/// What players of entries that are not ours can open.
fn is_playable(url: &str) -> bool {
    ["http://", "https://", "rtsp://", "rtp://", "udp://"]
        .iter()
        .any(|scheme| url.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))
}

fn is_web(url: &str) -> bool {
    (url.starts_with("http://") || url.starts_with("https://")) && !url.contains(char::is_whitespace)
}

/// What we say ourselves, or what is not true any more of an address of ours: there is no archive.
const OURS: [&str; 14] = [
    "tvg-id",
    "tvg-name",
    "tvg-chno",
    "tvg-logo",
    "group-title",
    "channel-id",
    "channel-number",
    "ch-number",
    "tvh-chnum",
    "logo",
    "timeshift",
    "tvg-rec",
    "url-tvg",
    "media",
];

/// The attributes that are handed on as they are.
fn passed_on(entry: &Entry) -> Vec<(Box<str>, Box<str>)> {
    let is_ours = |key: &str| {
        let key = key.to_ascii_lowercase();
        // Some players look for `tvg-id=` anywhere in the line, so that `x-tvg-id=` would be it, too.
        OURS.iter().any(|ours| key.ends_with(ours)) || key.starts_with("catchup") || key.starts_with("media")
    };
    let kept = entry.attributes.iter().filter(|(key, value)| !is_ours(key) && !value.contains("media="));
    kept.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

#[cfg(test)]
mod tests;
