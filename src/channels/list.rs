//! The channels as they are now: one immutable value, which a reload or a refresh replaces as a whole.
//!
//! Whoever holds it goes on with what he holds. Everything that people read in it (names, groups, logos) is strangers' text:
//! free of control characters and bounded, but to be escaped wherever it goes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::id::ContentKey;
use crate::wanted::{Slug, Wanted};

use super::m3u;

/// All channels, by their numbers.
#[derive(Debug, Default)]
pub struct List {
    channels: Vec<Arc<Channel>>,
    by_slug: HashMap<Slug, usize>,
    guides: Vec<Box<str>>,
    reports: Vec<Report>,
    version: u64,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name in paths, for life.
    pub slug: Slug,
    /// What a remote control calls it, for life; never 0, and no two have the same.
    pub number: u32,
    /// Its name for people; never empty.
    pub name: Box<str>,
    /// Its group; several stand between `;`.
    pub group: Option<Arc<str>>,
    /// Where its picture is; http or https.
    pub logo: Option<Box<str>>,
    /// What guides call it.
    pub tvg_id: Option<Box<str>>,
    /// What else was said of it in the list that named it first, and is handed on: names as they were written.
    pub attributes: Box<[(Box<str>, Box<str>)]>,
    /// What it can be played from, in order of preference. None for what is not ours to play.
    pub sources: Box<[Source]>,
    /// What is not AceStream and was to be kept: players get it as it is.
    pub elsewhere: Option<Box<Elsewhere>>,
}

/// A content that plays a channel, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What is asked of an engine.
    pub content: ContentKey,
    /// The list that has it, by its name; `None` for the configuration.
    pub list: Option<Arc<str>>,
    /// In which line of that list its address stands; 0 in the configuration.
    pub line: u32,
    /// What it is called there.
    pub name: Box<str>,
}

/// An entry of a list that is passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its address, as it was written.
    pub url: Box<str>,
    /// The lines between its name and its address that tell players how to play it.
    pub options: Box<[Box<str>]>,
    /// Where it comes from.
    pub list: Arc<str>,
    /// In which line its address stands.
    pub line: u32,
}

/// What became of one of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What it is called.
    pub name: Arc<str>,
    /// Where it comes from, without whatever in it could be secret.
    pub place: Box<str>,
    /// Whether that is a file of this machine.
    pub is_file: bool,
    /// Entries that were read.
    pub entries: usize,
    /// Channels that have a source of it.
    pub channels: usize,
    /// What was left out.
    pub skipped: Skipped,
    /// When what is shown was fetched; `None` when nothing ever came.
    pub fetched_at: Option<SystemTime>,
    /// Why there is nothing newer, if the last try failed.
    pub error: Option<Box<str>>,
}

/// What was left out of a list, counted by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Addresses that are not AceStream.
    pub other: usize,
    /// Ids that are none: not 40 hex digits.
    pub bad_ids: usize,
    /// Names without an address.
    pub without_url: usize,
    /// Excluded by the configuration.
    pub excluded: usize,
    /// Repeated.
    pub repeated: usize,
    /// Claimed by a channel of the configuration.
    pub claimed: usize,
    /// Longer than anything a list has, or more than there may be.
    pub over_bounds: usize,
}

impl Skipped {
    /// All together, but for what is there all the same, under another name.
    #[must_use]
    pub fn count(&self) -> usize {
        let Self { other, bad_ids, without_url, excluded, repeated: _, claimed: _, over_bounds } = self;
        other + bad_ids + without_url + excluded + over_bounds
    }
}

impl List {
    /// These channels; of two with the same slug the later one is left out.
    #[must_use]
    pub fn new(
        mut channels: Vec<Channel>,
        guides: Vec<Box<str>>,
        reports: Vec<Report>,
        version: u64,
    ) -> Self {
        channels.sort_by_key(|channel| channel.number);
        let mut by_slug = HashMap::with_capacity(channels.len());
        let mut kept = Vec::with_capacity(channels.len());
        for channel in channels {
            if !by_slug.contains_key(&channel.slug) {
                by_slug.insert(channel.slug.clone(), kept.len());
                kept.push(Arc::new(channel));
            }
        }
        Self { channels: kept, by_slug, guides, reports, version }
    }

    /// The same channels, with other reports.
    #[must_use]
    pub fn with_reports(&self, reports: Vec<Report>) -> Self {
        let Self { channels, by_slug, guides, reports: _, version } = self;
        let (channels, by_slug, guides) = (channels.clone(), by_slug.clone(), guides.clone());
        Self { channels, by_slug, guides, reports, version: *version }
    }

    /// The channels, by their numbers.
    #[must_use]
    pub fn channels(&self) -> &[Arc<Channel>] {
        &self.channels
    }

    /// The channel of this name in paths.
    #[must_use]
    pub fn by_slug(&self, slug: &Slug) -> Option<&Arc<Channel>> {
        self.by_slug.get(slug).map(|&at| &self.channels[at])
    }

    /// The channel of this number.
    #[must_use]
    pub fn by_number(&self, number: u32) -> Option<&Arc<Channel>> {
        let at = self.channels.binary_search_by_key(&number, |channel| channel.number).ok()?;
        self.channels.get(at)
    }

    /// Where the lists say that guides are, each once: http or https.
    #[must_use]
    pub fn guides(&self) -> &[Box<str>] {
        &self.guides
    }

    /// What became of each list, in the order of the configuration.
    #[must_use]
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Grows with each list that differs from the one before.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl Channel {
    /// What the playlist says that guides call it: where nothing is known of that, its slug. Players compare it byte by
    /// byte with the guide's, so whatever names a channel for them does it by this.
    #[must_use]
    pub fn guide_id(&self) -> Cow<'_, str> {
        m3u::said(self.tvg_id.as_deref().unwrap_or_else(|| self.slug.as_str()))
    }

    /// What has to be asked for to play it; `None` for what is not ours to play.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        let contents = self.sources.iter().map(|source| source.content.clone());
        Wanted::channel(self.slug.clone(), contents)
    }
}
