//! What somebody asks for: a stream by the name it is shared under, and the contents that it can be played from.
//!
//! Values only. It must not know where channels come from, nor which source plays.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::id::ContentKey;

/// What a stream is known by: who asks for the same gets the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamKey {
    /// One content, asked for by its own name.
    Content(ContentKey),
    /// A channel of the house, whichever of its sources plays.
    Channel(Slug),
}

impl StreamKey {
    /// The stream's name in paths and logs.
    #[must_use]
    pub fn stream_id(&self) -> String {
        match self {
            Self::Content(content) => content.stream_id(),
            Self::Channel(slug) => format!("ch-{slug}"),
        }
    }
}

/// The name of a channel in paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(String);

impl Slug {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longer names say nothing more in a path.
const MAX_SLUG_BYTES: usize = 64;

impl FromStr for Slug {
    type Err = SlugError;

    /// Takes up to 64 lower-case letters, digits and dashes, with neither end a dash.
    fn from_str(text: &str) -> Result<Self, SlugError> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_good = (1..=MAX_SLUG_BYTES).contains(&text.len())
            && text.bytes().all(is_plain)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_good { Ok(Self(text.to_owned())) } else { Err(SlugError) }
    }
}

/// A text that is no [`Slug`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlugError;

impl fmt::Display for SlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name in a path has 1 to 64 of a-z, 0-9 and -, and no - at its ends")
    }
}

impl std::error::Error for SlugError {}

/// What somebody asks for: a stream, and the contents it can be played from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is known by.
    pub key: StreamKey,
    /// In order of preference.
    sources: Arc<[ContentKey]>,
}

impl Wanted {
    /// A channel with these sources, in order of preference; `None` if there is none.
    #[must_use]
    pub fn channel(slug: Slug, sources: impl IntoIterator<Item = ContentKey>) -> Option<Self> {
        let sources: Arc<[_]> = sources.into_iter().collect();
        (!sources.is_empty()).then_some(Self { key: StreamKey::Channel(slug), sources })
    }

    /// What it can be played from, in order of preference; at least one.
    #[must_use]
    pub fn sources(&self) -> &[ContentKey] {
        &self.sources
    }
}

impl From<ContentKey> for Wanted {
    /// This content, and nothing else in its place.
    fn from(content: ContentKey) -> Self {
        Self { key: StreamKey::Content(content.clone()), sources: [content].into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(query: &str) -> ContentKey {
        let pairs = form_urlencoded::parse(query.as_bytes());
        ContentKey::from_query(None, pairs).expect("a good query")
    }

    #[test]
    fn a_slug_is_plain_and_bounded() {
        for good in ["a", "canal-faro", "24-7", &"x".repeat(64)] {
            assert_eq!(good.parse::<Slug>().map(|slug| slug.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "canal faro", "ñ", "a/b", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Slug>(), Err(SlugError), "{bad}");
        }
    }

    #[test]
    fn a_channel_is_another_stream_than_its_sources() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let source = content(&format!("id={id}"));
        let slug: Slug = "canal-faro".parse().expect("a slug");
        let channel = Wanted::channel(slug.clone(), [source.clone()]).expect("it has a source");
        assert_eq!(channel.key.stream_id(), "ch-canal-faro");
        let alone = Wanted::from(source);
        assert_eq!(alone.key.stream_id(), id);
        assert_eq!(alone.sources(), channel.sources());
        assert_ne!(alone.key, channel.key);
        assert_eq!(Wanted::channel(slug, []), None);
    }
}
