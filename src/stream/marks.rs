//! Where in a stream a client may begin, found while its packets pass.
//!
//! A mark names the packet that starts a PES, mostly one with a keyframe, and holds what has to be sent in front of it:
//! PAT and PMT of that moment, and for every elementary PID a packet that announces the jump and carries that PID's last
//! continuity counter, so that the next packet fits. It knows packets; it knows no clients and reads no clock.

use std::sync::Arc;
use std::time::Instant;

use crate::ts::continuity::Continuity;
use crate::ts::packet::{PACKET_BYTES, Pid, packets};
use crate::ts::psi::PsiCache;
use crate::ts::start::{Start, StartFinder, StartKind};

use super::chunk::Chunk;

/// A place where a client may begin.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Offset in the stream of the packet that starts the PES.
    pub offset: u64,
    /// What a decoder finds there.
    pub kind: StartKind,
    /// What is sent in front of it.
    pub prefix: Option<Arc<Chunk>>,
    /// When it arrived.
    pub arrived: Instant,
}

/// Finds the marks of one stream.
#[derive(Debug, Default)]
pub struct Marker {
    tables: PsiCache,
    continuity: Continuity,
    finder: StartFinder,
    /// Packets seen.
    count: u64,
    /// The last PES start: it may turn out to be a keyframe only packets later.
    last: Option<Mark>,
    /// The PID whose clock is followed, the first that has one, and its last reference.
    clock: Option<(Pid, u64)>,
}

impl Marker {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next whole packets of the stream. Appends what it finds; a mark that comes again at the same offset
    /// replaces the first. Tells whether there is picture or sound in them, not only tables and null packets.
    pub fn observe(&mut self, aligned: &[u8], arrived: Instant, found: &mut Vec<Mark>) -> bool {
        let mut has_picture = false;
        for packet in packets(aligned) {
            if let Some(start) = self.finder.observe(self.count, &packet, &self.tables) {
                found.push(self.mark(start, arrived));
            }
            self.tables.observe(&packet);
            self.continuity.observe(&packet, &self.tables);
            if let Some(pcr) = packet.pcr()
                && self.clock.is_none_or(|(pid, _)| pid == packet.pid())
            {
                self.clock = Some((packet.pid(), pcr));
            }
            let is_media = packet.has_payload() && packet.pid() != Pid::NULL;
            has_picture |= is_media && !self.tables.is_table(packet.pid());
            self.count += 1;
        }
        has_picture
    }

    /// The last clock reference, in 27 MHz ticks.
    #[must_use]
    pub fn last_pcr(&self) -> Option<u64> {
        self.clock.map(|(_, pcr)| pcr)
    }

    /// The tables as they are now.
    #[must_use]
    pub fn tables(&self) -> &PsiCache {
        &self.tables
    }

    /// The source was lost: what comes next does not go on where the last packet ended, and may be of other PIDs.
    pub fn break_off(&mut self) {
        self.finder.clear();
        self.continuity.clear();
        self.last = None;
        self.clock = None;
    }

    fn mark(&mut self, start: Start, arrived: Instant) -> Mark {
        let offset = start.packet * PACKET_BYTES as u64;
        let known = self.last.take().filter(|last| last.offset == offset);
        let mut mark = known.unwrap_or_else(|| {
            let prefix = self.prefix(arrived);
            Mark { offset, kind: StartKind::Pes, prefix, arrived }
        });
        // Before there are tables, nobody can say whose keyframe it is.
        if mark.prefix.is_some() {
            mark.kind = start.kind;
        }
        self.last = Some(mark.clone());
        mark
    }

    /// What makes the packets that come next a good beginning.
    fn prefix(&self, arrived: Instant) -> Option<Arc<Chunk>> {
        let mut bytes = self.tables.prefix()?;
        bytes.extend(self.continuity.indicators());
        Some(Arc::new(Chunk::inserted(arrived, &bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 25 pictures a second, a keyframe each second, eight seconds.
    const CLIP: &[u8] = include_bytes!("../sim/clip.ts");

    fn marks_of(stream: &[u8]) -> Vec<Mark> {
        let (mut marker, mut marks) = (Marker::new(), Vec::new());
        for part in stream.chunks(11 * PACKET_BYTES) {
            marker.observe(part, Instant::now(), &mut marks);
        }
        marks
    }

    #[test]
    fn every_keyframe_of_the_clip_is_marked_with_tables_in_front() {
        let marks = marks_of(CLIP);
        let mut keyframes: Vec<_> = marks.iter().filter(|mark| mark.kind == StartKind::Keyframe).collect();
        keyframes.dedup_by_key(|mark| mark.offset);
        assert_eq!(keyframes.len(), 8);
        for mark in keyframes {
            let at = mark.offset as usize;
            let packet = packets(&CLIP[at..]).next().expect("a packet");
            assert!(packet.starts_unit() && packet.random_access());
            let prefix = mark.prefix.as_ref().expect("tables");
            assert_eq!(packets(prefix.packets()).next().expect("a packet").pid(), Pid::PAT);
        }
    }

    #[test]
    fn tables_and_null_packets_are_no_picture() {
        let (mut marker, mut marks) = (Marker::new(), Vec::new());
        let tables = &CLIP[..3 * PACKET_BYTES];
        assert!(packets(tables).all(|packet| !packet.random_access()));
        assert!(!marker.observe(tables, Instant::now(), &mut marks));
        assert!(!marker.observe(&crate::ts::packet::null_packet(), Instant::now(), &mut marks));
        assert!(marker.observe(&CLIP[..20 * PACKET_BYTES], Instant::now(), &mut marks));
    }

    #[test]
    fn what_seems_a_keyframe_before_the_tables_is_only_a_start() {
        let marks = marks_of(&CLIP[400 * PACKET_BYTES..]);
        assert!(marks.iter().all(|mark| mark.prefix.is_some() || mark.kind == StartKind::Pes));
        assert!(marks.iter().any(|mark| mark.kind == StartKind::Keyframe));
    }

    #[test]
    fn a_prefix_makes_the_next_packet_of_each_pid_fit() {
        let marks = marks_of(CLIP);
        let keyframe = marks.iter().rfind(|mark| mark.kind == StartKind::Keyframe).expect("a keyframe");
        let prefix = keyframe.prefix.as_ref().expect("tables").packets();
        let indicators: Vec<_> =
            packets(prefix).filter(|packet| packet.discontinuity() && !packet.has_payload()).collect();
        assert_eq!(indicators.len(), 2, "video and sound");
        for indicator in indicators {
            let next = packets(&CLIP[keyframe.offset as usize..])
                .find(|packet| packet.pid() == indicator.pid() && packet.has_payload());
            let next = next.expect("the clip goes on");
            assert_eq!(next.continuity(), (indicator.continuity() + 1) % 16);
        }
    }
}
