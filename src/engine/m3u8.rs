//! Reads an HLS list (RFC 8216): its segments, or the lists it leads to.
//!
//! Text in, values out. It must not know where a list comes from, nor what is done with it; whatever a line says, there
//! is a value or an error, and both are bounded.

use std::fmt;
use std::time::Duration;

/// A list of an engine has 13 to 17 segments (engine-contract.md section 8.2); that of a whole day in seconds has more
/// than anybody follows.
const MAX_SEGMENTS: usize = 20_000;

/// Longer than any URL of an engine.
const MAX_URI_BYTES: usize = 4096;

/// What every list begins with (RFC 8216 section 4.3.1.1).
const MAGIC: &[u8] = b"#EXTM3U";

/// Section 4.1 forbids it; some write it all the same.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A list that says less would be asked for without a pause.
const MIN_TARGET: Duration = Duration::from_secs(1);

/// Longer segments than anybody makes; what says more would not be asked for again in time.
const MAX_TARGET: Duration = Duration::from_secs(60);

/// What a list is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Playlist {
    /// It leads to others, at least one: one content in several qualities.
    Variants(Vec<Variant>),
    /// It names what is to be played.
    Media(MediaList),
}

/// A list that another one leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) uri: String,
    /// Bits a second at most; 0 if it is not said.
    pub(super) bandwidth: u64,
    /// Whether its sound is in it, and not in a list of its own.
    pub(super) has_its_sound: bool,
}

/// Segments in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MediaList {
    /// The longest a segment is, and the rhythm of asking again.
    pub(super) target: Duration,
    /// The number of the first segment.
    pub(super) first: u64,
    pub(super) segments: Vec<Segment>,
    /// Whether nothing more comes.
    pub(super) is_over: bool,
}

/// A piece of the stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub(super) uri: String,
    /// Which part of that it is: the first byte, and the one behind the last.
    pub(super) range: Option<(u64, u64)>,
    pub(super) duration: Duration,
    /// Whether it does not go on where the one before ended.
    pub(super) is_break: bool,
    /// Whether it is not there, and will not be.
    pub(super) is_gap: bool,
}

/// Why a list cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// Its segments need a key.
    Encrypted,
    /// Its segments are fragmented MP4.
    Fragmented,
    /// It leads to lists that lead to lists.
    Nested,
    /// It has more lines, or longer ones, than anybody needs.
    TooLong,
    /// It is no list, or says something that has no meaning.
    Unreadable(&'static str),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted => f.write_str("its segments are encrypted, which is not passed on"),
            Self::Fragmented => f.write_str("its segments are fragmented MP4, which is not passed on"),
            Self::Nested => f.write_str("its list leads from list to list"),
            Self::TooLong => f.write_str("its list is too long"),
            Self::Unreadable(why) => write!(f, "its list cannot be read: {why}"),
        }
    }
}

/// Whether a body that begins so is a list; `None` while that cannot be told yet.
pub(super) fn is_list(begin: &[u8]) -> Option<bool> {
    let is_prefix = |begin: &[u8], of: &[u8]| begin.iter().zip(of).all(|(one, other)| one == other);
    let rest = match begin.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => rest,
        None if begin.len() < BYTE_ORDER_MARK.len() && is_prefix(begin, BYTE_ORDER_MARK) => return None,
        None => begin,
    };
    match (is_prefix(rest, MAGIC), rest.len() < MAGIC.len()) {
        (true, true) => None,
        (is_list, _) => Some(is_list),
    }
}

/// Reads a whole list.
pub(super) fn parse(text: &[u8]) -> Result<Playlist, ListError> {
    if is_list(text) != Some(true) {
        return Err(ListError::Unreadable("it does not begin with #EXTM3U"));
    }
    let mut reader = Reader::default();
    for line in text.split(|byte| *byte == b'\n').skip(1) {
        reader.line(String::from_utf8_lossy(line).trim())?;
    }
    reader.finish()
}

/// What was read, and what the next URI will mean.
#[derive(Default)]
struct Reader {
    list: MediaList,
    has_target: bool,
    variants: Vec<(Variant, Option<String>)>,
    /// Groups of sound that have lists of their own.
    apart: Vec<String>,
    next_variant: Option<(u64, Option<String>)>,
    duration: Option<Duration>,
    is_break: bool,
    is_gap: bool,
    is_encrypted: bool,
    /// Length, and where it begins if that is said.
    range: Option<(u64, Option<u64>)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), ListError> {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "" if value.is_empty() => {}
            "#EXT-X-TARGETDURATION" => {
                self.has_target = true;
                self.list.target = seconds(value).ok_or(ListError::Unreadable("its target duration"))?;
            }
            "#EXT-X-MEDIA-SEQUENCE" => {
                let first = value.trim().parse().ok();
                // Room for the numbers of all its segments.
                let first = first.filter(|first: &u64| first.leading_zeros() > 0);
                self.list.first = first.ok_or(ListError::Unreadable("its media sequence"))?;
            }
            "#EXTINF" => self.duration = value.split(',').next().and_then(seconds),
            "#EXT-X-DISCONTINUITY" => self.is_break = true,
            "#EXT-X-GAP" => self.is_gap = true,
            "#EXT-X-BYTERANGE" => {
                self.range = Some(byte_range(value).ok_or(ListError::Unreadable("a byte range"))?);
            }
            "#EXT-X-KEY" => self.is_encrypted = attribute(value, "METHOD") != Some("NONE"),
            "#EXT-X-MAP" => return Err(ListError::Fragmented),
            "#EXT-X-ENDLIST" => self.list.is_over = true,
            "#EXT-X-STREAM-INF" => {
                let bandwidth = attribute(value, "BANDWIDTH").and_then(|value| value.parse().ok());
                let sound = attribute(value, "AUDIO").map(str::to_owned);
                self.next_variant = Some((bandwidth.unwrap_or(0), sound));
            }
            "#EXT-X-MEDIA" => {
                let is_apart = attribute(value, "TYPE") == Some("AUDIO") && attribute(value, "URI").is_some();
                if let Some(group) = attribute(value, "GROUP-ID").filter(|_| is_apart) {
                    self.apart.push(group.to_owned());
                }
            }
            _ if line.starts_with('#') => {}
            _ => self.uri(line)?,
        }
        if self.list.segments.len() + self.variants.len() + self.apart.len() > MAX_SEGMENTS {
            return Err(ListError::TooLong);
        }
        Ok(())
    }

    fn uri(&mut self, uri: &str) -> Result<(), ListError> {
        if uri.len() > MAX_URI_BYTES {
            return Err(ListError::TooLong);
        }
        let uri = uri.to_owned();
        if let Some((bandwidth, sound)) = self.next_variant.take() {
            self.variants.push((Variant { uri, bandwidth, has_its_sound: true }, sound));
            return Ok(());
        }
        if self.is_encrypted {
            return Err(ListError::Encrypted);
        }
        if is_fragment(&uri) {
            return Err(ListError::Fragmented);
        }
        let range = match self.range.take() {
            None => None,
            Some((length, from)) => {
                // Without a beginning it follows the part before, of the same (section 4.3.2.2).
                let last = self.list.segments.last().filter(|last| last.uri == uri);
                let from = from.or_else(|| last.and_then(|last| Some(last.range?.1)));
                let from = from.ok_or(ListError::Unreadable("a byte range without a beginning"))?;
                let to = from.checked_add(length).ok_or(ListError::Unreadable("a byte range"))?;
                Some((from, to))
            }
        };
        self.list.segments.push(Segment {
            uri,
            range,
            // What it is in all is known only at the end.
            duration: self.duration.take().unwrap_or(Duration::MAX),
            is_break: std::mem::take(&mut self.is_break),
            is_gap: std::mem::take(&mut self.is_gap),
        });
        Ok(())
    }

    fn finish(mut self) -> Result<Playlist, ListError> {
        if !self.variants.is_empty() {
            let apart = self.apart;
            let with_sound = |(mut variant, sound): (Variant, Option<String>)| {
                variant.has_its_sound = sound.is_none_or(|sound| !apart.contains(&sound));
                variant
            };
            return Ok(Playlist::Variants(self.variants.into_iter().map(with_sound).collect()));
        }
        if !self.has_target {
            return Err(ListError::Unreadable("it has no target duration"));
        }
        self.list.target = self.list.target.clamp(MIN_TARGET, MAX_TARGET);
        for segment in &mut self.list.segments {
            segment.duration = segment.duration.min(self.list.target);
        }
        Ok(Playlist::Media(self.list))
    }
}

/// The best of several: with its sound before one without, then of the highest rate.
pub(super) fn best(variants: &[Variant]) -> Option<&Variant> {
    // Of equals the first: that is the one a player would begin with.
    variants.iter().rev().max_by_key(|variant| (variant.has_its_sound, variant.bandwidth))
}

impl MediaList {
    /// The number behind that of the last segment.
    pub(super) fn end(&self) -> u64 {
        self.first + self.segments.len() as u64
    }

    /// The segment of this number, if it is listed.
    pub(super) fn get(&self, number: u64) -> Option<&Segment> {
        self.segments.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

/// `length[@from]`.
fn byte_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (length, from) = match text.trim().split_once('@') {
        Some((length, from)) => (length, Some(from.parse().ok()?)),
        None => (text.trim(), None),
    };
    Some((length.parse().ok()?, from))
}

/// Whether this names a piece of fragmented MP4.
fn is_fragment(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let suffix = path.rsplit_once('.').map(|(_, suffix)| suffix.to_ascii_lowercase());
    matches!(suffix.as_deref(), Some("m4s" | "mp4" | "m4v" | "m4a" | "cmfv" | "cmfa" | "m4f"))
}

/// The value of an attribute in `NAME=value,NAME="value"` (section 4.2), without its quotes.
fn attribute<'a>(mut list: &'a str, wanted: &str) -> Option<&'a str> {
    loop {
        let (name, rest) = list.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
                (value, rest.split_once(',').map_or("", |(_, rest)| rest))
            }
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        if name.trim() == wanted {
            return Some(value.trim());
        }
        list = rest;
    }
}

#[cfg(test)]
mod tests;
