//! What an engine says of a body in front of it, and what the body's first bytes say: is it a file, of what kind, how long?
//!
//! Pure: heads and bytes in, values out. It must not know how they came.

use ureq::http::HeaderMap;
use ureq::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, TRANSFER_ENCODING,
};

/// As many first bytes tell every kind: three packets of MPEG-TS are 564, and begin 188 apart.
pub(super) const TELLING_BYTES: usize = 2 * 188 + 1;

/// Longer header values than any type or tag has are not handed on.
const MAX_VALUE_BYTES: usize = 200;

/// The bytes of a file from here on, or up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: u64,
    /// The one behind the last; `None` is up to the end of the file.
    pub to: Option<u64>,
}

impl Span {
    /// All of a file.
    pub const WHOLE: Self = Self { from: 0, to: None };

    /// As `Range` names it (RFC 9110 section 14.1.2).
    pub(super) fn header(self) -> String {
        let last = self.to.map(|to| to.saturating_sub(1).to_string()).unwrap_or_default();
        format!("bytes={}-{last}", self.from)
    }
}

impl From<(u64, u64)> for Span {
    fn from((from, to): (u64, u64)) -> Self {
        Self { from, to: Some(to) }
    }
}

/// A file that an engine plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// In bytes; `None` where the engine does not say.
    pub length: Option<u64>,
    /// Whether any part of it can be asked for.
    pub has_parts: bool,
    /// Its media type: as the engine says, or as its first bytes do.
    pub content_type: String,
    /// The engine's tag for it (RFC 9110 section 8.8.3).
    pub etag: Option<String>,
}

/// What the head of a successful answer says of the body behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the body.
    pub(super) length: Option<u64>,
    /// Which bytes of the file it is: the first, and how many the whole has, if it says so.
    pub(super) part: Option<(u64, Option<u64>)>,
    pub(super) accepts_ranges: bool,
    pub(super) content_type: Option<String>,
    pub(super) etag: Option<String>,
}

impl Head {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let short = |name| text(name).filter(|text| !text.is_empty() && text.len() <= MAX_VALUE_BYTES);
        let is_chunked = headers.contains_key(TRANSFER_ENCODING);
        let length = text(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        Self {
            length: length.filter(|_| !is_chunked),
            part: text(CONTENT_RANGE).and_then(read_content_range),
            accepts_ranges: text(ACCEPT_RANGES).is_some_and(|units| units.eq_ignore_ascii_case("bytes")),
            content_type: short(CONTENT_TYPE).map(str::to_owned),
            etag: short(ETAG).filter(|tag| is_tag(tag)).map(str::to_owned),
        }
    }

    /// The file that this is the head of, which begins so.
    pub(super) fn file(&self, begin: &[u8]) -> File {
        let length = match self.part {
            Some((_, whole)) => whole,
            None => self.length,
        };
        File {
            length,
            has_parts: length.is_some() && (self.part.is_some() || self.accepts_ranges),
            content_type: content_type(self.content_type.as_deref(), begin),
            etag: self.etag.clone(),
        }
    }

    /// Whether this is a file, though nobody says that it is none of a broadcast.
    pub(super) fn is_files(&self, begin: &[u8]) -> bool {
        self.length.is_some() && self.accepts_ranges || matches!(kind(begin), Some(kind) if kind != MPEG_TS)
    }
}

/// `bytes 0-99/100`, or `bytes 0-99/*` (RFC 9110 section 14.4): the first byte, and how many there are.
fn read_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = text.strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    let whole = match whole.trim() {
        "*" => None,
        whole => Some(whole.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, whole))
}

/// Whether it is an entity tag: quoted, and perhaps weak.
fn is_tag(text: &str) -> bool {
    let opaque = text.strip_prefix("W/").unwrap_or(text);
    let inside = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.is_some_and(|inside| inside.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'))
}

const MPEG_TS: &str = "video/mp2t";

/// What is said of anything and tells nothing.
const NO_TYPES: [&str; 4] = ["application/octet-stream", "binary/octet-stream", "text/plain", "text/html"];

fn content_type(told: Option<&str>, begin: &[u8]) -> String {
    let told = told.filter(|told| {
        let essence = told.split(';').next().unwrap_or_default().trim();
        !NO_TYPES.iter().any(|none| none.eq_ignore_ascii_case(essence)) && essence.contains('/')
    });
    told.or_else(|| kind(begin)).unwrap_or(NO_TYPES[0]).to_owned()
}

/// The kind of a file by its first bytes.
fn kind(begin: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| begin.get(at..at + magic.len()) == Some(magic);
    let near = &begin[..begin.len().min(64)];
    let names = |name: &[u8]| near.windows(name.len()).any(|window| window == name);
    if has(4, b"ftyp") || has(4, b"moov") || has(4, b"mdat") {
        // ISO/IEC 14496-12; QuickTime's files name themselves.
        Some(if has(8, b"qt  ") { "video/quicktime" } else { "video/mp4" })
    } else if has(0, b"\x1a\x45\xdf\xa3") {
        // EBML (RFC 8794), with the name of the document's type near its begin.
        Some(if names(b"webm") { "video/webm" } else { "video/x-matroska" })
    } else if has(0, b"RIFF") && has(8, b"AVI ") {
        Some("video/x-msvideo")
    } else if [0, 188, 376].iter().all(|at| has(*at, b"G")) {
        Some(MPEG_TS)
    } else if has(0, b"FLV\x01") {
        Some("video/x-flv")
    } else if has(0, b"\0\0\x01\xba") {
        Some("video/mpeg")
    } else if has(0, b"OggS") {
        Some("video/ogg")
    } else if has(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") {
        Some("video/x-ms-asf")
    } else if has(0, b"ID3") || has(0, b"\xff\xfb") {
        Some("audio/mpeg")
    } else if has(0, b"fLaC") {
        Some("audio/flac")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use ureq::http::HeaderValue;

    use super::*;

    fn head(lines: &[(&'static str, &str)]) -> Head {
        let value = |text: &str| HeaderValue::from_str(text).expect("a header value");
        let lines = lines.iter().map(|(name, text)| (ureq::http::HeaderName::from_static(name), value(text)));
        Head::read(&lines.collect())
    }

    #[test]
    fn a_head_tells_how_long_the_file_is_and_whether_it_has_parts() {
        let check = |lines: &[(&'static str, &str)], length, has_parts| {
            let file = head(lines).file(b"");
            assert_eq!((file.length, file.has_parts), (length, has_parts), "{lines:?}");
        };
        check(&[], None, false);
        check(&[("content-length", "100")], Some(100), false);
        check(&[("content-length", "100"), ("accept-ranges", "Bytes")], Some(100), true);
        check(&[("content-length", "100"), ("accept-ranges", "none")], Some(100), false);
        check(&[("content-length", "100"), ("transfer-encoding", "chunked")], None, false);
        check(&[("content-length", "60"), ("content-range", "bytes 40-99/100")], Some(100), true);
        check(&[("content-length", "60"), ("content-range", "bytes 40-99/*")], None, false);
        check(&[("content-length", "60"), ("content-range", "lines 1-2/3")], Some(60), false);
        check(&[("accept-ranges", "bytes")], None, false);
    }

    #[test]
    fn a_tag_is_handed_on_only_if_it_is_one() {
        for (text, expected) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"\"", true),
            ("abc", false),
            ("\"", false),
            ("\"a\"b\"", false),
            ("\"a b\"", false),
        ] {
            assert_eq!(head(&[("etag", text)]).etag.is_some(), expected, "{text}");
        }
    }

    #[test]
    fn the_kind_is_the_engines_word_or_the_files() {
        let packets = [[b'G'; 1].as_slice(), &[0; 187]].concat().repeat(3);
        let files: &[(&[u8], &str)] = &[
            (b"\0\0\0\x20ftypisom....", "video/mp4"),
            (b"\0\0\0\x20ftypqt  ....", "video/quicktime"),
            (b"\x1a\x45\xdf\xa3....\x42\x82\x88matroska", "video/x-matroska"),
            (b"\x1a\x45\xdf\xa3....\x42\x82\x84webm", "video/webm"),
            (b"RIFF....AVI LIST", "video/x-msvideo"),
            (&packets, "video/mp2t"),
            (b"G, or another letter", "application/octet-stream"),
            (b"", "application/octet-stream"),
        ];
        for (begin, expected) in files {
            for told in [None, Some("application/octet-stream"), Some("Text/Plain; charset=x"), Some("x")] {
                assert_eq!(content_type(told, begin), *expected, "{told:?} {begin:?}");
            }
            assert_eq!(content_type(Some("video/x-own"), begin), "video/x-own");
        }
    }

    #[test]
    fn what_nobody_calls_a_film_is_one_if_it_has_parts_or_is_no_mpeg_ts() {
        let packets = [[b'G'; 1].as_slice(), &[0; 187]].concat().repeat(3);
        let plain = head(&[("content-length", "100")]);
        let parts = head(&[("content-length", "100"), ("accept-ranges", "bytes")]);
        assert!(!plain.is_files(&packets) && !plain.is_files(b"anything else"));
        assert!(parts.is_files(&packets) && plain.is_files(b"\0\0\0\x20ftypisom...."));
    }

    #[test]
    fn a_span_is_named_by_its_first_and_last_byte() {
        assert_eq!(Span::WHOLE.header(), "bytes=0-");
        assert_eq!(Span::from((5, 6)).header(), "bytes=5-5");
    }
}
