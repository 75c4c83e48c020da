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
use super::pmt::{ElementaryStream, Pmt, StreamKind};
use super::section::{Assembler, Received, Section};

/// `table_id` of a `TS_program_association_section` (table 2-31).
const PAT_TABLE: u8 = 0x00;

/// `table_id` of a `TS_program_map_section` (table 2-31).
const PMT_TABLE: u8 = 0x02;

/// PIDs below are reserved for tables with a fixed place (table 2-3), so no PMT has one of them.
const FIRST_FREE_PID: Pid = Pid::new(0x0010);

/// PIDs below are reserved for tables, the standard's (table 2-3) and DVB's (EN 300 468 table 1).
const FIRST_STREAM_PID: Pid = Pid::new(0x0020);

/// Programmes that are followed. A whole satellite multiplex has about 20; an AceStream channel has one.
const MAX_PROGRAMMES: usize = 32;

/// Sections of a PAT that are followed: one programme in each would be the poorest use of them.
const MAX_PAT_SECTIONS: usize = MAX_PROGRAMMES;

/// A programme that the PAT names.
#[derive(Debug, Clone)]
struct Programme {
    /// `program_number`.
    number: u16,
    /// Where its PMT is.
    pmt_pid: Pid,
    /// Its last PMT, `None` until one came whole.
    map: Option<(Pmt, Section)>,
}

/// Keeps the last complete PAT and PMTs of a stream.
#[derive(Debug, Clone)]
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
    pub fn observe(&mut self, packet: &Packet<'_>) {
        let pid = packet.pid();
        let assembler = if pid == Pid::PAT {
            &mut self.pat_assembler
        } else if let Some((_, assembler)) = self.pmt_assemblers.iter_mut().find(|(of, _)| *of == pid) {
            assembler
        } else {
            return;
        };
        self.serial += 1;
        let sections = assembler.push(packet, self.serial);
        for section in sections.into_iter().filter(Section::is_current) {
            if pid == Pid::PAT {
                self.take_pat_section(section);
            } else {
                self.take_pmt(pid, section);
            }
        }
    }

    /// What to place in front of a joiner: the packets of the last complete PAT, then those of the last
    /// complete PMT of each programme. `None` until there is a PAT and at least one PMT.
    #[must_use]
    pub fn prefix(&self) -> Option<Vec<u8>> {
        let mut prefix = Vec::new();
        append_in_order(&mut prefix, self.pat.iter().flat_map(Section::packets));
        let pat_bytes = prefix.len();
        for (pid, _) in &self.pmt_assemblers {
            let maps = self.programmes.iter().filter(|programme| programme.pmt_pid == *pid);
            let sections = maps.filter_map(|programme| Some(&programme.map.as_ref()?.1));
            append_in_order(&mut prefix, sections.flat_map(Section::packets));
        }
        (prefix.len() > pat_bytes).then_some(prefix)
    }

    /// Whether this PID carries tables, not streams: it is a PMT's, or it is reserved for tables with a fixed place, of the
    /// standard or of DVB. What a PMT lists as a stream is one wherever it is: not every multiplexer keeps off those PIDs.
    #[must_use]
    pub fn is_table(&self, pid: Pid) -> bool {
        let is_reserved = pid < FIRST_STREAM_PID && (pid == Pid::PAT || !self.lists(pid));
        is_reserved || self.programmes.iter().any(|programme| programme.pmt_pid == pid)
    }

    /// Whether this PID carries picture, sound or what else comes in PES packets: a PMT lists it. While not all PMTs are
    /// known, every PID may that carries no tables.
    #[must_use]
    pub fn is_media(&self, pid: Pid) -> bool {
        if pid == Pid::NULL || self.is_table(pid) {
            return false;
        }
        let are_all_known =
            !self.programmes.is_empty() && self.programmes.iter().all(|known| known.map.is_some());
        !are_all_known || self.lists(pid)
    }

    /// Whether a PMT lists video on this PID.
    #[must_use]
    pub fn is_video(&self, pid: Pid) -> bool {
        self.streams().any(|stream| stream.pid == pid && stream.kind().is_video())
    }

    /// Whether a PMT lists any video.
    #[must_use]
    pub fn has_video(&self) -> bool {
        self.streams().any(|stream| stream.kind().is_video())
    }

    fn lists(&self, pid: Pid) -> bool {
        self.streams().any(|stream| stream.pid == pid && stream.kind() != StreamKind::Sections)
    }

    /// The elementary streams of all programmes whose PMT is known, in the order of the tables.
    pub fn streams(&self) -> impl Iterator<Item = &ElementaryStream> {
        self.programmes
            .iter()
            .filter_map(|programme| programme.map.as_ref())
            .flat_map(|(pmt, _)| &pmt.streams)
    }

    /// The PID of the clock that a stream is measured by: that of the first programme with video, else of the first that
    /// names one. `None` while no PMT does.
    #[must_use]
    pub fn clock_pid(&self) -> Option<Pid> {
        let maps = || self.programmes.iter().filter_map(|programme| Some(&programme.map.as_ref()?.0));
        let has_video =
            |pmt: &&Pmt| pmt.pcr_pid.is_some() && pmt.streams.iter().any(|stream| stream.kind().is_video());
        let first_with_video = maps().find(has_video).and_then(|pmt| pmt.pcr_pid);
        first_with_video.or_else(|| maps().find_map(|pmt| pmt.pcr_pid))
    }

    fn take_pat_section(&mut self, section: Section) {
        let index = usize::from(section.number());
        let count = usize::from(section.last_number()) + 1;
        if index >= count || count > MAX_PAT_SECTIONS {
            return;
        }
        if self.pat.first().is_some_and(|first| same_table(first, &section)) {
            let same = self.pat[index].says_the_same_as(&section);
            self.pat[index] = section;
            if same {
                return;
            }
        } else {
            if self.next_pat.iter().flatten().any(|other| !same_table(other, &section)) {
                self.next_pat.clear();
            }
            self.next_pat.resize_with(count, || None);
            self.next_pat[index] = Some(section);
            if self.next_pat.iter().any(Option::is_none) {
                return;
            }
            self.pat = self.next_pat.drain(..).flatten().collect();
        }
        self.follow_pat();
    }

    /// Makes the programmes those of the PAT. What is known of a programme stays if its PMT stays where it was.
    fn follow_pat(&mut self) {
        let mut known = std::mem::take(&mut self.programmes);
        let mut assemblers = std::mem::take(&mut self.pmt_assemblers);
        let entries = self.pat.iter().flat_map(|section| section.body().as_chunks::<4>().0);
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
            let before = known.iter().position(|old| old.number == number && old.pmt_pid == pmt_pid);
            let map = before.and_then(|index| known.swap_remove(index).map);
            self.programmes.push(Programme { number, pmt_pid, map });
            if self.pmt_assemblers.iter().all(|(pid, _)| *pid != pmt_pid) {
                let before = assemblers.iter().position(|(pid, _)| *pid == pmt_pid);
                let assembler =
                    before.map_or_else(|| Assembler::new(PMT_TABLE), |index| assemblers.swap_remove(index).1);
                self.pmt_assemblers.push((pmt_pid, assembler));
            }
        }
    }

    fn take_pmt(&mut self, pid: Pid, section: Section) {
        // A PMT is one section (clause 2.4.4.9).
        if section.last_number() != 0 {
            return;
        }
        let mut programmes = self.programmes.iter_mut();
        let Some(programme) =
            programmes.find(|programme| programme.pmt_pid == pid && programme.number == section.extension())
        else {
            return;
        };
        if let Some((_, last)) = &mut programme.map
            && last.says_the_same_as(&section)
        {
            *last = section;
            return;
        }
        let Some(pmt) = Pmt::parse(section.body()) else {
            return;
        };
        programme.map = Some((pmt, section));
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
    packets.iter().for_each(|packet| prefix.extend_from_slice(&packet.bytes));
}

#[cfg(test)]
mod tests;
