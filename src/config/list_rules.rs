//! Which values the keys of `[[channels]]` and `[[playlists]]` take.

use std::path::{Path, PathBuf};

use super::channels::{Merge, Other, Place};
use super::mistake::Refused;
use super::raw::{Value, quoted, shown};
use super::rules::{Rule, string};
use crate::escape::Escaped;
use crate::id::{ContentKey, ContentName};
use crate::wanted::Slug;

/// The longest text of a channel: a name, a group, an address of a picture.
const MAX_TEXT_BYTES: usize = 1024;

/// So many words in a list of words, or ids of a channel.
const MAX_WORDS: usize = 200;

/// The highest number: remote controls have no more digits.
const MAX_NUMBER: u32 = 99_999;

/// Text of one line.
pub(super) fn text() -> Rule<String> {
    Rule::new(|value| line(string(value)?), |text| Some(quoted(text)))
}

fn line(text: &str) -> Result<String, Refused> {
    if text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        let allowed = "allowed are up to 1024 bytes without control characters";
        return Err(Refused::new(format!("\"{}\" is no line of text", Escaped(text)), allowed));
    }
    Ok(text.to_owned())
}

/// Several texts.
pub(super) fn texts() -> Rule<Vec<String>> {
    Rule::new(
        |value| each(value, "allowed is a list of texts, such as [\"a\", \"b\"]", line),
        |texts| Some(listed(texts.iter().map(String::as_str))),
    )
}

fn each<T>(
    value: &Value<'_>,
    allowed: &'static str,
    read: impl Fn(&str) -> Result<T, Refused>,
) -> Result<Vec<T>, Refused> {
    let array =
        value.as_array().ok_or_else(|| Refused::new(format!("{} is no list", shown(value)), allowed))?;
    if array.len() > MAX_WORDS {
        return Err(Refused::new("the list is too long", format!("allowed are {MAX_WORDS}")));
    }
    array.iter().map(|element| read(string(element.get_ref())?)).collect()
}

fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let texts: Vec<_> = texts.map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

/// Content ids, in every form in which a player may name one.
pub(super) fn ids() -> Rule<Vec<ContentKey>> {
    contents("id", "allowed are content ids of 40 hex digits, such as ids = [\"0123...\"]")
}

/// Infohashes.
pub(super) fn infohashes() -> Rule<Vec<ContentKey>> {
    contents("infohash", "allowed are infohashes of 40 hex digits, such as infohashes = [\"0123...\"]")
}

fn contents(parameter: &'static str, allowed: &'static str) -> Rule<Vec<ContentKey>> {
    let one = move |text: &str| {
        let key = ContentKey::from_query(None, [(parameter, text)]);
        key.map_err(|_| Refused::new(format!("\"{}\" is none", Escaped(text)), allowed))
    };
    Rule::new(
        move |value| each(value, allowed, one),
        |keys| {
            let texts: Vec<_> = keys
                .iter()
                .map(|key| match key.name {
                    ContentName::Id(digest) => digest.to_string(),
                    ContentName::Infohash(digest) => format!("acestream:?infohash={digest}"),
                })
                .collect();
            Some(listed(texts.iter().map(String::as_str)))
        },
    )
}

/// A channel's number, or 0 for any.
pub(super) fn number_or_any() -> Rule<Option<u32>> {
    Rule::new(
        |value| {
            let number = super::rules::whole_in::<u32>(&(0..=i64::from(MAX_NUMBER)), value)?;
            Ok(Some(number).filter(|number| *number > 0))
        },
        |number| Some(number.unwrap_or_default().to_string()),
    )
}

/// A name in paths, or empty for any.
pub(super) fn slug_or_any() -> Rule<Option<Slug>> {
    let read = |value: &Value<'_>| {
        let text = string(value)?;
        if text.is_empty() {
            return Ok(None);
        }
        // Players take a file name of digits alone for a channel's number.
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| !is_number).map(Some).ok_or_else(|| {
            let allowed = "allowed are 1 to 64 of a-z, 0-9 and -, not digits alone and no - at its ends";
            Refused::new(format!("\"{}\" is no name in a path", Escaped(text)), allowed)
        })
    };
    Rule::new(read, |slug| Some(quoted(slug.as_ref().map_or("", Slug::as_str))))
}

/// Where a list is, or empty for nowhere.
pub(super) fn place_or_none() -> Rule<Option<Place>> {
    let read = |value: &Value<'_>| {
        let text = string(value)?;
        if text.is_empty() {
            return Ok(None);
        }
        match text.strip_prefix("file://") {
            Some(path) if Path::new(path).is_absolute() && !path.chars().any(char::is_control) => {
                Ok(Some(Place::File(path.into())))
            }
            Some(_) => {
                Err(Refused::new("this is no file of this machine", "allowed is file:///an/absolute/path"))
            }
            None => Ok(Some(Place::Web(text.parse()?))),
        }
    };
    Rule::new(read, |place| {
        Some(match place {
            None => quoted(""),
            Some(Place::Web(url)) => quoted(url.as_str()),
            Some(Place::File(path)) => quoted(&format!("file://{}", path.display())),
        })
    })
}

/// A file, or empty for none.
pub(super) fn file_or_none() -> Rule<Option<PathBuf>> {
    Rule::new(
        |value| Ok(Some(line(string(value)?)?).filter(|path| !path.is_empty()).map(PathBuf::from)),
        |path| Some(quoted(&path.as_deref().map(|path| path.display().to_string()).unwrap_or_default())),
    )
}

/// One of these words.
fn word<T: Copy + PartialEq>(
    words: &'static [(&'static str, T)],
    allowed: &'static str,
    value: &Value<'_>,
) -> Result<T, Refused> {
    let text = string(value)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    found.ok_or_else(|| Refused::new(format!("\"{}\" is none of the words", Escaped(text)), allowed))
}

const MERGES: [(&str, Merge); 3] = [("name", Merge::Name), ("quality", Merge::Quality), ("off", Merge::Off)];

const OTHERS: [(&str, Other); 2] = [("drop", Other::Drop), ("keep", Other::Keep)];

fn word_of<T: PartialEq>(words: &[(&str, T)], value: &T) -> Option<String> {
    words.iter().find(|(_, other)| other == value).map(|(word, _)| quoted(word))
}

/// Which entries are one channel.
pub(super) fn merge() -> Rule<Merge> {
    const ALLOWED: &str = "allowed are \"name\", \"quality\" and \"off\"";
    Rule::new(|value| word(&MERGES, ALLOWED, value), |merge| word_of(&MERGES, merge))
}

/// What becomes of entries that are not AceStream.
pub(super) fn other() -> Rule<Other> {
    const ALLOWED: &str = "allowed are \"drop\" and \"keep\"";
    Rule::new(|value| word(&OTHERS, ALLOWED, value), |other| word_of(&OTHERS, other))
}
