//! `[[channels]]` and `[[playlists]]`: what the house's channel list is made of.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::SourceUrl;
use super::mistake::Refused;
use crate::escape::Escaped;
use crate::id::ContentKey;
use crate::wanted::Slug;

/// More than a person writes by hand.
pub(super) const MAX_CHANNELS: usize = 1000;

/// Each is fetched and kept.
pub(super) const MAX_PLAYLISTS: usize = 64;

/// `[[channels]]`: a channel of the house, which stands above what lists say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    /// Its name; never empty.
    pub name: String,
    /// Content ids that play it, in order of preference.
    pub ids: Vec<ContentKey>,
    /// Infohashes that play it, behind those.
    pub infohashes: Vec<ContentKey>,
    /// Entries of lists with such a name play it, too; a pattern with `*` and `?`, or empty for none.
    pub pattern: String,
    /// Its group; empty for what the lists say.
    pub group: String,
    /// Its picture; empty for what the lists say.
    pub logo: String,
    /// What guides call it; empty for what the lists say.
    pub tvg_id: String,
    /// Its number, if it is to have a certain one.
    pub number: Option<u32>,
    /// Its name in paths, if it is to have a certain one.
    pub slug: Option<Slug>,
}

/// `[[playlists]]`: somebody's list.
#[derive(Clone, Debug, PartialEq)]
pub struct Playlist {
    /// Where it is fetched from.
    pub url: Option<Place>,
    /// Which file it is, if it is fetched from nowhere.
    pub path: Option<PathBuf>,
    /// What it is called; never empty, and no two are called the same.
    pub name: String,
    /// How often it is looked after.
    pub refresh: Duration,
    /// Stands before the groups of its channels.
    pub group_prefix: String,
    /// Only entries like these are taken: patterns of names, or `group:` and one of groups. Empty for all.
    pub include: Vec<String>,
    /// Entries like these are not.
    pub exclude: Vec<String>,
    /// Which entries are one channel.
    pub merge: Merge,
    /// Sources whose entries have one of these words are tried first, in this order.
    pub prefer: Vec<String>,
    /// Endings that are no part of names.
    pub strip: Vec<String>,
    /// What becomes of entries that are not AceStream.
    pub other: Other,
}

impl Default for Playlist {
    fn default() -> Self {
        Self {
            url: None,
            path: None,
            name: String::new(),
            refresh: Duration::from_secs(3600),
            group_prefix: String::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            merge: Merge::Name,
            prefer: Vec::new(),
            strip: Vec::new(),
            other: Other::Drop,
        }
    }
}

/// Where a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the network.
    Web(SourceUrl),
    /// On this machine.
    File(PathBuf),
}

impl fmt::Display for Place {
    /// Without whatever in it could be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => url.fmt(f),
            Self::File(path) => Escaped(&path.display().to_string()).fmt(f),
        }
    }
}

/// Which entries of lists are one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Those of the same name.
    Name,
    /// Those whose names differ in quality alone.
    Quality,
    /// Each is one.
    Off,
}

/// What becomes of entries that are not AceStream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// They are left out.
    Drop,
    /// They are passed through.
    Keep,
}

impl Playlist {
    /// Where it is; `None` only before it is checked.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.url.clone().or_else(|| self.path.clone().map(Place::File))
    }
}

/// Holds what one channel must be.
pub(super) fn check_channel(channel: &Channel) -> Result<(), Refused> {
    if channel.name.trim().is_empty() {
        return Err(Refused::new("a channel without a name", "write name = \"...\""));
    }
    if channel.ids.is_empty() && channel.infohashes.is_empty() && channel.pattern.is_empty() {
        return Err(Refused::new("a channel without a source", "write ids, infohashes or match"));
    }
    Ok(())
}

/// Holds what channels must be together; tells which one cannot stand beside those before it.
pub(super) fn check_channels(channels: &[Channel]) -> Result<(), (usize, Refused)> {
    let (mut numbers, mut slugs) = (HashSet::new(), HashSet::new());
    for (index, channel) in channels.iter().enumerate() {
        if let Some(number) = channel.number
            && !numbers.insert(number)
        {
            return Err((
                index,
                Refused::new(format!("the number {number} is there twice"), "give each its own"),
            ));
        }
        if let Some(slug) = &channel.slug
            && !slugs.insert(slug)
        {
            return Err((
                index,
                Refused::new(format!("the slug \"{slug}\" is there twice"), "give each its own"),
            ));
        }
    }
    Ok(())
}

/// Holds what one list must be.
pub(super) fn check_playlist(playlist: &Playlist) -> Result<(), Refused> {
    match (&playlist.url, &playlist.path) {
        (None, None) => Err(Refused::new("a list that is nowhere", "write url = \"...\" or path = \"...\"")),
        (Some(_), Some(_)) => Err(Refused::new("a list in two places", "write either url or path")),
        _ => Ok(()),
    }
}

/// Holds what lists must be together, and names those that have no name.
pub(super) fn check_playlists(playlists: &mut [Playlist]) -> Result<(), (usize, Refused)> {
    let mut names = HashSet::new();
    for (index, playlist) in playlists.iter().enumerate().filter(|(_, playlist)| !playlist.name.is_empty()) {
        if !names.insert(playlist.name.clone()) {
            let wrong = format!("the name \"{}\" is there twice", Escaped(&playlist.name));
            return Err((index, Refused::new(wrong, "give each list a name of its own")));
        }
    }
    for playlist in playlists.iter_mut().filter(|playlist| playlist.name.is_empty()) {
        let Some(place) = playlist.place() else { continue };
        let place = place.to_string();
        let mut tries =
            (1..).map(|number| if number == 1 { place.clone() } else { format!("{place} ({number})") });
        playlist.name = tries.find(|name| names.insert(name.clone())).unwrap_or(place);
    }
    Ok(())
}
