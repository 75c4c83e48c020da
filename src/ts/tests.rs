//! Bodies of streams, torn and dirty: the way of a packet from loose bytes to the places where a client may begin.

use std::collections::HashSet;
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::align::Aligner;
use super::continuity::{Continuity, indicator_before};
use super::packet::{PACKET_BYTES, Packet, Pid, SYNC_BYTE, packets};
use super::psi::PsiCache;
use super::start::StartFinder;

/// A real stream, whose payload has sync bytes where it likes.
const CLIP: &[u8] = include_bytes!("../sim/clip.ts");

/// As much of it as is damaged.
const PART_PACKETS: usize = 160;

/// So much behind the last damage at the most is lost or wrong.
const HEALED_PACKETS: usize = 24;

/// Holds a rule for so many values. What was found stays in the output, not in a file.
#[track_caller]
pub(super) fn check<S>(cases: u32, values: &S, rule: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: Debug,
{
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(values, rule) {
        panic!("{error}");
    }
}

/// What is done to a body, somewhere.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Overwrite(Index, Vec<u8>),
}

impl Damage {
    fn apply(self, body: &mut Vec<u8>) {
        match self {
            Self::Flip(at, bits) => {
                let at = at.index(body.len());
                body[at] ^= bits;
            }
            Self::Insert(at, bytes) => {
                let at = at.index(body.len());
                body.splice(at..at, bytes);
            }
            Self::Remove(at, count) => {
                let at = at.index(body.len());
                body.drain(at..(at + count).min(body.len() - 1));
            }
            Self::Overwrite(at, bytes) => {
                let at = at.index(body.len());
                let end = (at + bytes.len()).min(body.len());
                let count = end - at;
                body[at..end].copy_from_slice(&bytes[..count]);
            }
        }
    }
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let garbage = || {
        prop_oneof![
            3 => prop::collection::vec(any::<u8>(), 1..700),
            1 => (1_usize..700).prop_map(|count| vec![SYNC_BYTE; count]),
        ]
    };
    prop_oneof![
        3 => (any::<Index>(), 1_u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        1 => (any::<Index>(), garbage()).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), 1_usize..700).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (any::<Index>(), garbage()).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
    ]
}

/// Somewhere in the clip, whole packets.
fn any_part() -> impl Strategy<Value = &'static [u8]> {
    let last = CLIP.len() / PACKET_BYTES - PART_PACKETS;
    (0..=last).prop_map(|first| &CLIP[first * PACKET_BYTES..][..PART_PACKETS * PACKET_BYTES])
}

fn any_pieces() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..20_usize, 1..3000_usize], 1..12)
}

/// What comes out of a body that comes in these pieces, over and over, and then ends.
fn aligned(body: &[u8], pieces: &[usize]) -> (Vec<u8>, Aligner) {
    let (mut aligner, mut out, mut rest) = (Aligner::new(), Vec::new(), body);
    for bytes in pieces.iter().cycle() {
        let (piece, behind) = rest.split_at((*bytes).min(rest.len()));
        aligner.push(piece, &mut out);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    aligner.finish(&mut out);
    (out, aligner)
}

#[test]
fn of_a_dirty_body_only_whole_packets_come_out_and_soon_all_of_them() {
    let damage = prop::collection::vec(any_damage(), 0..6);
    check(300, &(any_part(), damage, any_part(), any_pieces()), |(part, damage, tail, pieces)| {
        let mut body = part.to_vec();
        damage.into_iter().for_each(|damage| damage.apply(&mut body));
        body.extend(tail);
        let (out, aligner) = aligned(&body, &pieces);
        prop_assert_eq!(out.len() % PACKET_BYTES, 0);
        // A torn packet may have been passed on with the first bytes of the next.
        let settled = out.len() as u64 + aligner.skipped_bytes();
        let doubled = settled.checked_sub(body.len() as u64);
        prop_assert!(
            doubled.is_some_and(|bytes| bytes < 188 * aligner.losses().max(1)),
            "{doubled:?} {aligner:?}"
        );
        // Each is there in the body, in this order.
        let mut rest = &body[..];
        for packet in out.chunks(PACKET_BYTES) {
            prop_assert_eq!(packet[0], SYNC_BYTE);
            let at = rest.windows(PACKET_BYTES).position(|window| window == packet);
            let at = at.ok_or_else(|| TestCaseError::fail("a packet that was never sent"))?;
            rest = &rest[at + 1..];
        }
        prop_assert!(out.ends_with(&tail[HEALED_PACKETS * PACKET_BYTES..]), "{:?}", aligner);
        Ok(())
    });
}

#[test]
fn a_clean_body_comes_out_as_it_is_in_any_split() {
    check(200, &(any_part(), 3..=PART_PACKETS, any_pieces()), |(part, count, pieces)| {
        let body = &part[..count * PACKET_BYTES];
        let (out, aligner) = aligned(body, &pieces);
        prop_assert!(out == body && aligner.losses() == 0 && aligner.skipped_bytes() == 0, "{:?}", aligner);
        Ok(())
    });
}

#[test]
fn a_packet_of_garbage_is_read_within_its_bounds() {
    let packet = (prop::array::uniform32(any::<u8>()), any::<u8>());
    check(3000, &packet, |(head, fill)| {
        let mut bytes = [fill; PACKET_BYTES];
        bytes[..32].copy_from_slice(&head);
        let packet = Packet::new(&bytes);
        let field_bytes = if head[3] & 0x20 == 0 { 0 } else { 1 + usize::from(head[4]) };
        let payload_bytes = (PACKET_BYTES - 4).saturating_sub(field_bytes);
        let expected =
            (head[3] & 0x10 != 0 && payload_bytes > 0).then(|| &bytes[PACKET_BYTES - payload_bytes..]);
        prop_assert_eq!(packet.payload(), expected);
        prop_assert_eq!(packet.pid().get(), u16::from(head[1] & 0x1F) << 8 | u16::from(head[2]));
        prop_assert_eq!(packet.continuity(), head[3] & 0x0F);
        let has_flags = head[3] & 0x20 != 0 && (1..=183).contains(&head[4]);
        prop_assert_eq!(packet.random_access(), has_flags && head[5] & 0x40 != 0);
        prop_assert_eq!(packet.discontinuity(), has_flags && head[5] & 0x80 != 0);
        if let Some(pcr) = packet.pcr() {
            prop_assert!(has_flags && head[5] & 0x10 != 0 && head[4] >= 7 && pcr < (1 << 33) * 300 + 512);
        }
        let shown = format!("{packet:?}");
        prop_assert!(shown.contains(&packet.pid().to_string()), "{shown}");
        let before = indicator_before(&packet);
        let before = Packet::new(&before);
        prop_assert!(before.pid() == packet.pid() && before.payload().is_none() && before.discontinuity());
        Ok(())
    });
}

/// All that looks at the packets of a stream on their way, as the fetcher does.
#[test]
fn whatever_a_stream_consists_of_what_is_made_of_it_is_sound() {
    let damage = prop::collection::vec(any_damage(), 0..20);
    // Bits of heads, where they mean most.
    let heads = prop::collection::vec((any::<Index>(), 1_usize..24, any::<u8>()), 0..40);
    check(150, &(any_part(), damage, heads), |(part, damage, heads)| {
        // Tables come first, so that there is something to be confused about.
        let mut body = [&CLIP[..20 * PACKET_BYTES], part].concat();
        for (packet, offset, byte) in heads {
            body[packet.index(PART_PACKETS) * PACKET_BYTES + offset] = byte;
        }
        damage.into_iter().for_each(|damage| damage.apply(&mut body));
        let (out, _) = aligned(&body, &[usize::MAX]);
        let sent: HashSet<_> = out.chunks(PACKET_BYTES).collect();
        let (mut tables, mut starts, mut continuity) =
            (PsiCache::new(), StartFinder::new(), Continuity::new());
        let mut last = 0;
        for (number, packet) in (0..).zip(packets(&out)) {
            tables.observe(&packet);
            continuity.observe(&packet, &tables);
            if let Some(start) = starts.observe(number, &packet, &tables) {
                prop_assert!((last..=number).contains(&start.packet), "{start:?} behind {last}, at {number}");
                last = start.packet;
            }
        }
        let prefix = tables.prefix().unwrap_or_default();
        prop_assert!(
            prefix.len() % PACKET_BYTES == 0
                && prefix.chunks(PACKET_BYTES).all(|packet| sent.contains(packet))
        );
        prop_assert!(packets(&prefix).all(|packet| tables.is_table(packet.pid())));
        let indicators = continuity.indicators();
        for packet in packets(&indicators) {
            prop_assert!(packet.discontinuity() && packet.payload().is_none(), "{packet:?}");
            prop_assert!(!tables.is_table(packet.pid()) && packet.pid() != Pid::NULL, "{packet:?}");
        }
        Ok(())
    });
}
