//! Joins a new source to what the clients were sent of the old one.
//!
//! A decoder goes on without complaint if the new source begins at a keyframe, with its tables in front, and each of its
//! PIDs announces the jump of its counter. What the engine repeats of the time before the loss is left out. Packets in,
//! packets out; it reads no clock.

use std::time::{Duration, Instant};

use crate::ts::clock::pcr_behind;
use crate::ts::continuity::{Continuity, Sighting, indicator_before};
use crate::ts::packet::{Packet, packets};
use crate::ts::psi::PsiCache;
use crate::ts::start::{StartFinder, StartKind};

/// So long a good place to go on is looked for; a picture that needs repair is better than none.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);

/// By then every PID of a stream has shown itself.
const JOIN_TIME: Duration = Duration::from_secs(5);

/// What is kept of a PES that may turn out to be a keyframe; the kind of picture is told within its first packets.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// The seam between two sources.
#[derive(Debug)]
pub(super) struct Splice {
    /// The last clock reference the clients were sent.
    published_pcr: Option<u64>,
    tables: PsiCache,
    phase: SeamPhase,
}

#[derive(Debug)]
enum SeamPhase {
    Searching {
        finder: StartFinder,
        count: u64,
        /// From the last PES start on, with the number of its first packet.
        pending: Vec<u8>,
        pending_from: u64,
        /// The last clock reference, and the one that held at the last PES start.
        pcr: Option<u64>,
        pending_pcr: Option<u64>,
        /// Counted from the first packet: a source may take long to begin.
        give_up_at: Option<Instant>,
    },
    Joining {
        continuity: Continuity,
        until: Instant,
    },
}

impl Splice {
    /// A seam behind what was published up to this clock reference, in 27 MHz ticks.
    #[must_use]
    pub(super) fn new(published_pcr: Option<u64>) -> Self {
        let phase = SeamPhase::Searching {
            finder: StartFinder::new(),
            count: 0,
            pending: Vec::new(),
            pending_from: 0,
            pcr: None,
            pending_pcr: None,
            give_up_at: None,
        };
        Self { published_pcr, tables: PsiCache::new(), phase }
    }

    /// A seam within a source that says itself where it does not go on: it begins a segment there, so nothing is left out.
    /// Until it repeats its tables they are these.
    #[must_use]
    pub(super) fn at_jump(tables: PsiCache, now: Instant) -> Self {
        let phase = SeamPhase::Joining { continuity: Continuity::new(), until: now + JOIN_TIME };
        Self { published_pcr: None, tables, phase }
    }

    /// Takes the next whole packets of the new source; appends what is to be published.
    pub(super) fn push(&mut self, aligned: &[u8], now: Instant, out: &mut Vec<u8>) {
        for packet in packets(aligned) {
            match &mut self.phase {
                SeamPhase::Searching { .. } => self.search(&packet, now, out),
                SeamPhase::Joining { .. } => self.join(&packet, out),
            }
        }
    }

    /// Whether nothing of the new source is published yet.
    #[must_use]
    pub(super) fn is_searching(&self) -> bool {
        matches!(&self.phase, SeamPhase::Searching { .. })
    }

    /// Whether the seam is sewn, so that the source needs no looking after any more.
    #[must_use]
    pub(super) fn is_done(&self, now: Instant) -> bool {
        matches!(&self.phase, SeamPhase::Joining { until, .. } if now >= *until)
    }

    fn search(&mut self, packet: &Packet<'_>, now: Instant, out: &mut Vec<u8>) {
        let SeamPhase::Searching { finder, count, pending, pending_from, pcr, pending_pcr, give_up_at } =
            &mut self.phase
        else {
            return;
        };
        let give_up_at = *give_up_at.get_or_insert(now + SEARCH_LIMIT);
        *pcr = packet.pcr().or(*pcr);
        let start = finder.observe(*count, packet, &self.tables);
        self.tables.observe(packet);
        if start.is_some_and(|start| start.packet == *count) || pending.len() >= MAX_PENDING_BYTES {
            pending.clear();
            *pending_from = *count;
            *pending_pcr = *pcr;
        }
        pending.extend_from_slice(packet.bytes());
        *count += 1;
        let is_keyframe =
            start.is_some_and(|start| start.kind == StartKind::Keyframe && start.packet == *pending_from);
        let is_repeated = match (self.published_pcr, *pending_pcr) {
            (Some(published), Some(new)) => pcr_behind(published, new).is_some(),
            _ => false,
        };
        // Before there are tables, nobody can say whose keyframe it is.
        let tables = if is_keyframe && !is_repeated { self.tables.prefix() } else { None };
        if tables.is_some() || now >= give_up_at {
            let pending = std::mem::take(pending);
            out.extend(tables.or_else(|| self.tables.prefix()).unwrap_or_default());
            self.phase = SeamPhase::Joining { continuity: Continuity::new(), until: now + JOIN_TIME };
            for packet in packets(&pending) {
                self.join(&packet, out);
            }
        }
    }

    fn join(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        let SeamPhase::Joining { continuity, .. } = &mut self.phase else {
            return;
        };
        self.tables.observe(packet);
        if continuity.observe(packet, &self.tables) == Sighting::First {
            out.extend_from_slice(&indicator_before(packet));
        }
        out.extend_from_slice(packet.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ts::packet::{PACKET_BYTES, Pid};

    /// 25 pictures a second, a keyframe each second, eight seconds.
    const CLIP: &[u8] = include_bytes!("../sim/clip.ts");

    fn pcr_of(bytes: &[u8]) -> Option<u64> {
        packets(bytes).find_map(|packet| packet.pcr())
    }

    /// What comes out of a clip that begins at this packet, after a loss at this clock reference.
    fn spliced(from_packet: usize, published_pcr: Option<u64>) -> Vec<u8> {
        let now = Instant::now();
        let mut splice = Splice::new(published_pcr);
        let mut out = Vec::new();
        for part in CLIP[from_packet * PACKET_BYTES..].chunks(7 * PACKET_BYTES) {
            splice.push(part, now, &mut out);
        }
        out
    }

    #[test]
    fn it_goes_on_at_a_keyframe_behind_tables_and_announcements() {
        let out = spliced(400, None);
        let mut packets = packets(&out);
        let first = packets.next().expect("packets");
        assert_eq!(first.pid(), Pid::PAT);
        let mut announced = Vec::new();
        let mut counters = std::collections::HashMap::new();
        let mut is_keyframe = None;
        for packet in packets {
            if packet.discontinuity() && !packet.has_payload() {
                announced.push(packet.pid());
                counters.insert(packet.pid(), packet.continuity());
            } else if packet.has_payload() && announced.contains(&packet.pid()) {
                is_keyframe.get_or_insert_with(|| packet.random_access());
                let expected = (counters[&packet.pid()] + 1) % 16;
                assert_eq!(packet.continuity(), expected, "{}", packet.pid());
                counters.insert(packet.pid(), packet.continuity());
            }
        }
        assert_eq!(announced.len(), 2, "video and sound, each once: {announced:?}");
        assert_eq!(is_keyframe, Some(true));
        // Nothing behind the first keyframe is lost: what was added are the tables and two announcements.
        assert!(CLIP.ends_with(&out[out.len() - 100 * PACKET_BYTES..]));
    }

    #[test]
    fn what_was_published_before_is_left_out() {
        let at_4_s = CLIP.len() / 2 / PACKET_BYTES * PACKET_BYTES;
        let published = pcr_of(&CLIP[at_4_s..]);
        let (all, rest) = (spliced(0, None), spliced(0, published));
        let begins_at = pcr_of(&rest).expect("a clock");
        let behind = pcr_behind(begins_at, published.expect("a clock")).expect("the rest begins behind it");
        assert!(behind <= Duration::from_millis(1100), "{behind:?}: at the next keyframe");
        assert!(rest.len() < all.len() * 6 / 10);
    }

    #[test]
    fn at_a_jump_nothing_is_left_out_and_everything_is_announced() {
        let now = Instant::now();
        let mut tables = PsiCache::new();
        for packet in packets(CLIP).take(20) {
            tables.observe(&packet);
        }
        // In the midst of a picture.
        let rest = &CLIP[405 * PACKET_BYTES..];
        let mut out = Vec::new();
        Splice::at_jump(tables, now).push(rest, now, &mut out);
        let is_announcement = |packet: &Packet<'_>| packet.discontinuity() && !packet.has_payload();
        let kept: Vec<u8> =
            packets(&out).filter(|packet| !is_announcement(packet)).fold(Vec::new(), |mut all, packet| {
                all.extend_from_slice(packet.bytes());
                all
            });
        assert_eq!(kept, rest);
        let announced: Vec<_> = packets(&out).filter(is_announcement).map(|packet| packet.pid()).collect();
        assert_eq!(announced.len(), 2, "video and sound, each once: {announced:?}");
        let first =
            packets(rest).find(|packet| announced.contains(&packet.pid())).expect("a packet of the video");
        assert_eq!(packets(&out).find(is_announcement).expect("one").pid(), first.pid());
    }

    #[test]
    fn a_source_that_takes_long_to_begin_is_still_begun_at_a_keyframe() {
        let now = Instant::now();
        let mut splice = Splice::new(None);
        let mut out = Vec::new();
        splice.push(&CLIP[400 * PACKET_BYTES..407 * PACKET_BYTES], now + 4 * SEARCH_LIMIT, &mut out);
        assert!(out.is_empty(), "the search has just begun");
    }

    #[test]
    fn a_keyframe_that_may_have_been_published_is_not_begun_again() {
        let video = packets(CLIP).find(|packet| packet.pcr().is_some()).expect("a clock").pid();
        let is_keyframe =
            |packet: &Packet<'_>| packet.pid() == video && packet.starts_unit() && packet.random_access();
        let keyframes = packets(CLIP).enumerate().filter(|(_, packet)| is_keyframe(packet));
        let keyframes: Vec<usize> = keyframes.map(|(at, _)| at * PACKET_BYTES).collect();
        let (before, third, fourth) = (&CLIP[..keyframes[2]], keyframes[2], keyframes[3]);
        // Its clock comes behind it: the source may have been lost in between.
        let mut source = CLIP.to_vec();
        source[third + 5] &= !0x10;
        let published = packets(before).filter_map(|packet| packet.pcr()).last();
        let mut out = Vec::new();
        Splice::new(published).push(&source, Instant::now(), &mut out);
        let first = packets(&out).find(is_keyframe).expect("a keyframe");
        assert_eq!(first.bytes(), &CLIP[fourth..fourth + PACKET_BYTES]);
    }

    #[test]
    fn a_source_without_a_keyframe_is_taken_as_it_is_in_the_end() {
        let now = Instant::now();
        let mut splice = Splice::new(None);
        let mut packet = [0xff; PACKET_BYTES];
        packet[..4].copy_from_slice(&[0x47, 0x01, 0x00, 0x10]);
        let mut out = Vec::new();
        splice.push(&packet, now, &mut out);
        assert!(out.is_empty());
        splice.push(&packet, now + SEARCH_LIMIT, &mut out);
        assert_eq!(out, [packet, packet].concat());
        assert!(!splice.is_done(now + SEARCH_LIMIT));
        assert!(splice.is_done(now + SEARCH_LIMIT + JOIN_TIME));
    }
}
