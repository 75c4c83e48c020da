//! Tables that come, repeat, change and lie.

mod by_the_book;

use proptest::prelude::*;

use super::*;
use crate::ts::fixture::{media, packetise, pat, pmt, section, tables};
use crate::ts::packet::packets;
use crate::ts::pmt::ElementaryStream;

const VIDEO: Pid = Pid::new(0x0100);
const AUDIO: Pid = Pid::new(0x0101);
const MAP: Pid = Pid::new(0x1000);
const OTHER_MAP: Pid = Pid::new(0x1001);

fn observe(cache: &mut PsiCache, stream: &[u8]) {
    packets(stream).for_each(|packet| cache.observe(&packet));
}

/// The last PMT of a programme.
fn pmt_of(programme: &Programme) -> Option<&Pmt> {
    programme.map.as_ref().map(|(pmt, _)| pmt)
}

fn a_pmt(version: u8, padding: usize) -> Vec<u8> {
    pmt(1, version, VIDEO, &[(0x1B, VIDEO), (0x0F, AUDIO)], padding)
}

fn one_programme(counter: usize) -> Vec<u8> {
    let pat = packetise(Pid::PAT, counter, &[pat(0, (0, 0), &[(1, MAP)])]);
    [pat, packetise(MAP, counter, &[a_pmt(0, 0)])].concat()
}

#[test]
fn one_programme_is_read_and_its_packets_kept() {
    let mut cache = PsiCache::new();
    let tables = one_programme(3);
    let stream = [&media(5)[..], &tables, &media(5)].concat();
    assert_eq!(cache.prefix(), None);
    observe(&mut cache, &stream);
    assert_eq!(cache.prefix(), Some(tables));
    let [programme] = &cache.programmes[..] else { panic!("one programme") };
    assert_eq!((programme.number, programme.pmt_pid), (1, MAP));
    let streams = vec![
        ElementaryStream { pid: VIDEO, stream_type: 0x1B, described: None },
        ElementaryStream { pid: AUDIO, stream_type: 0x0F, described: None },
    ];
    assert_eq!(pmt_of(programme), Some(&Pmt { pcr_pid: Some(VIDEO), streams }));
}

#[test]
fn what_a_pmt_lists_is_a_stream_wherever_it_is() {
    let [video, splices, elsewhere] = [Pid::new(0x14), Pid::new(0x15), Pid::new(0x100)];
    let unknown = PsiCache::new();
    assert!(unknown.is_table(video) && !unknown.is_media(video));
    assert!(unknown.is_media(elsewhere) && !unknown.is_media(Pid::NULL));
    let tables = tables(&[(0x1B, video), (0x86, splices)]);
    assert!(tables.is_media(video) && !tables.is_table(video));
    assert!(tables.is_table(splices), "sections");
    assert!(!tables.is_media(elsewhere), "nobody plays what no table lists");
    for table in [Pid::PAT, Pid::new(0x11), Pid::new(0x1000)] {
        assert!(tables.is_table(table) && !tables.is_media(table));
    }
}

#[test]
fn a_pat_without_a_pmt_makes_no_prefix() {
    let mut cache = PsiCache::new();
    observe(&mut cache, &packetise(Pid::PAT, 0, &[pat(0, (0, 0), &[(0, Pid::new(0x10)), (1, MAP)])]));
    assert_eq!(cache.prefix(), None);
    assert_eq!(cache.programmes.len(), 1, "the network PID is no programme");
    assert_eq!(pmt_of(&cache.programmes[0]), None);
}

#[test]
fn each_repetition_renews_the_packets() {
    let mut cache = PsiCache::new();
    observe(&mut cache, &one_programme(0));
    for counter in 1..40 {
        let again = one_programme(counter);
        observe(&mut cache, &again);
        assert_eq!(cache.prefix(), Some(again));
    }
}

#[test]
fn several_sections_share_packets_and_a_foreign_table_does_not_disturb() {
    let mut cache = PsiCache::new();
    let programmes = [(1, MAP), (2, MAP), (3, OTHER_MAP)];
    let pat = packetise(Pid::PAT, 0, &[pat(0, (0, 0), &programmes)]);
    let second = pmt(2, 0, AUDIO, &[(0x03, AUDIO)], 100);
    let foreign = section(0xC0, 1, 0, (0, 0), &[7; 60]);
    let maps = packetise(MAP, 5, &[foreign, a_pmt(0, 70), second]);
    let third = packetise(OTHER_MAP, 0, &[pmt(3, 0, Pid::NULL, &[], 0)]);
    observe(&mut cache, &[&pat[..], &maps, &third].concat());
    assert_eq!(cache.prefix(), Some([&pat[..], &maps, &third].concat()));
    assert!(cache.programmes.iter().all(|programme| programme.map.is_some()));
    assert_eq!(pmt_of(&cache.programmes[2]).and_then(|pmt| pmt.pcr_pid), None);
}

#[test]
fn a_pat_of_two_sections_counts_when_both_are_there() {
    let mut cache = PsiCache::new();
    let map = packetise(MAP, 0, &[a_pmt(0, 0)]);
    let first = packetise(Pid::PAT, 0, &[pat(0, (0, 1), &[(1, MAP)])]);
    let second = packetise(Pid::PAT, 1, &[pat(0, (1, 1), &[(2, OTHER_MAP)])]);
    observe(&mut cache, &[&first[..], &map].concat());
    assert!(cache.programmes.is_empty());
    observe(&mut cache, &[&second[..], &map].concat());
    assert_eq!(cache.programmes.len(), 2);
    assert_eq!(cache.prefix(), Some([&first[..], &second, &map].concat()));
    let first_again = packetise(Pid::PAT, 2, &[pat(0, (0, 1), &[(1, MAP)])]);
    observe(&mut cache, &first_again);
    assert_eq!(cache.prefix(), Some([&second[..], &first_again, &map].concat()), "in the order they came");
}

#[test]
fn sections_of_two_pats_make_no_third() {
    let mut cache = PsiCache::new();
    observe(&mut cache, &packetise(Pid::PAT, 0, &[pat(1, (0, 1), &[(1, MAP)])]));
    observe(&mut cache, &packetise(Pid::PAT, 1, &[pat(2, (1, 1), &[(2, MAP)])]));
    assert!(cache.programmes.is_empty());
    observe(&mut cache, &packetise(Pid::PAT, 2, &[pat(2, (0, 1), &[(3, MAP)])]));
    assert_eq!(cache.programmes.iter().map(|programme| programme.number).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn a_pmt_in_parts_is_none() {
    let mut cache = PsiCache::new();
    observe(&mut cache, &one_programme(0));
    let before = cache.prefix();
    let body = [0xE1, 0x00, 0xF0, 0x00];
    let part = packetise(MAP, 1, &[section(PMT_TABLE, 1, 1, (0, 1), &body)]);
    observe(&mut cache, &part);
    assert_eq!(cache.prefix(), before);
}

#[test]
fn a_new_pat_forgets_the_programmes_that_it_does_not_name() {
    let mut cache = PsiCache::new();
    observe(&mut cache, &one_programme(0));
    let moved = packetise(Pid::PAT, 1, &[pat(1, (0, 0), &[(1, OTHER_MAP), (2, MAP)])]);
    observe(&mut cache, &moved);
    assert_eq!(cache.prefix(), None, "the old PMT is no longer where the PAT says");
    let map = packetise(OTHER_MAP, 0, &[a_pmt(0, 0)]);
    observe(&mut cache, &map);
    assert_eq!(cache.prefix(), Some([&moved[..], &map].concat()));

    let grown = packetise(Pid::PAT, 2, &[pat(2, (0, 0), &[(1, OTHER_MAP)])]);
    observe(&mut cache, &grown);
    assert_eq!(cache.prefix(), Some([&grown[..], &map].concat()), "a PMT that stays is kept");
}

#[test]
fn a_new_pmt_replaces_the_old_one_even_with_the_old_version_number() {
    let mut cache = PsiCache::new();
    observe(&mut cache, &one_programme(0));
    for (counter, version) in [(1, 1), (2, 1)] {
        let map = packetise(MAP, counter, &[pmt(1, version, AUDIO, &[(0x0F, AUDIO); 3][..counter], 0)]);
        observe(&mut cache, &map);
        let streams = pmt_of(&cache.programmes[0]).map(|pmt| pmt.streams.len());
        assert_eq!(streams, Some(counter));
    }
}

#[test]
fn a_table_that_is_not_in_force_yet_is_left_out() {
    let mut cache = PsiCache::new();
    observe(&mut cache, &one_programme(0));
    let before = cache.prefix();
    let mut next = pat(1, (0, 0), &[(7, OTHER_MAP)]);
    next[5] &= !1;
    let end = next.len() - 4;
    let crc = crate::ts::crc::crc32(&next[..end]);
    next[end..].copy_from_slice(&crc.to_be_bytes());
    observe(&mut cache, &packetise(Pid::PAT, 1, &[next]));
    assert_eq!(cache.prefix(), before);
}

#[test]
fn a_hostile_pat_is_followed_only_so_far() {
    let mut cache = PsiCache::new();
    let many: Vec<_> = (1..200).map(|number| (number, Pid::new(0x20 + number))).collect();
    observe(&mut cache, &packetise(Pid::PAT, 0, &[pat(0, (0, 0), &many)]));
    assert_eq!((cache.programmes.len(), cache.pmt_assemblers.len()), (MAX_PROGRAMMES, MAX_PROGRAMMES));
    observe(&mut cache, &packetise(Pid::PAT, 9, &[pat(1, (255, 255), &many)]));
    observe(&mut cache, &packetise(Pid::PAT, 0, &[pat(1, (3, 2), &many)]));
    assert!(cache.next_pat.is_empty());
}

proptest! {
    #[test]
    fn tables_of_garbage_with_a_good_checksum_make_no_panic(
        tables in prop::collection::vec(
            (any::<bool>(), 0_u16..4, 0_u8..3, (0_u8..3, 0_u8..3), prop::collection::vec(any::<u8>(), 0..80)),
            0..40,
        ),
    ) {
        let mut cache = PsiCache::new();
        observe(&mut cache, &one_programme(0));
        for (counter, (is_pat, extension, version, part, body)) in tables.into_iter().enumerate() {
            let (table, pid) = if is_pat { (PAT_TABLE, Pid::PAT) } else { (PMT_TABLE, MAP) };
            observe(&mut cache, &packetise(pid, counter, &[section(table, extension, version, part, &body)]));
            prop_assert!(cache.programmes.len() <= MAX_PROGRAMMES);
            prop_assert!(cache.pat.iter().all(|section| same_table(section, &cache.pat[0])));
            prop_assert!(cache.prefix().is_none_or(|prefix| prefix.len() % PACKET_BYTES == 0));
        }
    }

    #[test]
    fn torn_and_mixed_tables_make_no_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..30),
        padding in 0_usize..600,
    ) {
        let mut stream = [one_programme(0), packetise(MAP, 1, &[a_pmt(1, padding), a_pmt(2, padding)])].concat();
        for (index, byte) in damage {
            let at = index.index(stream.len());
            stream[at] = byte;
        }
        let mut cache = PsiCache::new();
        observe(&mut cache, &stream);
        let prefix = cache.prefix().unwrap_or_default();
        let received = |packet| stream.chunks(PACKET_BYTES).any(|other| other == packet);
        prop_assert!(prefix.chunks(PACKET_BYTES).all(received));
    }
}
