//! Numbers and paths of channels, for life: a remote control's favourites and a player's recordings go by them.
//!
//! A channel is known again by its name's key, and where several share one, by its guide id; never by its sources, which
//! change weekly, nor by the list it comes from. Pure: where the register is kept is not known here.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::wanted::Slug;

use super::list::Channel;
use super::merge::Draft;
use super::names;

/// A channel that is gone keeps what was its own for so long: lists drop channels out of season.
const KEPT_S: u64 = 90 * 24 * 3600;

/// What is kept at most, so that lists that change all their names cannot fill the disk.
const MAX_RECORDS: usize = 100_000;

/// Highest number that a list may wish for; remote controls have no more digits.
const MAX_WISH: u32 = 99_999;

/// All channels that were ever listed, but for those that are long gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Register {
    channels: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    slug: String,
    number: u32,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tvg_id: Option<String>,
    /// Since when it is in no list, in seconds of the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<u64>,
}

impl Register {
    /// Reads what [`Register::to_json`] wrote.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut register: Self = serde_json::from_slice(bytes)?;
        register.channels.retain(|record| record.slug.parse::<Slug>().is_ok() && record.number > 0);
        register.channels.truncate(MAX_RECORDS);
        Ok(register)
    }

    /// For the disk; a line a channel, so that a person can read it.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"channels\":[".to_vec();
        for (index, record) in self.channels.iter().enumerate() {
            out.extend(if index == 0 { &b"\n"[..] } else { b",\n" });
            // A plain structure always has a JSON form.
            out.extend(serde_json::to_vec(record).unwrap_or_default());
        }
        out.extend(b"\n]}\n");
        out
    }

    /// Gives each channel its number and its path; those of one that was there before, if it can be known again.
    pub(super) fn assign(&mut self, drafts: Vec<Draft>, now: u64) -> Vec<Channel> {
        let known = self.recognise(&drafts);
        let claimed: HashSet<_> = known.iter().flatten().copied().collect();
        let gone = || {
            self.channels.iter().enumerate().filter(|(at, _)| !claimed.contains(at)).map(|(_, record)| record)
        };
        let mut slugs: HashSet<String> = gone().map(|record| record.slug.clone()).collect();
        let mut numbers: HashSet<u32> = gone().map(|record| record.number).collect();

        // The configuration is law; then come those that were there before, then wishes, then the rest.
        let mut given_slugs: Vec<Option<Slug>> = drafts.iter().map(|draft| draft.slug.clone()).collect();
        let mut given: Vec<Option<u32>> = drafts.iter().map(|draft| draft.number).collect();
        slugs.extend(given_slugs.iter().flatten().map(|slug| slug.as_str().to_owned()));
        numbers.extend(given.iter().flatten());
        for (at, record) in
            known.iter().enumerate().filter_map(|(at, known)| Some((at, &self.channels[(*known)?])))
        {
            if given_slugs[at].is_none() && slugs.insert(record.slug.clone()) {
                given_slugs[at] = record.slug.parse().ok();
            }
            if given[at].is_none() && numbers.insert(record.number) {
                given[at] = Some(record.number);
            }
        }
        for (number, draft) in given.iter_mut().zip(&drafts) {
            if let (None, Some(wish @ 1..=MAX_WISH)) = (&number, draft.wish)
                && numbers.insert(wish)
            {
                *number = Some(wish);
            }
        }
        let mut free = (1..).filter(|number| !numbers.contains(number));
        let mut records = Vec::with_capacity(drafts.len());
        let mut channels = Vec::with_capacity(drafts.len());
        for ((draft, slug), number) in drafts.into_iter().zip(given_slugs).zip(given) {
            let slug = slug.unwrap_or_else(|| new_slug(&draft.name, &mut slugs));
            let Some(number) = number.or_else(|| free.next()) else { continue };
            records.push(Record {
                slug: slug.to_string(),
                number,
                key: draft.key.clone(),
                tvg_id: draft.tvg_id.as_deref().map(str::to_owned),
                gone: None,
            });
            channels.push(Channel::from((draft, slug, number)));
        }
        let gone = gone().cloned().map(|record| Record { gone: Some(record.gone.unwrap_or(now)), ..record });
        records.extend(gone.filter(|record| now.saturating_sub(record.gone.unwrap_or(now)) < KEPT_S));
        records.truncate(MAX_RECORDS);
        self.channels = records;
        channels
    }

    /// Which record each channel had before.
    fn recognise(&self, drafts: &[Draft]) -> Vec<Option<usize>> {
        let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, record) in self.channels.iter().enumerate() {
            by_key.entry(&record.key).or_default().push(at);
        }
        let mut claimed = HashSet::new();
        let mut known = vec![None; drafts.len()];
        // First those whose guide ids are the same, too; then whoever has the name.
        for is_exact in [true, false] {
            for (draft, known) in drafts.iter().zip(&mut known).filter(|(_, known)| known.is_none()) {
                let candidates = by_key.get(draft.key.as_str()).map(Vec::as_slice).unwrap_or_default();
                let fits = |at: &&usize| {
                    let id = self.channels[**at].tvg_id.as_deref();
                    !claimed.contains(*at) && (!is_exact || id == draft.tvg_id.as_deref())
                };
                *known = candidates.iter().find(fits).copied();
                claimed.extend(*known);
            }
        }
        known
    }
}

/// A slug that nobody has, now taken.
fn new_slug(name: &str, slugs: &mut HashSet<String>) -> Slug {
    let plain = names::slug(name);
    if slugs.insert(plain.as_str().to_owned()) {
        return plain;
    }
    let numbered = (2..).map(|number| format!("{plain}-{number}")).find(|slug| !slugs.contains(slug));
    let slug = numbered.and_then(|slug| slug.parse().ok()).unwrap_or(plain);
    slugs.insert(slug.as_str().to_owned());
    slug
}

#[cfg(test)]
mod tests;
