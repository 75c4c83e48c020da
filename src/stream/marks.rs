//! Where in a stream a client may begin, found while its packets pass.
//!
//! A mark names the packet that starts a PES, mostly one with a keyframe, and holds what has to be sent in front of it:
//! PAT and PMT of that moment, and for every elementary PID a packet that announces the jump and carries that PID's last
//! continuity counter, so that the next packet fits; of a picture that does not repeat them its parameter sets. It knows packets; it knows no clients and reads no clock.

use std::sync::Arc;
use std::time::Instant;

use crate::ts::continuity::Continuity;
use crate::ts::follow::ClockFollower;
use crate::ts::kept_sets::KeptSets;
use crate::ts::media::{Media, MediaReader};
use crate::ts::packet::{PACKET_BYTES, Packet, Pid, packets};
use crate::ts::pes::decoding_time;
use crate::ts::psi::PsiCache;
use crate::ts::start::{Start, StartFinder, StartKind};

use super::chunk::Chunk;
use super::published::{Print, Published};
use super::timeline::Timeline;

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
    /// When what begins there is to be decoded, by the stream's own time: the DTS of the PES, else its PTS, as it stands
    /// there, so 33 bits of 90 kHz that begin anew after 26.5 hours. `None` if the PES carries neither, or is scrambled.
    pub time: Option<u64>,
    /// Between the mark before and this one the stream jumped: in time, to another source, or to other elementary streams.
    pub is_jump: bool,
}

/// What there is in packets beside tables and null packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Picture, sound or text.
    pub media: bool,
    /// Picture, of whichever programme. `None` if the tables list none: radio.
    pub picture: Option<bool>,
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
    clock: ClockFollower,
    timeline: Timeline,
    published: Published,
    sets: KeptSets,
    reader: MediaReader,
    media: Option<Arc<Media>>,
}

impl Marker {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next whole packets of the stream. Appends what it finds; a mark that comes again at the same offset
    /// replaces the first. Tells what else there is in them.
    pub fn observe(&mut self, aligned: &[u8], arrived: Instant, found: &mut Vec<Mark>) -> Seen {
        let mut seen = Seen::default();
        for packet in packets(aligned) {
            // First, since the packet that starts a PES may say that its time is another one.
            if let Some(step) = self.clock.observe(&packet, &self.tables) {
                self.timeline.see_clock(step);
                self.published.record_clock(self.clock.last(), step);
            }
            self.sets.observe(&packet, &self.tables);
            if let Some(start) = self.finder.observe(self.count, &packet, &self.tables) {
                found.push(self.mark(start, &packet, arrived));
            }
            self.tables.observe(&packet);
            self.reader.observe(&packet, &self.tables);
            self.continuity.observe(&packet, &self.tables);
            if packet.has_payload() {
                seen.media = seen.media || self.tables.is_media(packet.pid());
                if seen.picture != Some(true) && self.tables.is_video(packet.pid()) {
                    seen.picture = Some(true);
                }
            }
            self.count += 1;
        }
        seen.picture = seen.picture.or_else(|| self.tables.has_video().then_some(false));
        seen
    }

    /// What the stream consists of, if it is not what it was when this was asked last.
    pub(super) fn news_of_media(&mut self) -> Option<Arc<Media>> {
        let media = Arc::new(self.reader.changed(&self.tables, self.media.as_deref())?);
        self.media = Some(Arc::clone(&media));
        Some(media)
    }

    /// All that was looked at, of whichever source.
    #[must_use]
    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// The tables as they are now.
    #[must_use]
    pub fn tables(&self) -> &PsiCache {
        &self.tables
    }

    /// The source was lost: what comes next does not go on where the last packet ended, and may be of other PIDs. What was
    /// published stays published.
    pub fn break_off(&mut self) {
        self.finder.clear();
        self.continuity.clear();
        self.clock.clear();
        self.timeline.see_seam();
        self.last = None;
    }

    /// The mark of a start that this packet made known.
    fn mark(&mut self, start: Start, packet: &Packet<'_>, arrived: Instant) -> Mark {
        let offset = start.packet * PACKET_BYTES as u64;
        let is_this = start.packet == self.count;
        if is_this {
            self.published.record(Print::of(packet));
        }
        let known = self.last.take().filter(|last| last.offset == offset);
        let mut mark = known.unwrap_or_else(|| {
            let time = if is_this { decoding_time(packet) } else { None };
            let is_jump = self.timeline.jumps_at(time, &self.tables);
            let prefix = self.prefix(packet.pid(), arrived);
            Mark { offset, kind: StartKind::Pes, prefix, arrived, time, is_jump }
        });
        // Before there are tables, nobody can say whose keyframe it is.
        if let Some(prefix) = &mark.prefix {
            if start.kind == StartKind::Keyframe && mark.kind != StartKind::Keyframe {
                mark.prefix = Some(self.with_sets(prefix, packet.pid()));
            }
            mark.kind = start.kind;
        }
        self.published.record_place(mark.kind, mark.prefix.is_some());
        self.last = Some(mark.clone());
        mark
    }

    /// What makes the packets that come next a good beginning.
    fn prefix(&self, pid: Pid, arrived: Instant) -> Option<Arc<Chunk>> {
        let mut bytes = self.tables.prefix()?;
        bytes.extend(self.continuity.indicators());
        self.sets.append_anywhere(pid, &mut bytes);
        Some(Arc::new(Chunk::inserted(arrived, &bytes)))
    }

    /// The same in front of what has turned out to be a keyframe: with the parameter sets, unless it brought its own.
    fn with_sets(&self, prefix: &Arc<Chunk>, pid: Pid) -> Arc<Chunk> {
        let mut bytes = prefix.packets().to_vec();
        let has_them = packets(&bytes).any(|packet| packet.pid() == pid && packet.has_payload());
        if !has_them && self.sets.append_at_keyframe(pid, &mut bytes) {
            return Arc::new(Chunk::inserted(prefix.arrived, &bytes));
        }
        Arc::clone(prefix)
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

    /// Offset and jump of each mark, a mark once.
    fn jumps_of(marks: &[Mark]) -> Vec<u64> {
        let mut jumps: Vec<_> = marks.iter().filter(|mark| mark.is_jump).map(|mark| mark.offset).collect();
        jumps.dedup();
        jumps
    }

    #[test]
    fn where_parameter_sets_came_once_they_go_in_front_and_the_counters_run_on() {
        let mut once = CLIP.to_vec();
        for packet in once.as_chunks_mut::<PACKET_BYTES>().0.iter_mut().skip(300) {
            for at in 4..PACKET_BYTES - 3 {
                // Filler in the place of both.
                if packet[at..at + 3] == [0, 0, 1] && matches!(packet[at + 3], 0x67 | 0x68) {
                    packet[at + 3] = 0x6C;
                }
            }
        }
        let shows_set = |bytes: &[u8]| bytes.windows(4).any(|four| four == [0, 0, 1, 0x67]);
        for (stream, is_once) in [(CLIP, false), (&once[..], true)] {
            let mut marks = marks_of(stream);
            marks.retain(|mark| mark.kind == StartKind::Keyframe);
            marks.dedup_by_key(|mark| mark.offset);
            for mark in &marks {
                let prefix = mark.prefix.as_ref().expect("tables").packets();
                let at = mark.offset as usize;
                let needs = is_once && at >= 300 * PACKET_BYTES;
                assert_eq!(shows_set(prefix), needs, "at {at}");
                let mut last = std::collections::HashMap::new();
                let follows = &stream[at..stream.len().min(at + 200 * PACKET_BYTES)];
                for packet in packets(prefix).chain(packets(follows)) {
                    let before = last.insert(packet.pid(), packet.continuity());
                    if let Some(before) = before.filter(|_| !packet.discontinuity()) {
                        let step = u8::from(packet.has_payload());
                        assert_eq!(packet.continuity(), (before + step) % 16, "{} at {at}", packet.pid());
                    }
                }
            }
        }
    }

    #[test]
    fn marks_carry_the_stream_s_own_time() {
        let mut marks = marks_of(CLIP);
        marks.dedup_by_key(|mark| mark.offset);
        let times: Vec<_> = marks.iter().map(|mark| mark.time.expect("each picture has one")).collect();
        let steps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            steps.iter().all(|step| *step == 3600),
            "25 pictures a second, in the order of decoding: {steps:?}"
        );
        assert_eq!((times.len(), jumps_of(&marks)), (200, vec![]));
    }

    #[test]
    fn a_clock_that_begins_anew_is_a_jump_and_so_is_a_seam() {
        let (first, second) = (CLIP.len() as u64, 2 * CLIP.len() as u64);
        let (mut marker, mut marks) = (Marker::new(), Vec::new());
        for round in 0..3 {
            if round == 2 {
                marker.break_off();
            }
            marker.observe(CLIP, Instant::now(), &mut marks);
        }
        let jumps = jumps_of(&marks);
        let begin = marks_of(CLIP)[0].offset;
        assert_eq!(jumps, [first + begin, second + begin], "at the first picture of the new time, once");
    }

    #[test]
    fn tables_and_null_packets_are_no_picture() {
        let (mut marker, mut marks) = (Marker::new(), Vec::new());
        let tables = &CLIP[..3 * PACKET_BYTES];
        assert!(packets(tables).all(|packet| !packet.random_access()));
        let mut seen = |packets: &[u8]| marker.observe(packets, Instant::now(), &mut marks);
        let nothing = Seen { media: false, picture: Some(false) };
        assert_eq!(seen(tables), nothing);
        assert_eq!(seen(&crate::ts::packet::null_packet()), nothing);
        assert_eq!(seen(&CLIP[..20 * PACKET_BYTES]), Seen { media: true, picture: Some(true) });
    }

    #[test]
    fn what_seems_a_keyframe_before_the_tables_is_only_a_start() {
        let marks = marks_of(&CLIP[400 * PACKET_BYTES..]);
        assert!(marks.iter().all(|mark| mark.prefix.is_some() || mark.kind == StartKind::Pes));
        assert!(marks.iter().any(|mark| mark.kind == StartKind::Keyframe));
    }

    #[test]
    fn without_its_picture_the_clip_is_marked_at_its_sound_after_a_while() {
        let video = Pid::new(0x0100);
        let sound: Vec<_> =
            packets(CLIP).filter(|packet| packet.pid() != video).flat_map(|p| *p.bytes()).collect();
        let marks = marks_of(&sound);
        assert!(!marks.is_empty(), "a joiner begins near live, with tables");
        assert!(marks.iter().all(|mark| mark.kind == StartKind::Keyframe && mark.prefix.is_some()));
        let times: Vec<_> = marks.iter().map(|mark| mark.time.expect("sound has one")).collect();
        assert!((360_000..460_000).contains(&(times[times.len() - 1] - times[0])), "5 s of 8: {times:?}");
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
