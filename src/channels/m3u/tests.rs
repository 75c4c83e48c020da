use proptest::prelude::*;

use super::*;

/// Every oddity that lists in use have, on invented channels.
pub(in crate::channels) const WILD: &str = include_str!("wild.m3u");

fn entry(line: &str) -> Entry {
    let text = format!("{line}\nhttp://a/");
    parse(text.as_bytes()).expect("a list").entries.remove(0)
}

#[track_caller]
fn check(line: &str, name: &str, attributes: &[(&str, &str)]) {
    let found = entry(line);
    let attributes: Vec<_> =
        attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    assert_eq!((found.name.as_str(), found.attributes), (name, attributes), "{line}");
}

#[test]
fn names_and_attributes_are_found_however_they_are_written() {
    check("#EXTINF:-1,Canal", "Canal", &[]);
    check("#EXTINF:-1 tvg-id=\"a\",Canal, partido 1", "Canal, partido 1", &[("tvg-id", "a")]);
    check(
        "#EXTINF:-1 tvg-id=\"a\"tvg-name=\"b\"x=\"c\",N",
        "N",
        &[("tvg-id", "a"), ("tvg-name", "b"), ("x", "c")],
    );
    check("#EXTINF:-1 a=\"x, y\" b='p, q' c=bare,N", "N", &[("a", "x, y"), ("b", "p, q"), ("c", "bare")]);
    check("#EXTINF:-1 a = \"x\" b= 'y',N", "N", &[("a", "x"), ("b", "'y'")]);
    check("#EXTINF:-1 tvg-name='L&apos;I' e=\"\",L'I 4K", "L'I 4K", &[("tvg-name", "L&apos;I")]);
    check(
        "#EXTINF:0 logo=\"http://a/b,c\",Cine \"Rojo\" = 100 %",
        "Cine \"Rojo\" = 100 %",
        &[("logo", "http://a/b,c")],
    );
    check("#EXTINF:-1 a=\"x\",Pantalla 32\"", "Pantalla 32\"", &[("a", "x")]);
    check("#EXTINF:-1 a=\"x, y b=\"z\",N", "N", &[("a", "x, y b=")]);
    check("#EXTINF:-1 junk a=\"x\" \"y, z\",N", "N", &[("a", "x")]);
    check("#extinf:-1 a=\"x\"", "", &[("a", "x")]);
    check("#EXTINF:-1 A=\"x\" a=\"y\",N", "N", &[("A", "x")]);
}

#[test]
fn directives_between_entries_count() {
    let list = parse(
        b"#EXTGRP:uno\n#EXTINF:-1,A\nhttp://a\n#EXTINF:-1 group-title=\"dos\",B\nhttp://b\n\
          #EXTGRP: group-title=\"tres\" group-logo=\"x\"\n#EXTLOGO:http://l\n#EXTVLCOPT:x=1\n#EXTINF:-1,C\n#KODIPROP:y=2\nhttp://c\n\
          http://d\n#EXTINF:-1,E\n#EXTINF:-1,F\nhttp://f\n#EXTINF:-1,G",
    )
    .expect("a list");
    let groups: Vec<_> = list.entries.iter().map(|entry| entry.attribute("Group-Title")).collect();
    assert_eq!(groups, [Some("uno"), Some("dos"), Some("tres"), None, Some("tres")]);
    assert_eq!(list.entries[2].attribute("tvg-logo"), Some("http://l"));
    assert_eq!(list.entries[2].options, ["#EXTVLCOPT:x=1", "#KODIPROP:y=2"]);
    assert_eq!((list.entries[3].name.as_str(), list.entries[4].line), ("", 15));
    assert_eq!(list.without_url, 2, "E and G");
}

#[test]
fn the_head_names_guides() {
    let list = parse(b"#EXTM3U url-tvg=\"http://a/x.gz, http://b\" x-tvg-url=\"http://a/x.gz\"\nhttp://c");
    assert_eq!(list.expect("a list").guides, ["http://a/x.gz", "http://b"]);
}

#[test]
fn what_is_no_list_says_so() {
    for (text, expected) in [
        ("<!DOCTYPE html><html>", NotAList::Html),
        ("\u{feff}\n <html>", NotAList::Html),
        ("{\"error\": 1}", NotAList::Json),
        ("[{\"id\": 1}]", NotAList::Json),
        ("", NotAList::Empty),
        ("#EXTM3U\n#EXTINF:-1,A\n", NotAList::Empty),
    ] {
        assert_eq!(parse(text.as_bytes()), Err(expected), "{text}");
    }
    assert_eq!(parse(b"[ES] Canal").map(|list| list.entries.len()), Ok(1));
}

#[test]
fn a_wild_list_is_the_same_in_every_encoding() {
    let plain = parse(WILD.as_bytes()).expect("a list");
    assert_eq!((plain.entries.len(), plain.without_url), (16, 1));
    let names: Vec<_> = plain.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(
        names[4..9],
        ["Liga Azul, partido 1", "Cine \"Rojo\" = 100 %", "L'\u{ce}le 4K", "24 Horas del Norte", "24h Sur"]
    );
    assert_eq!(plain.entries[4].attributes.len(), 4);
    let mut with_mark = "\u{feff}".to_owned();
    with_mark.push_str(&WILD.replace('\n', "\r\n"));
    assert_eq!(parse(with_mark.as_bytes()), Ok(plain.clone()));
    let windows: Vec<u8> = WILD.chars().map(|character| u8::try_from(character).expect("Latin-1")).collect();
    assert_eq!(parse(&windows), Ok(plain.clone()));
    let utf16: Vec<u8> = with_mark.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(parse(&utf16), Ok(plain));
}

#[test]
fn a_wild_list_may_be_cut_at_every_byte() {
    for end in 0..WILD.len() {
        let _list = parse(&WILD.as_bytes()[..end]);
    }
}

/// Text as it is after reading: what a name or a value can be.
fn said(text: &str, comma: &str) -> String {
    clean(&text.replace('"', "\u{201d}").replace(',', comma), MAX_NAME_BYTES)
}

proptest! {
    #[test]
    fn what_is_written_reads_back_to_the_same(
        name in "\\PC{0,30}",
        values in proptest::collection::vec("\\PC{0,20}", 0..5),
    ) {
        let values: Vec<_> = values.iter().map(|value| clean(value, 100)).filter(|value| !value.is_empty()).collect();
        let keys: Vec<_> = (0..values.len()).map(|number| format!("key-{number}")).collect();
        let name = clean(&name, 100);
        let mut out = String::from("#EXTM3U\n");
        let attributes = keys.iter().map(String::as_str).zip(values.iter().map(String::as_str));
        write(&mut out, attributes, &name, ["#EXTVLCOPT:x=1"], "http://a/b.ts");
        prop_assert_eq!(out.lines().count(), 4);
        let list = parse(out.as_bytes()).expect("a list");
        let entry = &list.entries[0];
        prop_assert_eq!(&entry.name, &said(&name, "\u{201a}"));
        let expected: Vec<_> = keys.iter().cloned().zip(values.iter().map(|value| {
            clean_id(&said(value, if value.contains("://") { "%2C" } else { "" }), 100)
        })).filter(|(_, value)| !value.is_empty()).collect();
        prop_assert_eq!(&entry.attributes, &expected);
        prop_assert_eq!((entry.url.as_str(), entry.options.len()), ("http://a/b.ts", 1));
        // And what was read is written the same.
        let mut again = String::from("#EXTM3U\n");
        let attributes = entry.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        write(&mut again, attributes, &entry.name, entry.options.iter().map(String::as_str), &entry.url);
        prop_assert_eq!(parse(again.as_bytes()), Ok(list.clone()));
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(list) = parse(&bytes) {
            prop_assert!(list.entries.len() <= bytes.len());
        }
    }

    #[test]
    fn no_line_makes_it_panic(lines in "(#EXTINF:|#EXTGRP:|#EXTM3U|\"|=|'|,|tvg-id|\n|\r|a| ){0,40}") {
        let _list = parse(lines.as_bytes());
    }
}
