//! Writes the channels as a list that every player reads the same.
//!
//! Pure: where we are reached, and whether as a stream or as HLS, is told by whoever asks.

use super::list::{Channel, List};
use super::m3u;

/// Which channels are wanted, and how they are to be played.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Those of this group.
    pub group: Option<String>,
    /// Those with this in their names.
    pub search: Option<String>,
    /// As HLS.
    pub is_hls: bool,
    /// There is a guide.
    pub has_guide: bool,
}

impl Choice {
    /// Whether a channel is wanted.
    #[must_use]
    pub fn takes(&self, channel: &Channel) -> bool {
        let is_in = |wanted: &str| {
            let group = channel.group.as_deref().unwrap_or_default();
            let wanted = wanted.to_lowercase();
            group.to_lowercase() == wanted || group.split(';').any(|one| one.trim().to_lowercase() == wanted)
        };
        let has = |wanted: &str| channel.name.to_lowercase().contains(&wanted.to_lowercase());
        self.group.as_deref().is_none_or(is_in) && self.search.as_deref().is_none_or(has)
    }
}

/// Where a channel plays: part of what players know it by, so it never changes.
#[must_use]
pub fn url(base: &str, channel: &Channel, is_hls: bool) -> String {
    match &channel.elsewhere {
        Some(elsewhere) => elsewhere.url.to_string(),
        None => format!("{base}/ch/{}.{}", channel.slug, if is_hls { "m3u8" } else { "ts" }),
    }
}

/// The list, with addresses that begin so.
#[must_use]
pub fn write(list: &List, base: &str, choice: &Choice) -> String {
    let mut out = String::from("#EXTM3U");
    if choice.has_guide {
        for key in ["url-tvg", "x-tvg-url"] {
            out.extend([" ", key, "=\"", base, "/epg.xml\""]);
        }
    }
    out.push('\n');
    for channel in list.channels().iter().filter(|channel| choice.takes(channel)) {
        let (number, guide_id) = (channel.number.to_string(), channel.guide_id());
        let own = [
            ("channel-id", channel.slug.as_str()),
            ("tvg-id", &guide_id),
            ("tvg-name", &channel.name),
            ("tvg-chno", &number),
            ("tvg-logo", channel.logo.as_deref().unwrap_or_default()),
            ("group-title", channel.group.as_deref().unwrap_or_default()),
        ];
        let passed_on = channel.attributes.iter().map(|(key, value)| (&**key, &**value));
        let options =
            channel.elsewhere.iter().flat_map(|elsewhere| elsewhere.options.iter().map(|option| &**option));
        let url = url(base, channel, choice.is_hls);
        m3u::write(&mut out, own.into_iter().chain(passed_on), &channel.name, options, &url);
    }
    out
}

#[cfg(test)]
mod tests;
