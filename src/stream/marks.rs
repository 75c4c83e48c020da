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
use crate::ts::start::{StartFinder, StartKind};

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
    /// replaces the first.
    pub fn observe(&mut self, aligned: &[u8], arrived: Instant, found: &mut Vec<Mark>) {
        for packet in packets(aligned) {
            if let Some(start) = self.finder.observe(self.count, &packet, &self.tables) {
                let offset = start.packet * PACKET_BYTES as u64;
                match self.last.as_mut().filter(|last| last.offset == offset) {
                    Some(last) => last.kind = start.kind,
                    None => self.last = Some(Mark { offset, kind: start.kind, prefix: self.prefix(arrived), arrived }),
                }
                found.extend(self.last.clone());
            }
            self.tables.observe(&packet);
            self.continuity.observe(&packet, &self.tables);
            if let Some(pcr) = packet.pcr()
                && self.clock.is_none_or(|(pid, _)| pid == packet.pid())
            {
                self.clock = Some((packet.pid(), pcr));
            }
            self.count += 1;
        }
    }

    /// The last clock reference, in 27 MHz ticks.
    #[must_use]
    pub fn last_pcr(&self) -> Option<u64> {
        self.clock.map(|(_, pcr)| pcr)
    }

    /// The source was lost: what comes next does not go on where the last packet ended, and may be of other PIDs.
    pub fn break_off(&mut self) {
        self.finder.clear();
        self.continuity.clear();
        self.last = None;
        self.clock = None;
    }

    /// What makes the packets that come next a good beginning.
    fn prefix(&self, arrived: Instant) -> Option<Arc<Chunk>> {
        let mut bytes = self.tables.prefix()?;
        bytes.extend(self.continuity.indicators());
        // Offsets up to its end are not ahead of the mark, so that sending it is no progress in the stream.
        Some(Arc::new(Chunk::new(0, arrived, &bytes)))
    }
}
