//! What a player names: ids in all their spellings, parameters beside them.

use acerelay::id::{ContentKey, KeyError};
use proptest::prelude::*;

use super::check;

/// Some case for each letter.
fn in_mixed_case(text: &str, cases: &[bool]) -> String {
    let with_case = |(letter, is_upper): (char, &bool)| {
        if *is_upper { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    };
    text.chars().zip(cases.iter().cycle()).map(with_case).collect()
}

/// Encodes the bytes for which it says so, and those that a query cannot have as they are.
fn encoded(text: &str, choices: &[bool]) -> String {
    let encode = |(byte, is_chosen): (u8, &bool)| {
        if *is_chosen || !(byte.is_ascii_alphanumeric() || b":/?=".contains(&byte)) {
            format!("%{byte:02X}")
        } else {
            char::from(byte).to_string()
        }
    };
    text.bytes().zip(choices.iter().cycle()).map(encode).collect()
}

fn key_of(query: &str) -> Result<ContentKey, KeyError> {
    ContentKey::from_query(None, form_urlencoded::parse(query.as_bytes()))
}

/// How a content is named: the parameter, what stands in front of the digits and behind them, and what it is.
const SPELLINGS: [(&str, &str, &str, &str); 9] = [
    ("id", "", "", "id"),
    ("content_id", "", "", "id"),
    ("infohash", "", "", "infohash"),
    ("id", "acestream://", "", "id"),
    ("content_id", "acestream://", "/", "id"),
    ("id", "acestream:?content_id=", "", "id"),
    ("id", "acestream:?infohash=", "", "infohash"),
    ("content_id", "acestream:?infohash=", "&name=x", "infohash"),
    ("infohash", "acestream:?infohash=", "", "infohash"),
];

#[test]
fn every_spelling_of_an_id_is_read_and_no_parameter_but_the_known_ones_counts() {
    let flags = || prop::collection::vec(any::<bool>(), 1..50);
    let spelling = (prop::sample::select(SPELLINGS.to_vec()), "[0-9a-f]{40}", flags(), flags(), "[ \t]{0,2}");
    let track = 0_u32..5;
    let beside = prop::collection::vec(("[a-hj-np-z]{1,6}", "[ -~]{0,12}"), 0..5);
    check(1000, &(spelling, track, beside, any::<bool>()), |(spelling, track, beside, comes_first)| {
        let ((name, before, behind, kind), digits, cases, choices, blank) = spelling;
        let value = format!("{blank}{before}{}{behind}{blank}", in_mixed_case(&digits, &cases));
        let named = format!("{name}={}", encoded(&value, &choices));
        let mut others: Vec<_> =
            beside.iter().map(|(key, value)| format!("x{key}={}", encoded(value, &choices))).collect();
        others.push(format!("_idx={track}"));
        others.insert(if comes_first { 0 } else { others.len() }, named);
        let query = others.join("&");
        let key = key_of(&query).map_err(|error| TestCaseError::fail(format!("{query}: {error}")))?;
        prop_assert_eq!((key.name.parameter(), key.name.digest().to_string()), (kind, digits.clone()));
        let tracks: Vec<_> = key.params.iter().map(|(name, value)| (name, value.to_owned())).collect();
        let expected = if track == 0 { Vec::new() } else { vec![("_idx", track.to_string())] };
        prop_assert_eq!(&tracks, &expected);
        prop_assert_eq!(key.stream_id() == digits, track == 0);
        Ok(())
    });
}

#[test]
fn whatever_is_asked_for_is_refused_or_fit_to_be_handed_on() {
    let known = prop::sample::select(vec![
        "id",
        "content_id",
        "infohash",
        "_idx",
        "stream_id",
        "quality",
        "preferred_audio_language",
        "transcode_audio",
        "transcode_mp3",
        "transcode_ac3",
        "pid",
        "sid",
        "format",
    ]);
    let name = prop_oneof![4 => known.prop_map(str::to_owned), 1 => "\\PC{0,8}"];
    let value = prop_oneof![
        3 => "[0-9a-fA-F]{40}",
        1 => "(acestream:)?(//|\\?|%3f)?(content_id=|infohash=|id=)?[0-9a-f]{39,41}[/&]?",
        2 => "[0-9]{0,12}",
        2 => "[A-Za-z_-]{0,40}",
        1 => "\\PC{0,60}",
    ];
    let pairs = prop::collection::vec((name, value), 0..6);
    let path = prop::option::weighted(0.2, "[0-9a-f]{39,41}");
    check(4000, &(path, pairs), |(path, pairs)| {
        let Ok(key) =
            ContentKey::from_query(path.as_deref(), pairs.iter().map(|(name, value)| (name, value)))
        else {
            return Ok(());
        };
        let id = key.stream_id();
        let (digits, hash) = id.split_at(40);
        let is_hex =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        prop_assert!(is_hex(digits), "{id}");
        let params: Vec<_> = key.params.iter().collect();
        prop_assert_eq!(hash.is_empty(), params.is_empty());
        prop_assert!(
            hash.is_empty() || hash.len() == 9 && hash.starts_with('-') && is_hex(&hash[1..]),
            "{id}"
        );
        prop_assert!(params.is_sorted_by(|(one, _), (next, _)| one < next), "{params:?}");
        for (name, value) in &params {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            prop_assert!((1..=32).contains(&value.len()) && value.bytes().all(is_plain), "{name}={value}");
        }
        // In its normal form it names the same.
        let again = [(key.name.parameter(), digits)].into_iter().chain(params.iter().copied());
        prop_assert_eq!(ContentKey::from_query(None, again), Ok(key.clone()));
        Ok(())
    });
}
