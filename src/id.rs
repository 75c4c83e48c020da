//! What a player asks for: which content, by which name, with which engine parameters.
//!
//! Only the checked form ([`ContentKey`]) goes further in; nothing of a client's text survives here unread.
//! This module knows neither HTTP nor engines: it takes decoded `name=value` pairs and gives values.

use std::fmt;
use std::str::FromStr;

use crate::fnv::fnv32;

/// The 160-bit name of a content, written as 40 hex digits: a content id or an infohash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 20]);

impl Digest {
    /// A digest of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 40];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = KeyError;

    /// Reads exactly 40 hex digits of any case.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.as_bytes();
        if text.len() != 40 {
            return Err(KeyError::Malformed);
        }
        let nibble = |byte: u8| char::from(byte).to_digit(16).ok_or(KeyError::Malformed);
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

/// A content by one of its two names. The same 40 digits mean different things as id and as infohash
/// (engine-contract.md section 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentName {
    /// A content id, which the engine resolves to an infohash.
    Id(Digest),
    /// The infohash itself.
    Infohash(Digest),
}

impl ContentName {
    /// The 40 digits, whichever name they are.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Id(digest) | Self::Infohash(digest) => *digest,
        }
    }

    /// The same digits as the other kind of name. Many published ids are infohashes (engine-contract.md section 1.1).
    #[must_use]
    pub fn other(&self) -> Self {
        match self {
            Self::Id(digest) => Self::Infohash(*digest),
            Self::Infohash(digest) => Self::Id(*digest),
        }
    }

    /// The engine's parameter for this name: `id` or `infohash`.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        match self {
            Self::Id(_) => "id",
            Self::Infohash(_) => "infohash",
        }
    }

    /// Reads the value of an `id` or `content_id` parameter: 40 hex digits or an `acestream:` link.
    fn from_id(value: &str) -> Result<Self, KeyError> {
        let value = value.trim();
        let Some(link) = strip_prefix_ignoring_case(value, "acestream:") else {
            return value.parse().map(Self::Id);
        };
        // A proxy on the way may have made one slash of the two.
        if let Some(rest) = link.strip_prefix('/') {
            return rest.trim_matches('/').parse().map(Self::Id);
        }
        // Some links carry their `?` percent-encoded (engine-contract.md section 9).
        let decoded = percent_encoding::percent_decode_str(link).decode_utf8_lossy();
        let query = decoded.strip_prefix('?').ok_or(KeyError::Malformed)?;
        let mut name = None;
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let found = match &*key {
                "content_id" | "id" => Self::Id(value.trim().parse()?),
                "infohash" => Self::Infohash(value.trim().parse()?),
                _ => continue,
            };
            if name.replace(found).is_some() {
                return Err(KeyError::Several);
            }
        }
        name.ok_or(KeyError::Malformed)
    }

    /// Reads the value of an `infohash` parameter.
    fn from_infohash(value: &str) -> Result<Self, KeyError> {
        match value.trim().parse() {
            Ok(digest) => Ok(Self::Infohash(digest)),
            Err(_) => match Self::from_id(value)? {
                name @ Self::Infohash(_) => Ok(name),
                Self::Id(_) => Err(KeyError::Malformed),
            },
        }
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// The parameters that reach the engine and so make another stream of the same content, with how each is
/// normalised. Sorted, so that the order in which a client names them does not matter.
const ENGINE_PARAMETERS: [(&str, ParameterKind); 7] = [
    ("_idx", ParameterKind::Number),
    ("preferred_audio_language", ParameterKind::Word),
    ("quality", ParameterKind::Word),
    ("stream_id", ParameterKind::Number),
    ("transcode_ac3", ParameterKind::Number),
    ("transcode_audio", ParameterKind::Number),
    ("transcode_mp3", ParameterKind::Number),
];

#[derive(Clone, Copy)]
enum ParameterKind {
    /// A whole number whose default is 0 (engine-contract.md section 1.2): 0 is the same as absent.
    Number,
    /// Letters, digits, `-` and `_`.
    Word,
}

/// Longer values than any engine parameter has: a language is three letters.
const MAX_WORD_BYTES: usize = 32;

/// Engine parameters of a request, normalised: sorted, without defaults and duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EngineParams(Vec<(&'static str, String)>);

impl EngineParams {
    /// The parameters as names and decoded values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn insert(&mut self, name: &str, value: &str) -> Result<(), KeyError> {
        let Some(&(name, kind)) = ENGINE_PARAMETERS.iter().find(|(known, _)| *known == name) else {
            return Ok(());
        };
        let value = value.trim();
        let value = match kind {
            _ if value.is_empty() => return Ok(()),
            ParameterKind::Number => match value.parse::<u32>() {
                Ok(0) => return Ok(()),
                Ok(number) => number.to_string(),
                Err(_) => return Err(KeyError::Parameter(name)),
            },
            ParameterKind::Word => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                if value.len() > MAX_WORD_BYTES || !value.bytes().all(plain) {
                    return Err(KeyError::Parameter(name));
                }
                value.to_owned()
            }
        };
        match self.0.binary_search_by_key(&name, |(name, _)| name) {
            Ok(at) if self.0[at].1 == value => Ok(()),
            Ok(_) => Err(KeyError::Parameter(name)),
            Err(at) => {
                self.0.insert(at, (name, value));
                Ok(())
            }
        }
    }
}

/// What a stream is shared by: a content and the parameters its engine session is opened with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentKey {
    /// Which content, under the name the client used.
    pub name: ContentName,
    /// What else the engine is told.
    pub params: EngineParams,
}

impl ContentKey {
    /// Reads a key from the decoded pairs of a request's query, and from the id in its path if it had one.
    ///
    /// # Errors
    ///
    /// When there is not exactly one `id`, `content_id` or `infohash`, or when one is malformed.
    pub fn from_query<K, V>(
        path_id: Option<&str>,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, KeyError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut name = path_id.map(ContentName::from_id).transpose()?;
        let mut params = EngineParams::default();
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            let found = match key {
                "id" | "content_id" => ContentName::from_id(value)?,
                "infohash" => ContentName::from_infohash(value)?,
                _ => {
                    params.insert(key, value)?;
                    continue;
                }
            };
            if name.replace(found).is_some() {
                return Err(KeyError::Several);
            }
        }
        let name = name.ok_or(KeyError::Missing)?;
        Ok(Self { name, params })
    }

    /// The stream's name in paths and logs: 40 hex digits, and with engine parameters `-` and 8 hex digits
    /// of their hash.
    #[must_use]
    pub fn stream_id(&self) -> String {
        let digest = self.name.digest();
        if self.params.0.is_empty() {
            return digest.to_string();
        }
        // The id must stay the same from run to run, and only people read it.
        let texts = self.params.iter().flat_map(|(name, value)| [name, "=", value, "&"]);
        let hash = fnv32(texts.flat_map(str::bytes));
        format!("{digest}-{hash:08x}")
    }
}

/// Why a request names no stream. The texts carry nothing of the client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// No key parameter at all.
    Missing,
    /// More than one key parameter.
    Several,
    /// A key parameter that is not 40 hex digits, nor a link with them.
    Malformed,
    /// An engine parameter with an impossible or contradicting value.
    Parameter(&'static str),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                f.write_str("the request names no stream: add id=<40 hex digits> or infohash=<40 hex digits>")
            }
            Self::Several => f.write_str(
                "the request names more than one stream: give exactly one of id, content_id and infohash",
            ),
            Self::Malformed => {
                f.write_str("a content id or infohash is 40 hex digits, also as acestream://<40 hex digits>")
            }
            Self::Parameter(name) => {
                write!(f, "the parameter {name} has an impossible value, or two different ones")
            }
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    const LOWER: &str = "0123456789abcdef0123456789abcdef01234567";
    const UPPER: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

    fn check(query: &str, expected: Result<&str, KeyError>) {
        let key = ContentKey::from_query(None, form_urlencoded::parse(query.as_bytes()));
        let found = key.map(|key| format!("{}={}", key.name.parameter(), key.stream_id()));
        assert_eq!(found, expected.map(str::to_owned), "{query}");
    }

    #[test]
    fn every_spelling_of_a_key_is_understood() {
        let id = format!("id={LOWER}");
        let infohash = format!("infohash={LOWER}");
        check(&format!("id={LOWER}"), Ok(&id));
        check(&format!("id={UPPER}"), Ok(&id));
        check(&format!("content_id={LOWER}"), Ok(&id));
        check(&format!("infohash={UPPER}"), Ok(&infohash));
        check(&format!("id=%20{LOWER}+"), Ok(&id));
        check(&format!("id=acestream://{UPPER}"), Ok(&id));
        check(&format!("id=acestream%3A%2F%2F{LOWER}"), Ok(&id));
        check(&format!("id=AceStream://{LOWER}/"), Ok(&id));
        check(&format!("id=acestream:?content_id={LOWER}"), Ok(&id));
        check(&format!("id=acestream:?infohash={LOWER}&index=2"), Ok(&infohash));
        check(&format!("id=acestream%3A%253Finfohash%3D{LOWER}"), Ok(&infohash));
        check(&format!("infohash=acestream:?infohash={LOWER}"), Ok(&infohash));
    }

    #[test]
    fn anything_else_is_refused() {
        check("", Err(KeyError::Missing));
        check("pid=1", Err(KeyError::Missing));
        check("id=", Err(KeyError::Malformed));
        check(&format!("id={}", &LOWER[1..]), Err(KeyError::Malformed));
        check(&format!("id={LOWER}0"), Err(KeyError::Malformed));
        check(&format!("id=g{}", &LOWER[1..]), Err(KeyError::Malformed));
        check(&format!("id=%C3%A9{}", &LOWER[2..]), Err(KeyError::Malformed));
        check(&format!("id={LOWER}%26pid%3Devil"), Err(KeyError::Malformed));
        check(&format!("id=acestream:{LOWER}"), Err(KeyError::Malformed));
        check("id=acestream:?url=http://evil", Err(KeyError::Malformed));
        check(&format!("infohash=acestream://{LOWER}"), Err(KeyError::Malformed));
        check(&format!("id={LOWER}&id={LOWER}"), Err(KeyError::Several));
        check(&format!("id={LOWER}&infohash={LOWER}"), Err(KeyError::Several));
        check(&format!("id={LOWER}&_idx=x"), Err(KeyError::Parameter("_idx")));
        check(&format!("id={LOWER}&_idx=1&_idx=2"), Err(KeyError::Parameter("_idx")));
        check(&format!("id={LOWER}&quality=a%0d%0ab"), Err(KeyError::Parameter("quality")));
    }

    #[test]
    fn only_engine_parameters_make_another_stream() {
        let plain = format!("id={LOWER}");
        check(&format!("id={LOWER}&pid=7&sid=8&format=json&_=12345"), Ok(&plain));
        check(&format!("id={LOWER}&_idx=0&transcode_mp3=0&quality="), Ok(&plain));
        let one = ContentKey::from_query(None, [("id", LOWER), ("_idx", "1"), ("quality", "hd")]);
        let other = ContentKey::from_query(None, [("quality", "hd"), ("_idx", "01"), ("id", LOWER)]);
        assert_eq!(one, other);
        let one = one.expect("a good key");
        assert_eq!(one.params.iter().collect::<Vec<_>>(), [("_idx", "1"), ("quality", "hd")]);
        assert_eq!(one.stream_id().len(), 49);
        assert_ne!(Ok(one), ContentKey::from_query(None, [("id", LOWER), ("_idx", "2"), ("quality", "hd")]));
    }
}
