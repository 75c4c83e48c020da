use proptest::prelude::*;

use super::*;
use crate::channels::m3u::parse;
use crate::channels::merge::{Input, merge};
use crate::config::{Channel as Configured, Playlist};

const DAY: u64 = 24 * 3600;

/// Assigns what a list of entries, each `name` or `name#id#wish`, becomes at this time.
fn assign(register: &mut Register, channels: &[Configured], entries: &[&str], now: u64) -> Vec<String> {
    let mut text = String::new();
    for (at, entry) in entries.iter().enumerate() {
        let mut parts = entry.split('#');
        let name = parts.next().unwrap_or_default();
        let (id, wish) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        text += &format!("#EXTINF:-1 tvg-id=\"{id}\" tvg-chno=\"{wish}\",{name}\n{:040x}\n", 0x1000 + at);
    }
    let m3u = parse(text.as_bytes()).unwrap_or_default();
    let (drafts, _) =
        merge(channels, &[Input { name: "l".into(), settings: &Playlist::default(), m3u: &m3u }]);
    let mut told: Vec<_> = register
        .assign(drafts, now)
        .iter()
        .map(|channel| format!("{} {}", channel.number, channel.slug))
        .collect();
    told.sort();
    told
}

#[test]
fn numbers_and_paths_are_for_life() {
    let mut register = Register::default();
    assert_eq!(assign(&mut register, &[], &["A", "B##7", "C"], 0), ["1 a", "2 c", "7 b"]);
    // In another order, with one that is new, and whatever the list wishes now.
    assert_eq!(assign(&mut register, &[], &["D", "C##9", "B", "A"], 1), ["1 a", "2 c", "3 d", "7 b"]);
    // Gone, and back again after a restart.
    assert_eq!(assign(&mut register, &[], &["E"], 2), ["4 e"]);
    let mut register = Register::from_json(&register.to_json()).expect("its own");
    assert_eq!(assign(&mut register, &[], &["A", "E", "F"], 89 * DAY), ["1 a", "4 e", "5 f"]);
    // For ever.
    assert_eq!(assign(&mut register, &[], &["G"], 100 * DAY), ["6 g"]);
    assert_eq!(assign(&mut register, &[], &["G", "B", "A"], 101 * DAY), ["1 a", "2 b", "6 g"]);
}

#[test]
fn channels_of_one_name_are_told_apart_by_their_guide_ids() {
    let mut register = Register::default();
    assert_eq!(assign(&mut register, &[], &["X#p", "X#q"], 0), ["1 x", "2 x-2"]);
    assert_eq!(assign(&mut register, &[], &["X#q"], 1), ["2 x-2"]);
    assert_eq!(assign(&mut register, &[], &["X#q", "X#p"], 2), ["1 x", "2 x-2"]);
    // An id that is changed is no new channel.
    assert_eq!(assign(&mut register, &[], &["X#r", "X#p"], 3), ["1 x", "2 x-2"]);
}

#[test]
fn the_configuration_stands_above_what_was_before() {
    let mut register = Register::default();
    assert_eq!(assign(&mut register, &[], &["A", "B"], 0), ["1 a", "2 b"]);
    let id = crate::id::ContentKey::from_query(None, [("id", format!("{:040x}", 9))]).expect("a key");
    let mine = Configured {
        name: "Mine".into(),
        ids: vec![id],
        number: Some(1),
        slug: Some("b".parse().expect("a slug")),
        ..Configured::default()
    };
    assert_eq!(assign(&mut register, &[mine], &["A", "B"], 1), ["1 b", "2 b-2", "3 a"]);
}

#[test]
fn nothing_but_changes_is_written() {
    let mut register = Register::default();
    assign(&mut register, &[], &["A", "B"], 0);
    let before = register.to_json();
    assign(&mut register, &[], &["A", "B"], 5 * DAY);
    assert_eq!(register.to_json(), before);
    assert!(Register::from_json(b"{}").is_err() && Register::from_json(b"").is_err());
}

proptest! {
    #[test]
    fn no_two_have_the_same_number_or_path(
        entries in proptest::collection::vec("[ab]{1,2}(#[pq]?(#[0-3])?)?", 0..12),
        later in proptest::collection::vec("[ab]{1,2}(#[pq]?(#[0-3])?)?", 0..12),
    ) {
        let mut register = Register::default();
        for (now, entries) in [(0, &entries), (DAY, &later), (2 * DAY, &entries)] {
            let entries: Vec<_> = entries.iter().map(String::as_str).collect();
            let told = assign(&mut register, &[], &entries, now);
            for part in 0..2 {
                let mut parts: Vec<_> = told.iter().filter_map(|one| one.split(' ').nth(part)).collect();
                let count = parts.len();
                parts.sort_unstable();
                parts.dedup();
                prop_assert_eq!(parts.len(), count);
            }
        }
    }
}
