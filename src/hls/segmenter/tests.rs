use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::stream::backlog::{Backlog, Bounds};
use crate::stream::ending::Ending;
use crate::stream::marks::Marker;
use crate::ts::packet::{PACKET_BYTES, null_packet};

/// As long and as large as no test needs.
const AMPLE: Bounds = Bounds { bytes: u64::MAX / 4, age: Duration::from_secs(3600) };

/// What an encoder sends.
#[derive(Clone, Copy, Debug)]
struct Encoder {
    /// Pictures from one keyframe to the next; 0 for none at all.
    group: u64,
    /// Ticks from one picture to the next.
    step: u64,
}

/// Pictures in time, into a backlog, and the segmenter that watches it like a player does: now and then.
struct Source {
    backlog: Backlog,
    segmenter: Segmenter,
    arrived: Instant,
    head: u64,
    time: u64,
    pictures: u64,
    is_jump: bool,
    has_times: bool,
    /// Offsets where it jumped.
    jumps: Vec<u64>,
    known: HashMap<u64, (u64, u64, u64)>,
    targets: Vec<u64>,
    last: (u64, u64),
}

/// The number of the first segment.
const FIRST: u64 = 1000;

/// Bytes of a picture, so that offsets tell which it is.
const BYTES: u64 = 10 * PACKET_BYTES as u64;

impl Source {
    fn new(bounds: Bounds, time: u64) -> Self {
        Self {
            backlog: Backlog::new(bounds),
            segmenter: Segmenter::new(FIRST),
            arrived: Instant::now(),
            head: 0,
            time: time % CYCLE,
            pictures: 0,
            is_jump: false,
            has_times: true,
            jumps: Vec::new(),
            known: HashMap::new(),
            targets: Vec::new(),
            last: (0, 0),
        }
    }

    /// A picture of its own time comes, so many times as fast as it plays.
    fn picture(&mut self, encoder: Encoder, speed: u32) {
        let is_key = encoder.group > 0 && self.pictures.is_multiple_of(encoder.group);
        let prefix = Some(Arc::new(Chunk::inserted(self.arrived, &null_packet())));
        let mark = Mark {
            offset: self.head,
            kind: if is_key { StartKind::Keyframe } else { StartKind::Pes },
            prefix,
            arrived: self.arrived,
            time: self.has_times.then_some(self.time),
            is_jump: std::mem::take(&mut self.is_jump),
        };
        if mark.is_jump {
            self.jumps.push(self.head);
        }
        let chunk = Chunk::new(self.head, self.arrived, &vec![0x47; BYTES as usize]);
        self.backlog.push(Arc::new(chunk), [mark]);
        self.head += BYTES;
        self.pictures += 1;
        self.time = (self.time + encoder.step) % CYCLE;
        self.arrived += Duration::from_micros(encoder.step * 100 / 9) / speed;
    }

    fn jump(&mut self, ticks: u64) {
        self.time = (self.time + ticks) % CYCLE;
        self.is_jump = true;
    }

    /// Somebody asks for the list, and holds against it what players do.
    #[track_caller]
    fn look(&mut self, ending: Option<Ending>) {
        let tail = self.head - self.backlog.bytes();
        let marks = self.backlog.marks_from(self.segmenter.wants_from()).cloned().collect();
        self.segmenter.observe(&Outline { marks, tail, head: self.head, ending });
        let target = self.segmenter.target() * SECOND;
        let mut before: Option<&Segment> = None;
        for segment in self.segmenter.listed() {
            let facts = (segment.start, segment.end, segment.ticks);
            assert_eq!(
                *self.known.entry(segment.sequence).or_insert(facts),
                facts,
                "a segment never changes"
            );
            assert!(segment.start < segment.end && segment.start >= tail, "{segment:?}");
            assert!((1..=target).contains(&segment.ticks), "{segment:?}, target {target}");
            if let Some(before) = before {
                assert_eq!(segment.sequence, before.sequence + 1);
                assert!(
                    segment.start == before.end || segment.is_discontinuity && segment.start > before.end
                );
            }
            let inside = |jump: &&u64| segment.start < **jump && **jump < segment.end;
            assert_eq!(self.jumps.iter().find(inside), None, "a jump within {segment:?}");
            // Before the first one there is nothing that it could go on from.
            if segment.sequence > FIRST && self.jumps.contains(&segment.start) {
                assert!(segment.is_discontinuity, "{segment:?}");
            }
            before = Some(segment);
        }
        let now = (self.segmenter.first_sequence(), self.segmenter.discontinuities());
        assert!(now.0 >= self.last.0 && now.1 >= self.last.1, "{now:?} after {:?}", self.last);
        self.last = now;
        if self.segmenter.listed().len() > 0 {
            self.targets.push(self.segmenter.target());
            assert_eq!(self.targets.first(), self.targets.last(), "the target never changes");
        }
    }

    /// So many seconds come, looked at every second.
    #[track_caller]
    fn play(&mut self, seconds: u64, encoder: Encoder, speed: u32) {
        for number in 0..seconds * SECOND / encoder.step {
            self.picture(encoder, speed);
            if number % (SECOND / encoder.step) == 0 {
                self.look(None);
            }
        }
        self.look(None);
    }

    fn lengths(&self) -> Vec<f64> {
        self.segmenter.listed().map(|segment| segment.ticks as f64 / SECOND as f64).collect()
    }

    fn total(&self) -> u64 {
        self.segmenter.listed().map(|segment| segment.ticks).sum()
    }
}

const fn with_group(group: u64) -> Encoder {
    Encoder { group, step: 3600 }
}

#[test]
fn groups_of_pictures_decide_the_lengths_and_every_segment_begins_with_a_keyframe() {
    for (seconds, length, target) in [(1, 3.0, 6), (2, 4.0, 6), (4, 4.0, 6), (5, 5.0, 6), (6, 6.0, 6)] {
        // The times begin anew on the way.
        let mut source = Source::new(AMPLE, CYCLE - 20 * SECOND);
        source.play(60, with_group(25 * seconds), 1);
        assert_eq!(source.segmenter.target(), target);
        assert!(source.lengths().iter().all(|each| *each == length), "{seconds}: {:?}", source.lengths());
        for segment in source.segmenter.listed() {
            assert_eq!(segment.start / BYTES % (25 * seconds), 0, "a keyframe");
            assert!(!segment.is_discontinuity);
        }
        assert!(source.total() >= 3 * target * SECOND);
    }
}

#[test]
fn three_segments_of_a_young_stream_are_there_soon() {
    for (group, within) in [(25, 4), (50, 7), (100, 7), (150, 7), (250, 7), (0, 9)] {
        let mut source = Source::new(AMPLE, 0);
        source.play(within, with_group(group), 1);
        assert!(source.segmenter.listed().len() >= 3, "{group}: {:?}", source.lengths());
        assert_eq!(source.segmenter.target(), 6, "short as they are");
    }
}

#[test]
fn long_groups_are_cut_within_or_at_a_longer_target_where_they_are_known() {
    let mut cold = Source::new(AMPLE, 0);
    cold.play(60, with_group(250), 1);
    assert_eq!(cold.segmenter.target(), 6);
    assert!(cold.lengths().iter().all(|length| (3.0..=6.0).contains(length)), "{:?}", cold.lengths());

    let mut known = Source::new(AMPLE, 0);
    for _ in 0..25 * 12 {
        known.picture(with_group(250), 1);
    }
    known.look(None);
    // Within the first group already, for players that want three.
    assert_eq!((known.segmenter.target(), known.lengths()), (10, vec![3.12; 3]));
    known.play(60, with_group(250), 1);
    assert!(known.lengths().iter().all(|length| *length == 10.0), "{:?}", known.lengths());
    assert!(known.total() >= 30 * SECOND);
}

#[test]
fn a_burst_is_cut_like_what_comes_in_time() {
    for group in [0, 50, 250] {
        let mut source = Source::new(AMPLE, 0);
        source.play(40, with_group(group), 1000);
        let lengths = source.lengths();
        assert!(lengths.iter().all(|length| (3.0..=6.0).contains(length)), "{group}: {lengths:?}");
    }
}

#[test]
fn without_keyframes_it_begins_after_a_while_and_cuts_by_time() {
    let mut source = Source::new(AMPLE, 0);
    for _ in 0..25 {
        source.picture(with_group(0), 1);
    }
    source.look(None);
    assert_eq!(source.segmenter.listed().len(), 0);
    source.play(40, with_group(0), 1);
    assert!(source.lengths().iter().all(|length| (5.0..=6.0).contains(length)), "{:?}", source.lengths());
}

#[test]
fn what_carries_no_time_is_cut_by_arrival() {
    let mut source = Source::new(AMPLE, 0);
    source.has_times = false;
    source.play(40, with_group(50), 1);
    let lengths = source.lengths();
    assert!(lengths.iter().all(|length| (3.9..=4.1).contains(length)), "{lengths:?}");
}

#[test]
fn radio_is_cut_at_its_sound() {
    // Every packet of sound is a place to begin at.
    let mut source = Source::new(AMPLE, CYCLE - 1);
    source.play(40, Encoder { group: 1, step: 17_280 }, 1);
    let lengths = source.lengths();
    assert!(lengths.iter().all(|length| (3.0..=3.2).contains(length)), "{lengths:?}");
}

#[test]
fn a_jump_is_cut_out_at_once_and_counted_when_it_leaves_the_list() {
    let mut source = Source::new(AMPLE, 0);
    source.play(13, with_group(50), 1);
    for ticks in [CYCLE - 100 * SECOND, 3600 * SECOND] {
        source.jump(ticks);
        source.play(5, with_group(50), 1);
    }
    let marked = source.segmenter.listed().filter(|segment| segment.is_discontinuity).count();
    assert_eq!((marked, source.segmenter.discontinuities()), (2, 0));
    source.play(60, with_group(50), 1);
    assert_eq!(source.segmenter.discontinuities(), 2);
}

#[test]
fn jumps_that_come_in_one_burst_are_cut_out_each() {
    let mut source = Source::new(AMPLE, 0);
    source.has_times = false;
    source.play(5, with_group(25), 1);
    for _ in 0..3 {
        source.jump(100 * SECOND);
        source.play(1, with_group(0), 4);
    }
    source.play(5, with_group(25), 1);
    assert_eq!(source.jumps.len(), 3);
    assert_eq!(source.segmenter.listed().filter(|segment| segment.is_discontinuity).count(), 3);
}

#[test]
fn a_stream_that_jumps_all_the_time_has_a_list_with_an_end() {
    let mut source = Source::new(AMPLE, 0);
    for _ in 0..500 {
        source.jump(SECOND * 100);
        source.picture(with_group(1), 1);
        // Of jumps that follow each other at once the backlog remembers some.
        source.jumps.clear();
        source.look(None);
    }
    assert!(source.segmenter.listed().len() <= MAX_SEGMENTS);
}

#[test]
fn what_nobody_asked_for_in_time_is_a_hole() {
    let mut source = Source::new(Bounds { bytes: 20 * 25 * BYTES, age: AMPLE.age }, 0);
    source.play(30, with_group(50), 1);
    let next = source.segmenter.next_sequence();
    for _ in 0..100 * 25 {
        source.picture(with_group(50), 1);
    }
    source.look(None);
    let first = source.segmenter.listed().next().expect("what is there is listed at once");
    assert!(first.is_discontinuity && first.sequence == next, "{first:?}");
    assert!(source.total() >= 12 * SECOND);
}

#[test]
fn what_memory_took_is_not_listed() {
    let mut source = Source::new(AMPLE, 0);
    source.play(60, with_group(50), 1);
    let before = source.segmenter.listed().len();
    source.backlog.give_up(source.backlog.bytes() - 10 * 25 * BYTES);
    source.look(None);
    assert!((1..before).contains(&source.segmenter.listed().len()));
    let gone = source.segmenter.first_sequence() - 1;
    assert!(source.segmenter.segment(gone).is_none());
}

#[test]
fn a_segment_stays_for_a_while_when_it_leaves_the_list() {
    let mut source = Source::new(AMPLE, 0);
    source.play(60, with_group(50), 1);
    let gone = source.segmenter.first_sequence() - 1;
    assert!(source.segmenter.segment(gone).is_some());
    assert!(source.segmenter.segment(source.segmenter.next_sequence()).is_none());
}

#[test]
fn the_end_closes_the_last_segment_and_nothing_comes_behind_it() {
    let mut source = Source::new(AMPLE, 0);
    source.play(21, with_group(50), 1);
    source.look(Some(Ending::Complete));
    assert!(source.segmenter.is_ended());
    assert_eq!(source.segmenter.listed().last().map(|segment| segment.end), Some(source.head));
    // All that was ever listed.
    let total = source.known.values().map(|(_, _, ticks)| ticks).sum::<u64>() as f64 / SECOND as f64;
    assert!((20.9..=21.1).contains(&total), "{total}");
    let next = source.segmenter.next_sequence();
    source.look(Some(Ending::Complete));
    assert_eq!(source.segmenter.next_sequence(), next);
}

#[test]
fn a_stream_that_ends_before_it_began_is_an_empty_list_with_an_end() {
    let mut segmenter = Segmenter::new(1);
    segmenter.observe(&Outline { ending: Some(Ending::Complete), ..Outline::default() });
    assert!(segmenter.is_ended() && segmenter.listed().len() == 0);
}

/// 25 pictures a second, a keyframe each second, eight seconds.
const CLIP: &[u8] = include_bytes!("../../sim/clip.ts");

fn packets_of(segments: &Segmenter, stream: &[u8]) -> Vec<Vec<u8>> {
    let bytes = |segment: &Segment| stream[segment.start as usize..segment.end as usize].to_vec();
    segments.listed().map(bytes).collect()
}

/// The segments of this stream, which ends.
fn cut(stream: &[u8]) -> Segmenter {
    let (mut marker, mut marks) = (Marker::new(), Vec::new());
    marker.observe(stream, Instant::now(), &mut marks);
    marks.reverse();
    marks.dedup_by_key(|mark| mark.offset);
    marks.reverse();
    let head = stream.len() as u64;
    let mut segmenter = Segmenter::new(1);
    segmenter.observe(&Outline { marks, tail: 0, head, ending: Some(Ending::Complete) });
    segmenter
}

#[test]
fn the_segments_of_a_clip_are_the_clip_with_tables_in_front_of_each() {
    let segmenter = cut(CLIP);
    let begin = segmenter.listed().next().expect("a segment").start as usize;
    assert_eq!(packets_of(&segmenter, CLIP).concat(), &CLIP[begin..]);
    let total: u64 = segmenter.listed().map(|segment| segment.ticks).sum();
    assert!((total as f64 / SECOND as f64 - 8.0).abs() < 0.1, "{total}");
    for segment in segmenter.listed() {
        let tables: Vec<_> = packets(&segment.tables).collect();
        assert!(tables.len() >= 2 && tables.iter().all(|packet| packet.has_payload()), "PAT and PMT alone");
        let first = packets(&CLIP[segment.start as usize..]).next().expect("a packet");
        assert!(first.starts_unit() && first.random_access());
    }
}

#[test]
fn other_pids_and_a_time_that_begins_anew_are_discontinuities_that_announce_their_counters() {
    let moved: Vec<u8> = packets(CLIP).flat_map(|packet| moved(packet.bytes())).collect();
    for second in [CLIP, &moved] {
        let stream = [CLIP, second].concat();
        let segmenter = cut(&stream);
        let marked: Vec<_> = segmenter.listed().filter(|segment| segment.is_discontinuity).collect();
        let [segment] = marked[..] else { panic!("one jump, and not {marked:?}") };
        let off = segment.start as usize - CLIP.len();
        assert!(off < 20 * PACKET_BYTES, "at the first picture of the second, not {off} bytes behind it");
        assert!(packets(&segment.tables).any(|packet| packet.discontinuity()));
    }
}

/// A packet of the clip with its streams on other PIDs, its PMT included.
fn moved(packet: &[u8; PACKET_BYTES]) -> [u8; PACKET_BYTES] {
    let mut packet = *packet;
    let pid = u16::from(packet[1] & 0x1F) << 8 | u16::from(packet[2]);
    if [0x100, 0x101].contains(&pid) {
        packet[2] |= 0x40;
    } else if pid != 0 && packet[1] & 0x40 != 0 && packet[5] == 0x02 {
        move_streams(&mut packet);
    }
    packet
}

/// In a PMT (ISO/IEC 13818-1 table 2-33) that fits into its packet.
fn move_streams(packet: &mut [u8; PACKET_BYTES]) {
    let length = usize::from(packet[6] & 0x0F) << 8 | usize::from(packet[7]);
    let end = 8 + length - 4;
    packet[14] |= 0x40;
    let mut at = 17 + usize::from(packet[16]);
    while at < end {
        packet[at + 2] |= 0x40;
        at += 5 + usize::from(packet[at + 4]);
    }
    let mut crc = 0xFFFF_FFFF_u32;
    for byte in &packet[5..end] {
        crc ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            crc = if crc & 0x8000_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x04C1_1DB7 };
        }
    }
    packet[end..end + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Something that happens to a stream.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Pictures(u64, u64, u32),
    Jump(u64),
    /// Pictures that nobody looks at.
    Unseen(u64),
    MemoryTakes(u64),
    Timeless,
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1..40u64, prop_oneof![Just(0u64), 1..300u64], prop_oneof![Just(1u32), Just(4), Just(500)])
            .prop_map(|(seconds, group, speed)| Happening::Pictures(seconds, group, speed)),
        2 => prop_oneof![1..CYCLE, Just(CYCLE - 5 * SECOND), Just(2 * SECOND)].prop_map(Happening::Jump),
        1 => (1..100u64).prop_map(Happening::Unseen),
        1 => (1..30u64).prop_map(Happening::MemoryTakes),
        1 => Just(Happening::Timeless),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_players_find_no_fault(
        time in 0..CYCLE,
        step in prop_oneof![Just(3600u64), Just(1800), Just(3003), Just(7200)],
        all in proptest::collection::vec(happenings(), 1..12),
        ends in any::<bool>(),
    ) {
        let mut source = Source::new(Bounds { bytes: u64::MAX / 4, age: Duration::from_secs(45) }, time);
        for happening in all {
            match happening {
                Happening::Pictures(seconds, group, speed) => source.play(seconds, Encoder { group, step }, speed),
                Happening::Jump(ticks) => source.jump(ticks),
                Happening::Unseen(seconds) => {
                    for _ in 0..seconds * SECOND / step {
                        source.picture(Encoder { group: 50, step }, 1);
                    }
                    source.look(None);
                }
                Happening::MemoryTakes(seconds) => {
                    source.backlog.give_up(seconds * SECOND / step * BYTES);
                    source.look(None);
                }
                Happening::Timeless => source.has_times = !source.has_times,
            }
        }
        if ends {
            source.look(Some(Ending::Broken));
            prop_assert!(source.segmenter.is_ended());
        }
    }
}
