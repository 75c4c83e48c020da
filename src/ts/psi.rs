//! The tables in front of a joiner: the last PAT and the PMTs it names, as packets and as values
//! (ISO/IEC 13818-1 clauses 2.4.4.3 to 2.4.4.9).
//!
//! A decoder that comes in the middle of a stream waits for these tables, up to half a second; with
//! [`PsiCache::prefix`] in front it need not. The packets are kept as received and renewed at each repetition,
//! so that their continuity counters are those of the live stream at that moment.
//!
//! It does not know what elementary streams carry, nor who joins where. Whatever comes, it holds less than
//! 2 MiB, and about a kilobyte for an ordinary stream.

use super::packet::{PACKET_BYTES, Packet, Pid};
use super::pmt::Pmt;
use super::section::{Assembler, Received, Section};

/// `table_id` of a `TS_program_association_section` (table 2-31).
const PAT_TABLE: u8 = 0x00;

/// `table_id` of a `TS_program_map_section` (table 2-31).
const PMT_TABLE: u8 = 0x02;

/// PIDs below are reserved for tables with a fixed place (table 2-3), so no PMT has one of them.
const FIRST_FREE_PID: Pid = Pid::new(0x0010);

/// Programmes that are followed. A whole satellite multiplex has about 20; an AceStream channel has one.
const MAX_PROGRAMMES: usize = 32;

/// Sections of a PAT that are followed: one programme in each would be the poorest use of them.
const MAX_PAT_SECTIONS: usize = MAX_PROGRAMMES;

/// What a packet did to the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PsiChange {
    /// Nothing: it completed no table.
    Nothing,
    /// A table came again with the same content; the prefix now holds its new packets.
    Refreshed,
    /// A table is new or says something else.
    Changed,
}

/// A programme that the PAT names.
#[derive(Debug)]
pub struct Programme {
    number: u16,
    pmt_pid: Pid,
    map: Option<(Pmt, Section)>,
}

impl Programme {
    /// `program_number`.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Where its PMT is.
    #[must_use]
    pub fn pmt_pid(&self) -> Pid {
        self.pmt_pid
    }

    /// Its last PMT, `None` until one came whole.
    #[must_use]
    pub fn pmt(&self) -> Option<&Pmt> {
        self.map.as_ref().map(|(pmt, _)| pmt)
    }
}

/// Keeps the last complete PAT and PMTs of a stream.
#[derive(Debug)]
pub struct PsiCache {
    serial: u64,
    pat_assembler: Assembler,
    /// The last complete PAT, by section number. All of one identity.
    pat: Vec<Section>,
    /// A PAT of another identity that is not complete yet.
    next_pat: Vec<Option<Section>>,
    programmes: Vec<Programme>,
    /// One for each different PMT PID of `programmes`.
    pmt_assemblers: Vec<(Pid, Assembler)>,
}

impl Default for PsiCache {
    fn default() -> Self {
        Self::new()
    }
}

impl PsiCache {
    /// A cache that knows no table.
    #[must_use]
    pub fn new() -> Self {
        Self {
            serial: 0,
            pat_assembler: Assembler::new(PAT_TABLE),
            pat: Vec::new(),
            next_pat: Vec::new(),
            programmes: Vec::new(),
            pmt_assemblers: Vec::new(),
        }
    }

    /// Looks at the next packet of the stream, of whatever PID.
    pub fn observe(&mut self, packet: &Packet<'_>) -> PsiChange {
        let pid = packet.pid();
        let assembler = if pid == Pid::PAT {
            &mut self.pat_assembler
        } else if let Some((_, assembler)) = self.pmt_assemblers.iter_mut().find(|(of, _)| *of == pid) {
            assembler
        } else {
            return PsiChange::Nothing;
        };
        self.serial += 1;
        let sections = assembler.push(packet, self.serial);
        let mut change = PsiChange::Nothing;
        for section in sections.into_iter().filter(Section::is_current) {
            let by_this = if pid == Pid::PAT {
                self.take_pat_section(section)
            } else {
                self.take_pmt(pid, section)
            };
            change = change.max(by_this);
        }
        change
    }

    /// What to place in front of a joiner: the packets of the last complete PAT, then those of the last
    /// complete PMT of each programme. `None` until there is a PAT and at least one PMT.
    #[must_use]
    pub fn prefix(&self) -> Option<Vec<u8>> {
        let mut prefix = Vec::new();
        append_in_order(&mut prefix, self.pat.iter().flat_map(Section::packets));
        let pat_bytes = prefix.len();
        for (pid, _) in &self.pmt_assemblers {
            let maps = self
                .programmes
                .iter()
                .filter(|programme| programme.pmt_pid == *pid);
            let sections = maps.filter_map(|programme| Some(&programme.map.as_ref()?.1));
            append_in_order(&mut prefix, sections.flat_map(Section::packets));
        }
        (prefix.len() > pat_bytes).then_some(prefix)
    }

    /// The programmes of the last complete PAT, in its order.
    #[must_use]
    pub fn programmes(&self) -> &[Programme] {
        &self.programmes
    }

    fn take_pat_section(&mut self, section: Section) -> PsiChange {
        let index = usize::from(section.number());
        let count = usize::from(section.last_number()) + 1;
        if index >= count || count > MAX_PAT_SECTIONS {
            return PsiChange::Nothing;
        }
        if self.pat.first().is_some_and(|first| same_table(first, &section)) {
            let same = self.pat[index].says_the_same_as(&section);
            self.pat[index] = section;
            if same {
                return PsiChange::Refreshed;
            }
        } else {
            if self
                .next_pat
                .iter()
                .flatten()
                .any(|other| !same_table(other, &section))
            {
                self.next_pat.clear();
            }
            self.next_pat.resize_with(count, || None);
            self.next_pat[index] = Some(section);
            if self.next_pat.iter().any(Option::is_none) {
                return PsiChange::Nothing;
            }
            self.pat = self.next_pat.drain(..).flatten().collect();
        }
        self.follow_pat();
        PsiChange::Changed
    }

    /// Makes the programmes those of the PAT. What is known of a programme stays if its PMT stays where it was.
    fn follow_pat(&mut self) {
        let mut known = std::mem::take(&mut self.programmes);
        let mut assemblers = std::mem::take(&mut self.pmt_assemblers);
        let entries = self
            .pat
            .iter()
            .flat_map(|section| section.body().as_chunks::<4>().0);
        for &[high, low, pid_high, pid_low] in entries {
            let number = u16::from_be_bytes([high, low]);
            let pmt_pid = Pid::from_be_bytes([pid_high, pid_low]);
            // Number 0 names the network information table (clause 2.4.4.5).
            let is_programme = number != 0 && pmt_pid >= FIRST_FREE_PID && pmt_pid != Pid::NULL;
            if !is_programme || self.programmes.iter().any(|other| other.number == number) {
                continue;
            }
            if self.programmes.len() == MAX_PROGRAMMES {
                break;
            }
            let before = known
                .iter()
                .position(|old| old.number == number && old.pmt_pid == pmt_pid);
            let map = before.and_then(|index| known.swap_remove(index).map);
            self.programmes.push(Programme { number, pmt_pid, map });
            if self.pmt_assemblers.iter().all(|(pid, _)| *pid != pmt_pid) {
                let before = assemblers.iter().position(|(pid, _)| *pid == pmt_pid);
                let assembler = before.map_or_else(
                    || Assembler::new(PMT_TABLE),
                    |index| assemblers.swap_remove(index).1,
                );
                self.pmt_assemblers.push((pmt_pid, assembler));
            }
        }
    }

    fn take_pmt(&mut self, pid: Pid, section: Section) -> PsiChange {
        // A PMT is one section (clause 2.4.4.9).
        if section.last_number() != 0 {
            return PsiChange::Nothing;
        }
        let mut programmes = self.programmes.iter_mut();
        let Some(programme) =
            programmes.find(|programme| programme.pmt_pid == pid && programme.number == section.extension())
        else {
            return PsiChange::Nothing;
        };
        if let Some((_, last)) = &mut programme.map
            && last.says_the_same_as(&section)
        {
            *last = section;
            return PsiChange::Refreshed;
        }
        let Some(pmt) = Pmt::parse(section.body()) else {
            return PsiChange::Nothing;
        };
        programme.map = Some((pmt, section));
        PsiChange::Changed
    }
}

/// Two sections are of one table if they agree in what all sections of a table share (clause 2.4.4.5).
fn same_table(one: &Section, other: &Section) -> bool {
    let identity = |section: &Section| (section.extension(), section.version(), section.last_number());
    identity(one) == identity(other)
}

/// Appends packets in the order they came, each once: two sections may share a packet.
fn append_in_order<'a>(prefix: &mut Vec<u8>, packets: impl Iterator<Item = &'a Received>) {
    let mut packets: Vec<_> = packets.collect();
    packets.sort_unstable_by_key(|packet| packet.serial);
    packets.dedup_by_key(|packet| packet.serial);
    prefix.reserve(packets.len() * PACKET_BYTES);
    packets
        .iter()
        .for_each(|packet| prefix.extend_from_slice(&packet.bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{media, packetise, pat, pmt, section};
    use super::super::packet::packets;
    use super::super::pmt::ElementaryStream;
    use super::*;

    const VIDEO: Pid = Pid::new(0x0100);
    const AUDIO: Pid = Pid::new(0x0101);
    const MAP: Pid = Pid::new(0x1000);
    const OTHER_MAP: Pid = Pid::new(0x1001);

    fn observe(cache: &mut PsiCache, stream: &[u8]) -> Vec<PsiChange> {
        packets(stream).map(|packet| cache.observe(&packet)).collect()
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
        assert_eq!(
            observe(&mut cache, &stream)
                .iter()
                .filter(|c| **c == PsiChange::Changed)
                .count(),
            2
        );
        assert_eq!(cache.prefix(), Some(tables));
        let [programme] = cache.programmes() else {
            panic!("one programme")
        };
        assert_eq!((programme.number(), programme.pmt_pid()), (1, MAP));
        let streams = vec![
            ElementaryStream {
                pid: VIDEO,
                stream_type: 0x1B,
            },
            ElementaryStream {
                pid: AUDIO,
                stream_type: 0x0F,
            },
        ];
        assert_eq!(
            programme.pmt(),
            Some(&Pmt {
                pcr_pid: Some(VIDEO),
                streams
            })
        );
    }

    #[test]
    fn a_pat_without_a_pmt_makes_no_prefix() {
        let mut cache = PsiCache::new();
        observe(
            &mut cache,
            &packetise(Pid::PAT, 0, &[pat(0, (0, 0), &[(0, Pid::new(0x10)), (1, MAP)])]),
        );
        assert_eq!(cache.prefix(), None);
        assert_eq!(cache.programmes().len(), 1, "the network PID is no programme");
        assert_eq!(cache.programmes()[0].pmt(), None);
    }

    #[test]
    fn each_repetition_renews_the_packets() {
        let mut cache = PsiCache::new();
        observe(&mut cache, &one_programme(0));
        for counter in 1..40 {
            let again = one_programme(counter);
            assert_eq!(observe(&mut cache, &again), [PsiChange::Refreshed; 2]);
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
        assert!(
            cache
                .programmes()
                .iter()
                .all(|programme| programme.pmt().is_some())
        );
        assert_eq!(cache.programmes()[2].pmt().and_then(|pmt| pmt.pcr_pid), None);
    }

    #[test]
    fn a_pat_of_two_sections_counts_when_both_are_there() {
        let mut cache = PsiCache::new();
        let map = packetise(MAP, 0, &[a_pmt(0, 0)]);
        let first = packetise(Pid::PAT, 0, &[pat(0, (0, 1), &[(1, MAP)])]);
        let second = packetise(Pid::PAT, 1, &[pat(0, (1, 1), &[(2, OTHER_MAP)])]);
        observe(&mut cache, &[&first[..], &map].concat());
        assert!(cache.programmes().is_empty());
        observe(&mut cache, &[&second[..], &map].concat());
        assert_eq!(cache.programmes().len(), 2);
        assert_eq!(cache.prefix(), Some([&first[..], &second, &map].concat()));
        let first_again = packetise(Pid::PAT, 2, &[pat(0, (0, 1), &[(1, MAP)])]);
        observe(&mut cache, &first_again);
        assert_eq!(
            cache.prefix(),
            Some([&second[..], &first_again, &map].concat()),
            "in the order they came"
        );
    }

    #[test]
    fn sections_of_two_pats_make_no_third() {
        let mut cache = PsiCache::new();
        observe(
            &mut cache,
            &packetise(Pid::PAT, 0, &[pat(1, (0, 1), &[(1, MAP)])]),
        );
        observe(
            &mut cache,
            &packetise(Pid::PAT, 1, &[pat(2, (1, 1), &[(2, MAP)])]),
        );
        assert!(cache.programmes().is_empty());
        observe(
            &mut cache,
            &packetise(Pid::PAT, 2, &[pat(2, (0, 1), &[(3, MAP)])]),
        );
        assert_eq!(
            cache
                .programmes()
                .iter()
                .map(Programme::number)
                .collect::<Vec<_>>(),
            [3, 2]
        );
    }

    #[test]
    fn a_pmt_in_parts_is_none() {
        let mut cache = PsiCache::new();
        observe(&mut cache, &one_programme(0));
        let before = cache.prefix();
        let body = [0xE1, 0x00, 0xF0, 0x00];
        let part = packetise(MAP, 1, &[section(PMT_TABLE, 1, 1, (0, 1), &body)]);
        assert_eq!(observe(&mut cache, &part), [PsiChange::Nothing]);
        assert_eq!(cache.prefix(), before);
    }

    #[test]
    fn a_new_pat_forgets_the_programmes_that_it_does_not_name() {
        let mut cache = PsiCache::new();
        observe(&mut cache, &one_programme(0));
        let moved = packetise(Pid::PAT, 1, &[pat(1, (0, 0), &[(1, OTHER_MAP), (2, MAP)])]);
        assert_eq!(observe(&mut cache, &moved), [PsiChange::Changed]);
        assert_eq!(
            cache.prefix(),
            None,
            "the old PMT is no longer where the PAT says"
        );
        let map = packetise(OTHER_MAP, 0, &[a_pmt(0, 0)]);
        observe(&mut cache, &map);
        assert_eq!(cache.prefix(), Some([&moved[..], &map].concat()));

        let grown = packetise(Pid::PAT, 2, &[pat(2, (0, 0), &[(1, OTHER_MAP)])]);
        observe(&mut cache, &grown);
        assert_eq!(
            cache.prefix(),
            Some([&grown[..], &map].concat()),
            "a PMT that stays is kept"
        );
    }

    #[test]
    fn a_new_pmt_replaces_the_old_one_even_with_the_old_version_number() {
        let mut cache = PsiCache::new();
        observe(&mut cache, &one_programme(0));
        for (counter, version) in [(1, 1), (2, 1)] {
            let map = packetise(
                MAP,
                counter,
                &[pmt(1, version, AUDIO, &[(0x0F, AUDIO); 3][..counter], 0)],
            );
            assert_eq!(observe(&mut cache, &map), [PsiChange::Changed]);
            let streams = cache.programmes()[0].pmt().map(|pmt| pmt.streams.len());
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
        let crc = super::super::crc::crc32(&next[..end]);
        next[end..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(
            observe(&mut cache, &packetise(Pid::PAT, 1, &[next])),
            [PsiChange::Nothing]
        );
        assert_eq!(cache.prefix(), before);
    }

    #[test]
    fn a_hostile_pat_is_followed_only_so_far() {
        let mut cache = PsiCache::new();
        let many: Vec<_> = (1..200).map(|number| (number, Pid::new(0x20 + number))).collect();
        observe(&mut cache, &packetise(Pid::PAT, 0, &[pat(0, (0, 0), &many)]));
        assert_eq!(
            (cache.programmes().len(), cache.pmt_assemblers.len()),
            (MAX_PROGRAMMES, MAX_PROGRAMMES)
        );
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
                prop_assert!(cache.programmes().len() <= MAX_PROGRAMMES);
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
}
