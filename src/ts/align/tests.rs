//! Bodies in any split, torn and dirty.

use proptest::prelude::*;

use super::*;
use crate::ts::fixture::media;

/// What comes out of a body that comes in these pieces, over and over, and then ends.
fn aligned(body: &[u8], piece_bytes: &[usize]) -> (Vec<u8>, Aligner) {
    let mut aligner = Aligner::new();
    let mut out = Vec::new();
    let mut rest = body;
    for &bytes in piece_bytes.iter().cycle() {
        let (piece, behind) = rest.split_at(bytes.min(rest.len()));
        aligner.push(piece, &mut out);
        assert!(aligner.carry.len() < UNSETTLED_BYTES, "{} bytes wait", aligner.carry.len());
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    aligner.finish(&mut out);
    assert_eq!(out.len() % PACKET_BYTES, 0);
    assert!(out.chunks(PACKET_BYTES).all(|packet| packet[0] == SYNC_BYTE));
    // Positions tried in a search, boundaries checked in sync, and one look a call.
    let calls = body.len() / piece_bytes.iter().min().expect("there are pieces") + 2;
    assert!(aligner.compared <= (7 * body.len() + 2 * calls) as u64, "{} comparisons", aligner.compared);
    (out, aligner)
}

fn check(body: &[u8], piece_bytes: &[usize], expected: &[u8]) -> Aligner {
    let (out, aligner) = aligned(body, piece_bytes);
    assert!(out == expected, "{} packets of {}", out.len() / PACKET_BYTES, expected.len() / PACKET_BYTES);
    assert_eq!(aligner.skipped_bytes() as usize, body.len() - out.len());
    aligner
}

fn packet_of(body: &[u8], index: usize) -> &[u8] {
    &body[index * PACKET_BYTES..][..PACKET_BYTES]
}

#[test]
fn a_body_may_begin_anywhere_in_a_packet() {
    let body = media(12);
    for offset in 1..PACKET_BYTES {
        for pieces in [&[usize::MAX][..], &[11], &[187], &[1000]] {
            check(&body[offset..], pieces, &body[PACKET_BYTES..]);
        }
    }
}

#[test]
fn a_body_may_be_split_anywhere() {
    let body = media(8);
    for split in 0..=body.len() {
        check(&body, &[split.max(1), usize::MAX], &body);
    }
}

#[test]
fn in_sync_a_packet_comes_out_with_its_last_byte() {
    let body = media(9);
    let (mut aligner, mut out) = (Aligner::new(), Vec::new());
    aligner.push(&body[..752], &mut out);
    assert!(out.is_empty() && !aligner.is_synced(), "four packets without the fifth sync byte");
    aligner.push(&body[752..753], &mut out);
    assert!(out == body[..752] && aligner.is_synced());
    for end in 754..=body.len() {
        aligner.push(&body[end - 1..end], &mut out);
        assert_eq!(out.len(), end - end % PACKET_BYTES);
    }
    assert!(out == body);
}

#[test]
fn at_the_end_of_a_body_three_packets_suffice_and_a_torn_one_is_dropped() {
    for (packets, torn_bytes, expected) in
        [(0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 2), (2, 187, 2), (3, 0, 3), (3, 100, 3), (5, 187, 5)]
    {
        let body = media(packets + 1);
        let body = &body[..packets * PACKET_BYTES + torn_bytes];
        for pieces in [&[usize::MAX][..], &[1], &[188]] {
            check(body, pieces, &body[..expected * PACKET_BYTES]);
        }
    }
}

#[test]
fn after_its_end_an_aligner_takes_another_body() {
    let body = media(6);
    let (mut aligner, mut out) = (Aligner::new(), Vec::new());
    aligner.push(&body[..1000], &mut out);
    aligner.finish(&mut out);
    assert!(out == body[..940] && !aligner.is_synced());
    out.clear();
    aligner.push(&body, &mut out);
    assert!(out == body && aligner.is_synced());
    assert_eq!((aligner.skipped_bytes(), aligner.losses()), (60, 0));
}

#[test]
fn any_garbage_between_whole_packets_is_cut_out() {
    let body = media(20);
    let at = 8 * PACKET_BYTES;
    for length in (1..400).chain([939, 940, 941, 1128, 5000]) {
        let garbage = vec![0xE5; length];
        let dirty = [&body[..at], &garbage, &body[at..]].concat();
        for pieces in [&[usize::MAX][..], &[7], &[at], &[188]] {
            let aligner = check(&dirty, pieces, &body);
            assert_eq!((aligner.losses(), aligner.skipped_bytes() as usize), (1, length));
        }
    }
}

#[test]
fn a_search_that_waits_for_bytes_tries_no_position_twice() {
    let body = media(20);
    let (front, behind) = body.split_at(8 * PACKET_BYTES);
    for garbage_bytes in [1, 188, 2000] {
        let (_, aligner) = aligned(&[front, &vec![0xE5; garbage_bytes], behind].concat(), &[1]);
        // One look at a byte as it comes, one as a position, and the packets that made sync.
        assert!(aligner.compared < (3 * (body.len() + garbage_bytes)) as u64, "{}", aligner.compared);
    }
}

#[test]
fn garbage_at_the_end_costs_no_packet() {
    let body = media(8);
    for length in [1, 2, 187, 188, 189, 375, 376, 377, 1000] {
        check(&[&body[..], &vec![0xE5; length]].concat(), &[usize::MAX], &body);
        check(&[&body[..], &vec![0xE5; length]].concat(), &[1], &body);
    }
}

#[test]
fn of_a_torn_packet_nothing_is_passed_on_and_of_the_others_all() {
    let body = media(20);
    for torn in 8..14 {
        for kept_bytes in 1..PACKET_BYTES {
            let (front, behind) = body.split_at(torn * PACKET_BYTES);
            let dirty = [front, &behind[..kept_bytes], &behind[PACKET_BYTES..]].concat();
            let expected = [front, &behind[PACKET_BYTES..]].concat();
            let aligner = check(&dirty, &[usize::MAX], &expected);
            assert_eq!((aligner.losses(), aligner.skipped_bytes() as usize), (1, kept_bytes));
        }
    }
}

#[test]
fn a_torn_packet_that_was_passed_on_before_it_could_be_known_hides_no_other() {
    let body = media(20);
    let (front, behind) = body.split_at(8 * PACKET_BYTES);
    for kept_bytes in 1..PACKET_BYTES {
        let dirty = [front, &behind[..kept_bytes], &behind[PACKET_BYTES..]].concat();
        let torn = &dirty[front.len()..][..PACKET_BYTES];
        let expected = [front, torn, &behind[PACKET_BYTES..]].concat();
        let (out, aligner) = aligned(&dirty, &[188]);
        assert!(out == expected);
        assert_eq!((aligner.losses(), aligner.skipped_bytes()), (1, 0));
    }
}

#[test]
fn a_flood_of_sync_bytes_is_linear_and_hides_nothing_behind_it() {
    let body = media(20);
    for length in [1, 187, 188, 189, 1000, 20_003] {
        let dirty = [&vec![SYNC_BYTE; length], &body[..]].concat();
        for pieces in [&[usize::MAX][..], &[1], &[4096]] {
            let (out, _) = aligned(&dirty, pieces);
            assert!(out.ends_with(&body), "{length} sync bytes, pieces {pieces:?}");
        }
    }
}

/// Random bytes, of which `share` in 256 are sync bytes.
fn rich_in_sync_bytes(share: u8, max_bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    let enrich = move |byte| if byte < share { SYNC_BYTE } else { byte };
    prop::collection::vec(any::<u8>().prop_map(enrich), 0..max_bytes)
}

proptest! {
    #[test]
    fn a_good_body_comes_out_as_it_is_in_any_split(
        packets in 3_usize..60,
        pieces in prop::collection::vec(1_usize..2000, 1..20),
    ) {
        let body = media(packets);
        let aligner = check(&body, &pieces, &body);
        prop_assert_eq!(aligner.losses(), 0);
    }

    #[test]
    fn random_garbage_in_front_and_between_costs_no_packet(
        front in prop::collection::vec(any::<u8>(), 0..1500),
        between in prop::collection::vec(any::<u8>(), 0..1500),
        pieces in prop::collection::vec(1_usize..2000, 1..20),
    ) {
        let body = media(40);
        let (first, second) = body.split_at(20 * PACKET_BYTES);
        let (out, aligner) = aligned(&[&front, first, &between, second].concat(), &pieces);
        // Garbage that has a sync byte where the next packet would begin is a packet to anybody.
        for index in 0..40 {
            let packet = packet_of(&body, index);
            prop_assert!(out.chunks(PACKET_BYTES).any(|other| other == packet), "packet {index}");
        }
        prop_assert!(aligner.losses() <= 2);
    }

    #[test]
    fn garbage_rich_in_sync_bytes_hides_no_more_than_16_packets(
        garbage in rich_in_sync_bytes(192, 2500),
        pieces in prop::collection::vec(1_usize..2000, 1..20),
    ) {
        let body = media(40);
        let (first, second) = body.split_at(20 * PACKET_BYTES);
        let (out, _) = aligned(&[first, &garbage, second].concat(), &pieces);
        prop_assert!(out.starts_with(&first[..19 * PACKET_BYTES]));
        prop_assert!(out.ends_with(&second[16 * PACKET_BYTES..]));
    }

    #[test]
    fn whatever_comes_only_packets_come_out(
        body in rich_in_sync_bytes(96, 3000),
        pieces in prop::collection::vec(1_usize..1200, 1..20),
    ) {
        aligned(&body, &pieces);
    }
}

#[test]
fn packets_of_another_length_are_told() {
    let stream = media(12);
    for (length, head) in [(192, 4), (204, 0)] {
        let other: Vec<_> = stream
            .chunks(PACKET_BYTES)
            .flat_map(|packet| {
                [&vec![0x11; head][..], packet, &vec![0x22; length - head - PACKET_BYTES]].concat()
            })
            .collect();
        assert_eq!(foreign_packet_bytes(&other), Some(length));
        assert_eq!(foreign_packet_bytes(&other[131..]), Some(length), "from anywhere");
        assert_eq!(foreign_packet_bytes(&other[..7 * length]), None, "too few");
    }
    assert_eq!(foreign_packet_bytes(&stream), None);
    assert_eq!(foreign_packet_bytes(&[]), None);
}
