//! What is kept, and where in it a client begins.

use super::*;

const BOUNDS: Bounds = Bounds { bytes: 1000, age: Duration::from_secs(10) };

/// A stream of chunks of 100 bytes, one a second, with marks by the second.
struct Source {
    begin: Instant,
    backlog: Backlog,
}

impl Source {
    fn new(bounds: Bounds) -> Self {
        Self { begin: Instant::now(), backlog: Backlog::new(bounds) }
    }

    fn at(&self, second: u64) -> Instant {
        self.begin + Duration::from_secs(second)
    }

    fn chunk(&self, second: u64) -> Arc<Chunk> {
        Arc::new(Chunk::new(second * 100, self.at(second), &[0; 100]))
    }

    fn mark(&self, offset: u64, kind: StartKind) -> Mark {
        Mark { offset, kind, prefix: None, arrived: self.at(offset / 100), time: None, is_jump: false }
    }

    fn run(mut self, seconds: std::ops::Range<u64>, marks: &[(u64, StartKind)]) -> Self {
        for second in seconds {
            let of_this = |(offset, _): &&(u64, StartKind)| offset / 100 == second;
            let marks: Vec<_> =
                marks.iter().filter(of_this).map(|(offset, kind)| self.mark(*offset, *kind)).collect();
            let _evicted = self.backlog.push(self.chunk(second), marks);
        }
        self
    }

    fn starts(&self) -> Vec<u64> {
        self.backlog.from(0).map(|chunk| chunk.start()).collect()
    }
}

use StartKind::{Keyframe, Pes};

#[test]
fn the_harder_bound_counts() {
    assert_eq!(Source::new(BOUNDS).run(0..5, &[]).starts(), [0, 100, 200, 300, 400]);
    assert_eq!(Source::new(BOUNDS).run(0..30, &[]).starts().len(), 10, "ten chunks are 1000 bytes");
    let short = Bounds { bytes: 1000, age: Duration::from_secs(1) };
    assert_eq!(Source::new(short).run(0..30, &[]).starts(), [2800, 2900]);
}

#[test]
fn a_keyframe_is_kept_up_to_twice_the_bound() {
    let source = |end| Source::new(BOUNDS).run(0..end, &[(350, Keyframe)]);
    assert_eq!(source(13).starts()[0], 300, "not before the keyframe's own chunk");
    assert_eq!(source(23).starts()[0], 300);
    assert_eq!(source(25).starts()[0], 1500, "then the keyframe is gone, and the bound is the usual one");
}

#[test]
fn a_chunk_above_the_bound_is_kept_alone() {
    let mut source = Source::new(BOUNDS).run(0..3, &[]);
    let large = Arc::new(Chunk::new(300, source.at(3), &[0; 5000]));
    assert_eq!(source.backlog.push(large, []).len(), 3);
    assert_eq!(source.starts(), [300]);
}

#[test]
fn what_is_given_up_is_the_oldest_and_never_the_newest() {
    let mut source = Source::new(BOUNDS).run(0..5, &[(150, Keyframe), (350, Pes)]);
    assert_eq!((source.backlog.bytes(), source.backlog.give_up(0).len()), (500, 0));
    assert_eq!(source.backlog.give_up(101).len(), 2, "whole chunks");
    assert_eq!((source.starts(), source.backlog.bytes()), (vec![200, 300, 400], 300));
    assert!(!source.backlog.has_keyframe(), "its mark is gone with it");
    assert_eq!(source.backlog.oldest_place().offset, 350);
    assert_eq!(source.backlog.give_up(u64::MAX).len(), 2);
    assert_eq!((source.starts(), source.backlog.give_up(1).len()), (vec![400], 0));
    let _chunks = source.backlog.take();
    assert_eq!((source.backlog.bytes(), source.backlog.give_up(1).len()), (0, 0));
}

#[test]
fn a_joiner_starts_at_a_keyframe_of_the_right_age() {
    let marks = [(110, Pes), (240, Keyframe), (430, Keyframe), (650, Keyframe), (720, Pes)];
    let source = Source::new(BOUNDS).run(0..8, &marks);
    let place = |behind| source.backlog.place_behind(Duration::from_secs(behind), source.at(8)).offset;
    assert_eq!((place(0), place(2), place(3), place(5), place(60)), (650, 650, 430, 240, 240));
    assert_eq!(source.backlog.oldest_place().offset, 240);
    assert_eq!(source.backlog.keyframe_interval(), Some(Duration::from_secs(2)));
}

#[test]
fn a_joiner_does_not_begin_at_a_keyframe_of_long_ago() {
    let bounds = Bounds { bytes: 100_000, age: Duration::from_secs(12) };
    let marks: Vec<_> =
        (0..23).map(|second| (second * 100 + 10, if second == 1 { Keyframe } else { Pes })).collect();
    let source = Source::new(bounds).run(0..23, &marks);
    let place = |behind, now| source.backlog.place_behind(Duration::from_secs(behind), source.at(now)).offset;
    assert_eq!(place(1, 16), 110, "the next may come any moment");
    assert_eq!(place(1, 22), 2110, "a picture that is refreshed bit by bit");
    assert_eq!(place(8, 22), 110, "who wants to be so far behind is");
}

#[test]
fn keyframes_are_as_far_apart_as_their_times_say() {
    const SECOND: u64 = 90_000;
    let between = |before: u64, newest: Option<u64>, is_jump: bool| {
        let mut source = Source::new(BOUNDS);
        // Two seconds apart by arrival.
        for (second, time, is_jump) in [(0, Some(before), false), (2, newest, is_jump)] {
            let mark = Mark { time, is_jump, ..source.mark(second * 100, Keyframe) };
            let _evicted = source.backlog.push(source.chunk(second), [mark]);
        }
        source.backlog.keyframe_interval().expect("two keyframes").as_millis()
    };
    assert_eq!(between(5 * SECOND, Some(7 * SECOND - SECOND / 10), false), 1900);
    assert_eq!(between((1 << 33) - SECOND, Some(SECOND / 2), false), 1500, "the clock begins anew");
    assert_eq!(between(5 * SECOND, Some(9 * SECOND), true), 2000, "over a jump the arrival says more");
    assert_eq!(between(5 * SECOND, Some(4 * SECOND), false), 2000, "back");
    assert_eq!(between(5 * SECOND, None, false), 2000);
}

#[test]
fn without_a_keyframe_a_joiner_starts_at_a_pes_or_anywhere_but_not_far_behind() {
    let place = |source: &Source, behind, now| {
        source.backlog.place_behind(Duration::from_secs(behind), source.at(now)).offset
    };
    let source = Source::new(BOUNDS).run(0..6, &[(110, Pes), (240, Pes), (430, Pes)]);
    assert_eq!([0, 1, 2, 4].map(|behind| place(&source, behind, 5)), [430, 430, 240, 110]);
    assert_eq!(place(&source, 60, 5), 110, "none is so old");
    assert_eq!(source.backlog.oldest_place().offset, 110, "who waited for the start misses nothing");
    let source = Source::new(BOUNDS).run(0..30, &[]);
    assert_eq!([0, 1, 3, 60].map(|behind| place(&source, behind, 29)), [2900, 2800, 2600, 2000]);
    let mut source = source;
    source.backlog.break_off();
    let source = source.run(30..32, &[]);
    assert_eq!(place(&source, 10, 31), 3000, "not before the source that runs");
    assert_eq!(place(&Source::new(BOUNDS), 1, 5), 0);
}

#[test]
fn nobody_begins_before_the_source_that_runs() {
    let marks = [(110, Keyframe), (240, Pes), (430, Pes)];
    let mut source = Source::new(BOUNDS).run(0..3, &marks);
    source.backlog.break_off();
    assert_eq!(source.backlog.oldest_place().offset, 110, "there is nothing better yet");
    let source = source.run(3..4, &[]);
    let places = |source: &Source| {
        let behind = source.backlog.place_behind(Duration::from_secs(60), source.at(9));
        (source.backlog.oldest_place().offset, behind.offset)
    };
    assert_eq!(places(&source), (300, 300));
    assert_eq!(source.backlog.oldest_arrival(), Some(source.at(3)));
    let source = source.run(4..5, &marks);
    assert_eq!(places(&source), (430, 430));
    assert_eq!(source.starts().len(), 5, "who is further back goes on there");
}

#[test]
fn the_marks_of_a_lost_source_are_kept_and_nobody_begins_at_them() {
    let mut source = Source::new(BOUNDS).run(0..3, &[(110, Keyframe), (240, Pes)]);
    source.backlog.break_off();
    let source = source.run(3..6, &[(450, Pes)]);
    let offsets = |from| source.backlog.marks_from(from).map(|mark| mark.offset).collect::<Vec<_>>();
    assert_eq!((offsets(0), offsets(111)), (vec![110, 240, 450], vec![240, 450]));
    assert!(!source.backlog.has_keyframe());
    assert_eq!((source.backlog.oldest_place().offset, source.backlog.place_ahead(0).offset), (450, 0));
}

#[test]
fn a_mark_where_the_stream_jumps_is_not_thinned_out() {
    let mut source = Source::new(BOUNDS).run(0..1, &[]);
    let mark = |offset, is_jump| Mark { is_jump, ..source.mark(offset, Pes) };
    let jumps = [10, 20, 21, 22];
    let marks: Vec<_> = (0..50).map(|offset| mark(offset, jumps.contains(&offset))).collect();
    let _evicted = source.backlog.push(source.chunk(1), marks);
    let kept: Vec<_> = source.backlog.marks.iter().map(|mark| (mark.offset, mark.is_jump)).collect();
    assert_eq!(kept, [(0, false), (10, true), (49, true)], "the last stands for those that came all at once");
}

#[test]
fn a_cut_is_all_that_lies_between_two_offsets_or_nothing() {
    let mut source = Source::new(BOUNDS).run(0..30, &[]);
    let cut = |source: &Source, from, to| {
        let slices = source.backlog.cut(from, to)?;
        Some(slices.iter().map(|slice| (slice.chunk.start(), slice.range.clone())).collect::<Vec<_>>())
    };
    assert_eq!(cut(&source, 2000, 2200), Some(vec![(2000, 0..100), (2100, 0..100)]));
    assert_eq!(cut(&source, 2050, 2210), Some(vec![(2000, 50..100), (2100, 0..100), (2200, 0..10)]));
    assert_eq!(cut(&source, 2910, 3000), Some(vec![(2900, 10..100)]));
    assert_eq!((cut(&source, 2500, 2500), cut(&source, 2550, 2550)), (Some(vec![]), Some(vec![])));
    assert_eq!(cut(&source, 3000, 3000), Some(vec![]), "the head");
    for (from, to) in [(1999, 2100), (0, 3000), (2900, 3001), (3001, 3001), (2200, 2100)] {
        assert_eq!(cut(&source, from, to), None, "{from} to {to}");
    }
    let _given_up = source.backlog.give_up(100);
    assert_eq!(cut(&source, 2000, 2200), None, "it is gone");
    let _taken = source.backlog.take();
    assert_eq!(cut(&source, 2500, 2600), None);
}

#[test]
fn who_fell_behind_moves_ahead_or_stays() {
    let source = Source::new(BOUNDS).run(0..30, &[(2440, Keyframe)]);
    assert_eq!(source.backlog.place_ahead(2100).offset, 2440);
    assert_eq!(source.backlog.place_ahead(2500).offset, 2500, "never back");
    let source = Source::new(BOUNDS).run(0..30, &[]);
    assert_eq!(source.backlog.place_ahead(2150).offset, 2150);
    assert_eq!(source.backlog.place_ahead(500).offset, 2900, "what is gone is gone");
    let source = Source::new(BOUNDS).run(0..30, &[(2710, Pes)]);
    assert_eq!(source.backlog.place_ahead(500).offset, 2710);
}

#[test]
fn a_pes_start_may_become_a_keyframe_and_others_are_thinned_out() {
    let mut source = Source::new(BOUNDS).run(0..1, &[]);
    let marks: Vec<_> = (0..50).map(|number| source.mark(2 * number, Pes)).collect();
    let _evicted = source.backlog.push(source.chunk(1), marks);
    assert_eq!(source.backlog.marks.len(), 2, "the oldest and the latest");
    assert!(!source.backlog.has_keyframe());
    let upgraded = source.mark(98, Keyframe);
    let _evicted = source.backlog.push(source.chunk(2), [upgraded]);
    assert_eq!(source.backlog.marks.len(), 2);
    assert_eq!(source.backlog.oldest_place().offset, 98);
}

#[test]
fn ages_and_rates_are_by_arrival() {
    let mut source = Source::new(BOUNDS).run(0..8, &[]);
    let now = source.at(7);
    assert_eq!(source.backlog.age_of(650, now), Some(Duration::from_secs(1)));
    assert_eq!(source.backlog.age_of(0, now), Some(Duration::from_secs(7)));
    assert_eq!(source.backlog.age_of(800, now), None);
    assert_eq!(source.backlog.recent_bytes(now), 600);
}

#[test]
fn what_is_recent_is_found_again_whatever_was_dropped() {
    let mut source = Source::new(BOUNDS);
    let check = |source: &mut Source, second, expected| {
        let now = source.at(second);
        assert_eq!(source.backlog.recent_bytes(now), expected, "at {second} s");
    };
    check(&mut source, 0, 0);
    source = source.run(0..30, &[]);
    check(&mut source, 29, 600);
    check(&mut source, 32, 300);
    check(&mut source, 40, 0);
    source = source.run(30..42, &[]);
    check(&mut source, 41, 600);
    let _given_up = source.backlog.give_up(800);
    check(&mut source, 41, 200);
    source = source.run(42..43, &[]);
    check(&mut source, 42, 300);
    let _taken = source.backlog.take();
    check(&mut source, 42, 0);
    source = source.run(43..60, &[]);
    check(&mut source, 59, 600);
}

#[test]
fn what_comes_in_a_burst_is_marked_by_its_own_time() {
    let mut source = Source::new(BOUNDS).run(0..1, &[]);
    let mark = |offset: u64| Mark { time: Some(offset * 9_000), ..source.mark(offset, Pes) };
    let marks: Vec<_> = (0..50).map(mark).collect();
    let _evicted = source.backlog.push(source.chunk(1), marks);
    let kept: Vec<_> = source.backlog.marks.iter().map(|mark| mark.offset).collect();
    assert_eq!(kept, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 49], "each half of a second, and the last");
}
