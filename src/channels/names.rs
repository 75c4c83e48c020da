//! What a name says besides the channel, and when two names are one.
//!
//! Brackets, bars, dashes and countries belong to names: only an arrow, a mark at the end, the digits of the own id and,
//! where the configuration wants it, words of quality are taken off. Pure.

use crate::config::Merge;
use crate::fnv::fnv32;
use crate::id::Digest;
use crate::wanted::Slug;

use super::text::folded;

/// What stands between a channel and who provides it.
const ARROWS: [&str; 4] = [" --> ", " -> ", " => ", " \u{bb} "];

/// Words that tell one rendition of a channel from another.
const QUALITY: [&str; 20] = [
    "4k", "uhd", "2160", "2160p", "fhd", "1080", "1080p", "1080i", "hd", "720", "720p", "sd", "576p", "480p",
    "hevc", "h264", "h265", "50fps", "60fps", "8k",
];

/// What is compared of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// In small letters.
    pub(super) name: String,
}

/// A name as it is shown: without who provides it, without a mark, without the digits of its own id, and without these
/// endings.
pub(super) fn shown(name: &str, id: Option<Digest>, strip: &[String]) -> String {
    let mut rest = without_endings(name.trim(), strip);
    if let Some(at) = ARROWS.iter().filter_map(|arrow| rest.rfind(arrow)).max() {
        rest = without_endings(rest[..at].trim_end(), strip);
    }
    rest = rest.trim_end_matches('*').trim_end();
    if let (Some(id), Some((head, last))) = (id, rest.rsplit_once(' '))
        && last.len() == 4
        && id.to_string().ends_with(&last.to_ascii_lowercase())
    {
        rest = head.trim_end().trim_end_matches('*').trim_end();
    }
    // What is nothing but a mark is a name all the same.
    if rest.is_empty() { name.trim().to_owned() } else { rest.to_owned() }
}

fn without_endings<'a>(name: &'a str, strip: &[String]) -> &'a str {
    let mut rest = name;
    while let Some(shorter) = strip.iter().filter(|ending| !ending.is_empty()).find_map(|ending| {
        let at = rest.len().checked_sub(ending.len())?;
        let end = rest.get(at..)?;
        (end.to_lowercase() == ending.to_lowercase()).then(|| rest[..at].trim_end())
    }) {
        if shorter.is_empty() {
            break;
        }
        rest = shorter;
    }
    rest
}

/// The key of a name, or of a guide id, under this rule.
pub(super) fn key(name: &str, id: Option<Digest>, merge: Merge) -> Key {
    let lower = shown(name, id, &[]).to_lowercase();
    let mut words: Vec<_> = lower.split_whitespace().collect();
    if merge == Merge::Quality {
        while let [head @ .., last] = &words[..]
            && QUALITY.contains(last)
            && head.iter().any(|word| word.chars().any(char::is_alphabetic))
        {
            words.pop();
        }
    }
    Key { name: words.join(" ") }
}

/// The longest slug leaves room for what tells it from another.
const MAX_SLUG_CHARS: usize = 56;

/// A name for paths that says what the channel is called. Players take a file name of digits alone for a channel's number.
pub(super) fn slug(name: &str) -> Slug {
    let mut text = folded(name);
    text.truncate(MAX_SLUG_CHARS);
    let text = text.trim_matches('-');
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let text = match text {
        "" => format!("ch-{:08x}", fnv32(name.bytes())),
        text if is_number => format!("ch-{text}"),
        text => text.to_owned(),
    };
    // Letters, digits and single dashes, neither end a dash: always a slug.
    text.parse().unwrap_or_else(|_| unreachable!("it was made of what a slug has"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dead6d() -> Digest {
        "0123456789abcdef0123456789abcdef01dead6d".parse().expect("a digest")
    }

    #[test]
    fn only_what_is_no_name_is_taken_off() {
        let strip = ["| ELCANO".to_owned(), "[NEW ERA]".to_owned()];
        for (name, expected) in [
            ("DAZN 1 FHD --> NEW ERA", "DAZN 1 FHD"),
            ("Canal FHD ad6d --> X", "Canal FHD"),
            ("Canal FHD AD6D", "Canal FHD"),
            ("Canal FHD 1234", "Canal FHD 1234"),
            ("Canal -> a => b", "Canal -> a"),
            ("Canal 720p **", "Canal 720p"),
            ("Canal | Elcano [new era]", "Canal"),
            ("TV Canaria (RTVC)", "TV Canaria (RTVC)"),
            ("ES - DAZN 2", "ES - DAZN 2"),
            ("***", "***"),
            ("--> X", "--> X"),
        ] {
            assert_eq!(shown(name, Some(dead6d()), &strip), expected, "{name}");
        }
    }

    #[test]
    fn names_that_look_alike_and_are_not_stay_apart() {
        for merge in [Merge::Name, Merge::Quality] {
            let key = |name| key(name, None, merge).name;
            for (one, other) in [
                ("LA 1", "LA 2"),
                ("LaLiga TV", "LaLiga TV 2"),
                ("LaLiga TV", "LaLiga TV (Hypermotion)"),
                ("LaLiga TV", "LaLiga+"),
                ("ES - DAZN 2", "FR - DAZN 2"),
                ("DAZN 1", "DAZN 1 BAR"),
            ] {
                assert_ne!(key(one), key(other), "{one} {other}");
            }
            assert_eq!(key("CANAL  Faro fhd"), key("canal faro FHD"));
        }
        assert_ne!(key("A FHD", None, Merge::Name), key("A 720p", None, Merge::Name));
        assert_eq!(key("A FHD 1080p", None, Merge::Quality), key("a 720p", None, Merge::Quality));
        assert_eq!(key("4K UHD", None, Merge::Quality).name, "4k", "a letter is left");
    }

    proptest! {
        #[test]
        fn every_name_has_a_slug_and_a_key(name in "\\PC{0,90}|[a-z0-9 -]{0,90}|[0-9 ]{0,9}") {
            let slug = slug(&name);
            prop_assert!(slug.as_str().bytes().any(|byte| !byte.is_ascii_digit()));
            prop_assert!(slug.as_str().parse::<Slug>().is_ok());
            let first = key(&name, Some(dead6d()), Merge::Quality);
            prop_assert_eq!(key(&name, Some(dead6d()), Merge::Quality), first);
        }
    }
}
