//! The channels of the tuner, in the three spellings that clients ask for.
//!
//! Names are strangers' text: each spelling says them so that they can be nothing but a name.

use std::fmt::Write;

use serde::Serialize;

/// A channel as the tuner has it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its number, for life.
    pub number: u32,
    /// Its name, as the list has it.
    pub name: &'a str,
}

/// The words of a name that say that the picture is of high definition.
const HD_WORDS: [&str; 8] = ["hd", "fhd", "uhd", "4k", "720p", "1080", "1080p", "1080i"];

fn is_hd(name: &str) -> bool {
    let mut words = name.split(|character: char| !character.is_alphanumeric());
    words.any(|word| HD_WORDS.iter().any(|hd| word.eq_ignore_ascii_case(hd)))
}

/// Where a channel of this number plays. Nothing may follow: Emby puts a query of its own behind it.
fn url(base: &str, number: u32) -> String {
    format!("{base}/auto/v{number}")
}

/// `lineup.json`
#[must_use]
pub fn json<'a>(base: &str, entries: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    /// The names are case-sensitive, and the number is a string.
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line<'a> {
        guide_number: String,
        guide_name: &'a str,
        #[serde(rename = "HD", skip_serializing_if = "Option::is_none")]
        hd: Option<u8>,
        #[serde(rename = "URL")]
        url: String,
    }
    let mut text = vec![b'['];
    for (index, Entry { number, name }) in entries.enumerate() {
        text.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        let hd = is_hd(name).then_some(1);
        let line = Line { guide_number: number.to_string(), guide_name: name, hd, url: url(base, number) };
        // Plain fields always have a JSON form, and a Vec takes all that is written.
        let _written = serde_json::to_writer(&mut text, &line);
    }
    text.extend_from_slice(b"\n]\n");
    text
}

/// `lineup.xml`
#[must_use]
pub fn xml<'a>(base: &str, entries: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Lineup>\n");
    for Entry { number, name } in entries {
        let hd = if is_hd(name) { "<HD>1</HD>" } else { "" };
        let (name, url) = (in_xml(name), in_xml(&url(base, number)));
        let _: std::fmt::Result = writeln!(
            text,
            "<Program><GuideNumber>{number}</GuideNumber><GuideName>{name}</GuideName>{hd}<URL>{url}</URL></Program>"
        );
    }
    text.push_str("</Lineup>\n");
    text.into_bytes()
}

/// `lineup.m3u`
#[must_use]
pub fn m3u<'a>(base: &str, entries: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut text = String::from("#EXTM3U\n");
    for Entry { number, name } in entries {
        // What a list cannot say is said by what looks the same (playlist-facts.md section 1.2).
        let plain = |character: char| match character {
            '"' => '\u{201d}',
            ',' => '\u{201a}',
            '\u{2028}' | '\u{2029}' => ' ',
            control if control.is_control() => ' ',
            other => other,
        };
        let name: String = name.chars().map(plain).collect();
        let name = name.trim();
        let url = url(base, number);
        let _: std::fmt::Result = writeln!(
            text,
            "#EXTINF:-1 channel-id=\"{number}\" channel-number=\"{number}\" tvg-name=\"{name}\",{number} {name}\n{url}"
        );
    }
    text.into_bytes()
}

/// Text as an element of XML 1.0 may have it: escaped, and without the characters that no XML may have.
pub(super) fn in_xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const BASE: &str = "http://box:8000";
    const ODD: &str = "Cine \"Rojo\", <b>&\r\n#EXTINF:-1,x\u{8}";

    fn entries() -> impl Iterator<Item = Entry<'static>> {
        [(101, "Canal Faro FHD"), (7, ODD)].map(|(number, name)| Entry { number, name }).into_iter()
    }

    #[test]
    fn json_has_the_types_that_clients_demand() {
        let value: Value = serde_json::from_slice(&json(BASE, entries())).expect("JSON");
        assert_eq!(
            value,
            json!([
                {"GuideNumber": "101", "GuideName": "Canal Faro FHD", "HD": 1, "URL": "http://box:8000/auto/v101"},
                {"GuideNumber": "7", "GuideName": ODD, "URL": "http://box:8000/auto/v7"},
            ])
        );
        assert_eq!(serde_json::from_slice::<Value>(&json(BASE, [].into_iter())).expect("JSON"), json!([]));
    }

    #[test]
    fn xml_and_m3u_cannot_be_broken_by_a_name() {
        let text = String::from_utf8(xml(BASE, entries())).expect("UTF-8");
        assert!(
            text.contains(
                "<GuideName>Canal Faro FHD</GuideName><HD>1</HD><URL>http://box:8000/auto/v101</URL>"
            )
        );
        assert!(
            text.contains("<GuideName>Cine &quot;Rojo&quot;, &lt;b&gt;&amp;  #EXTINF:-1,x </GuideName>"),
            "{text}"
        );
        let text = String::from_utf8(m3u(BASE, entries())).expect("UTF-8");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[2], "http://box:8000/auto/v101");
        assert!(lines[3].ends_with(",7 Cine ”Rojo”‚ <b>&  #EXTINF:-1‚x"), "{text}");
    }

    proptest! {
        #[test]
        fn any_name_is_one_line_of_each_spelling(name in any::<String>(), number in any::<u32>()) {
            let entry = || [Entry { number, name: &name }].into_iter();
            let value: Value = serde_json::from_slice(&json(BASE, entry())).expect("JSON");
            prop_assert_eq!(value[0]["GuideName"].as_str(), Some(&*name));
            prop_assert_eq!(String::from_utf8(m3u(BASE, entry())).expect("UTF-8").lines().count(), 3);
            let text = String::from_utf8(xml(BASE, entry())).expect("UTF-8");
            prop_assert_eq!(text.lines().count(), 4);
            prop_assert_eq!(text.matches("</").count(), text.matches("<").count() / 2);
        }
    }
}
