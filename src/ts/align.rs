//! Whole packets out of bytes that come in any split.
//!
//! Sync is five sync bytes 188 apart: one byte in 256 of any payload is 0x47, so fewer are found by chance too
//! often. At the end of a body, where there may be no fifth, three suffice. In sync a packet is passed on as
//! soon as it is whole, so alignment adds no delay, except where the byte behind it is known and wrong: then
//! either garbage follows a whole packet, or the packet was torn and its last bytes are the first ones of
//! another. Only a search that begins inside it can tell.
//!
//! It knows nothing of packets but length and first byte. Positions are tried in rising order, each at most
//! once, so the work is linear in what came, and less than five packets wait between two calls.

use std::mem;

use super::packet::{PACKET_BYTES, SYNC_BYTE};

/// Sync bytes 188 apart that make sync in a body that goes on.
const SYNCS: usize = 5;

/// Sync bytes 188 apart that make sync in what is left at the end of a body.
const SYNCS_AT_END: usize = 3;

/// What may have to wait for more: a packet under suspicion, and behind it what the last position in it needs
/// to be tried.
const UNSETTLED_BYTES: usize = PACKET_BYTES + (SYNCS - 1) * PACKET_BYTES + 1;

/// Cuts a body into whole packets.
#[derive(Debug, Default)]
pub struct Aligner {
    /// Bytes that came and are not settled.
    carry: Vec<u8>,
    state: State,
    skipped_bytes: u64,
    losses: u64,
    /// Bytes compared with the sync byte, to show that the work is linear.
    #[cfg(test)]
    compared: u64,
}

/// How far the unsettled bytes are understood. Offsets count from the first of them.
#[derive(Debug, Clone, Copy)]
enum State {
    /// No packet boundary is known at `from` or behind it.
    Searching { lead: Lead, from: usize },
    /// The next packet begins right behind the lead.
    Synced { lead: Lead },
}

/// What the unsettled bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// With what was not looked at yet.
    Nothing,
    /// With a packet that was passed on before the byte behind it was known. It is kept because, if it was
    /// torn, the next packet begins in it.
    Passed,
    /// With a packet that has something else than a sync byte behind it.
    Suspect,
}

impl Default for State {
    fn default() -> Self {
        Self::Searching {
            lead: Lead::Nothing,
            from: 0,
        }
    }
}

impl Aligner {
    /// An aligner at the beginning of a body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the body and appends the packets that are whole now to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        if !self.carry.is_empty() {
            // Enough to settle all of the carry, so that what is left unsettled lies in `bytes` alone.
            let joint_bytes = bytes.len().min(UNSETTLED_BYTES);
            let mut carry = mem::take(&mut self.carry);
            carry.extend_from_slice(&bytes[..joint_bytes]);
            let settled = self.settle(&carry, SYNCS, out);
            let unsettled_bytes = carry.len() - settled;
            if unsettled_bytes > joint_bytes {
                carry.drain(..settled);
                self.carry = carry;
                return;
            }
            carry.clear();
            self.carry = carry;
            rest = &bytes[joint_bytes - unsettled_bytes..];
        }
        let settled = self.settle(rest, SYNCS, out);
        self.carry.extend_from_slice(&rest[settled..]);
    }

    /// Ends the body: appends what is left of whole packets to `out`, drops a torn last one, and is ready for
    /// another body. Where a search is open, three sync bytes suffice; a packet under suspicion is passed on,
    /// since nothing was found in it.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let carry = mem::take(&mut self.carry);
        let left = &carry[self.settle(&carry, SYNCS_AT_END, out)..];
        let lead_bytes = match mem::take(&mut self.state) {
            State::Searching {
                lead: Lead::Suspect, ..
            } => {
                out.extend_from_slice(&left[..PACKET_BYTES]);
                PACKET_BYTES
            }
            State::Searching {
                lead: Lead::Passed, ..
            }
            | State::Synced { lead: Lead::Passed } => PACKET_BYTES,
            State::Searching { .. } | State::Synced { .. } => 0,
        };
        self.skipped_bytes += (left.len() - lead_bytes) as u64;
    }

    /// Whether a packet boundary is known.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self.state, State::Synced { .. })
    }

    /// Bytes thrown away, in all bodies so far.
    #[must_use]
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    /// How often sync was lost, in all bodies so far.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Goes through the unsettled bytes as far as they allow a decision and gives how many are settled. Called
    /// again with the rest and nothing more, it does nothing.
    fn settle(&mut self, bytes: &[u8], syncs: usize, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        loop {
            match self.state {
                State::Searching { lead, from } => {
                    at += self.search(&bytes[at..], lead, from, syncs, out);
                    if !self.is_synced() {
                        return at;
                    }
                }
                State::Synced { lead } => {
                    at += self.follow(&bytes[at..], lead, out);
                    if self.is_synced() {
                        return at;
                    }
                }
            }
        }
    }

    /// In sync: passes on the run of packets that begins behind the lead, in one piece.
    fn follow(&mut self, bytes: &[u8], lead: Lead, out: &mut Vec<u8>) -> usize {
        let start = if lead == Lead::Passed { PACKET_BYTES } else { 0 };
        let mut end = start;
        let behind = loop {
            self.count_comparison();
            match bytes.get(end) {
                Some(&SYNC_BYTE) if bytes.len() - end >= PACKET_BYTES => end += PACKET_BYTES,
                behind => break behind,
            }
        };
        match behind {
            Some(&SYNC_BYTE) => {
                out.extend_from_slice(&bytes[start..end]);
                self.state = State::Synced { lead: Lead::Nothing };
                end
            }
            Some(_) => {
                self.losses += 1;
                let last = end.saturating_sub(PACKET_BYTES);
                let lead = if end == start { lead } else { Lead::Suspect };
                if lead == Lead::Suspect {
                    out.extend_from_slice(&bytes[start..last]);
                }
                self.state = State::Searching { lead, from: 1 };
                last
            }
            None if end == 0 => 0,
            None => {
                out.extend_from_slice(&bytes[start..end]);
                self.state = State::Synced { lead: Lead::Passed };
                end - PACKET_BYTES
            }
        }
    }

    /// Out of sync: tries every position from `from` on for which the bytes are there.
    fn search(&mut self, bytes: &[u8], lead: Lead, from: usize, syncs: usize, out: &mut Vec<u8>) -> usize {
        let tries = bytes.len().saturating_sub((syncs - 1) * PACKET_BYTES);
        let found = (from..tries).find(|&position| self.is_sync(&bytes[position..], syncs));
        let reached = found.unwrap_or(tries.max(from));
        let lead_bytes = if lead == Lead::Nothing { 0 } else { PACKET_BYTES };
        if reached < lead_bytes && found.is_none() {
            self.state = State::Searching { lead, from: reached };
            return 0;
        }
        // No packet begins in the lead: it was whole. Otherwise it was torn.
        let kept_bytes = match lead {
            Lead::Nothing => 0,
            Lead::Passed => lead_bytes.min(reached),
            Lead::Suspect if reached < lead_bytes => 0,
            Lead::Suspect => {
                out.extend_from_slice(&bytes[..lead_bytes]);
                lead_bytes
            }
        };
        self.skipped_bytes += (reached - kept_bytes) as u64;
        self.state = match found {
            Some(_) => State::Synced { lead: Lead::Nothing },
            None => State::Searching {
                lead: Lead::Nothing,
                from: 0,
            },
        };
        reached
    }

    fn is_sync(&mut self, bytes: &[u8], syncs: usize) -> bool {
        bytes.iter().step_by(PACKET_BYTES).take(syncs).all(|&byte| {
            self.count_comparison();
            byte == SYNC_BYTE
        })
    }

    #[cfg(test)]
    fn count_comparison(&mut self) {
        self.compared += 1;
    }

    #[cfg(not(test))]
    fn count_comparison(&mut self) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::media;
    use super::*;

    /// What comes out of a body that comes in these pieces, over and over, and then ends.
    fn aligned(body: &[u8], piece_bytes: &[usize]) -> (Vec<u8>, Aligner) {
        let mut aligner = Aligner::new();
        let mut out = Vec::new();
        let mut rest = body;
        for &bytes in piece_bytes.iter().cycle() {
            let (piece, behind) = rest.split_at(bytes.min(rest.len()));
            aligner.push(piece, &mut out);
            assert!(
                aligner.carry.len() < UNSETTLED_BYTES,
                "{} bytes wait",
                aligner.carry.len()
            );
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
        assert!(
            aligner.compared <= (7 * body.len() + 2 * calls) as u64,
            "{} comparisons",
            aligner.compared
        );
        (out, aligner)
    }

    fn check(body: &[u8], piece_bytes: &[usize], expected: &[u8]) -> Aligner {
        let (out, aligner) = aligned(body, piece_bytes);
        assert!(
            out == expected,
            "{} packets of {}",
            out.len() / PACKET_BYTES,
            expected.len() / PACKET_BYTES
        );
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
        assert!(
            out.is_empty() && !aligner.is_synced(),
            "four packets without the fifth sync byte"
        );
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
        for (packets, torn_bytes, expected) in [
            (0, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (2, 1, 2),
            (2, 187, 2),
            (3, 0, 3),
            (3, 100, 3),
            (5, 187, 5),
        ] {
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
            assert!(
                aligner.compared < (3 * (body.len() + garbage_bytes)) as u64,
                "{}",
                aligner.compared
            );
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
                assert_eq!(
                    (aligner.losses(), aligner.skipped_bytes() as usize),
                    (1, kept_bytes)
                );
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
}
