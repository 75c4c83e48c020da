//! Cuts a stream into segments, and keeps the list of them.
//!
//! A segment is two offsets of the stream, and the tables that are sent in front of it: the packets between lie in the backlog,
//! and all segments together are the stream itself. It must not know who asks for them.
//!
//! What players hold against a list is held here: a segment keeps its number, length and bytes for life, numbers only rise, the
//! target duration never changes and no segment is longer, and what does not go on where the segment before ended is marked.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::stream::chunk::Chunk;
use crate::stream::marks::Mark;
use crate::stream::outline::Outline;
use crate::ts::packet::packets;
use crate::ts::start::StartKind;

/// Ticks of a stream's time in a second.
pub const SECOND: u64 = 90_000;

/// Times of 90 kHz begin anew after so many ticks (ISO/IEC 13818-1 clause 2.4.3.7).
const CYCLE: u64 = 1 << 33;

/// The usual target duration in seconds. ExoPlayer gives a list up that stands still for three and a half of them, so that 21 s
/// are left to find another source.
pub const USUAL_TARGET: u64 = 6;

/// The longest target duration in seconds: with keyframes further apart, segments begin between them.
const MAX_TARGET: u64 = 12;

/// Segments that are listed if they are there: VLC never takes the first two, nor the last.
const WANTED_SEGMENTS: usize = 6;

/// With at least three target durations listed, no more than this is (ticks).
const MAX_LISTED: u64 = 30 * SECOND;

/// No list is longer. It takes a stream that jumps several times a second.
const MAX_SEGMENTS: usize = 100;

/// Segments that are not listed any more and may still be asked for: their bytes go long before there are so many.
const MAX_RETIRED: usize = 16;

/// A stream that shows no keyframe for so long (ticks) is begun between them.
const KEYFRAME_WAIT: u64 = 2 * SECOND;

/// So many segments of a young stream may be short, so that players, of which some want three, soon have something to begin with.
const YOUNG_SEGMENTS: u64 = 3;

/// After them so many are of middling length: who has just begun has little to play until the next one is whole.
const GROWING_SEGMENTS: u64 = 3;

/// The length of a segment that ends where nothing tells its length: one picture at 25 a second.
const PICTURE: u64 = SECOND / 25;

/// A stretch of the stream, to be fetched as a whole.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its number, for life.
    pub sequence: u64,
    /// Offset in the stream of its first byte.
    pub start: u64,
    /// Offset of the byte behind its last.
    pub end: u64,
    /// How long it plays, in ticks of 90 kHz.
    pub ticks: u64,
    /// It does not go on where the segment before ended.
    pub is_discontinuity: bool,
    /// What is sent in front of it; empty if the stream has shown no tables.
    pub tables: Arc<Vec<u8>>,
}

/// The segments of one stream.
#[derive(Debug)]
pub struct Segmenter {
    /// In seconds; decided with the first cut.
    target: Option<u64>,
    /// Where the segment begins that is still growing.
    open: Option<Open>,
    listed: VecDeque<Segment>,
    retired: VecDeque<Segment>,
    /// The number of the first segment.
    first: u64,
    /// The number of the next segment.
    next: u64,
    /// Offset of the byte behind the newest segment.
    cut_to: u64,
    /// Discontinuities that are not listed any more.
    discontinuities: u64,
    is_ended: bool,
}

#[derive(Debug)]
struct Open {
    offset: u64,
    is_discontinuity: bool,
}

/// Within which a segment ends, in ticks.
#[derive(Clone, Copy)]
struct Lengths {
    /// From here on it ends at the next keyframe.
    least: u64,
    /// It ends before here even without one.
    most: u64,
}

/// Where a segment ends.
#[derive(Clone, Copy)]
struct Cut {
    /// Index of the mark that it ends at.
    at: usize,
    ticks: u64,
}

impl Segmenter {
    /// No segments yet; the first will have this number.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self {
            target: None,
            open: None,
            listed: VecDeque::new(),
            retired: VecDeque::new(),
            first,
            next: first,
            cut_to: 0,
            discontinuities: 0,
            is_ended: false,
        }
    }

    /// From which offset on it has to see the marks.
    #[must_use]
    pub fn wants_from(&self) -> u64 {
        self.open.as_ref().map_or(self.cut_to, |open| open.offset)
    }

    /// Cuts what can be cut, and forgets what is not there any more. The outline begins at [`Segmenter::wants_from`] or before.
    pub fn observe(&mut self, outline: &Outline) {
        self.forget_lost(outline.tail);
        if self.is_ended {
            return;
        }
        let wanted = self.wants_from();
        let mut marks = &outline.marks[outline.marks.partition_point(|mark| mark.offset < wanted)..];
        // What may still change waits.
        if outline.ending.is_none() && marks.last().is_some_and(|mark| mark.kind != StartKind::Keyframe) {
            marks = &marks[..marks.len() - 1];
        }
        if self.open.as_ref().is_some_and(|open| marks.first().is_none_or(|mark| mark.offset != open.offset))
        {
            // Nobody asked for so long that its begin is lost.
            if marks.is_empty() && self.open.as_ref().is_some_and(|open| open.offset >= outline.tail) {
                return;
            }
            self.open = None;
        }
        if self.open.is_none() {
            let Some(begin) = begin(marks, outline.ending.is_some()) else {
                self.is_ended = outline.ending.is_some();
                return;
            };
            marks = &marks[begin..];
            let is_discontinuity = self.has_begun();
            self.open = Some(Open { offset: marks[0].offset, is_discontinuity });
        }
        let target = self.target.unwrap_or_else(|| target_for(marks));
        while let Some(cut) = next_cut(marks, target * SECOND, self.lengths(target * SECOND)) {
            self.target = Some(target);
            let end = &marks[cut.at];
            self.close(&marks[0], end.offset, cut.ticks);
            self.open = Some(Open { offset: end.offset, is_discontinuity: end.is_jump });
            marks = &marks[cut.at..];
        }
        if outline.ending.is_some() {
            self.target = Some(target);
            if let Some(begin) = marks.first().filter(|begin| begin.offset < outline.head) {
                let ticks = extrapolate(marks, outline.head).min(target * SECOND);
                self.close(begin, outline.head, ticks);
            }
            self.open = None;
            self.is_ended = true;
        }
        self.shorten();
    }

    /// What the next segment is cut by, with this target (ticks).
    fn lengths(&self, target: u64) -> Lengths {
        match self.next - self.first {
            0..YOUNG_SEGMENTS => Lengths { least: target / 6, most: target / 3 },
            number if number < YOUNG_SEGMENTS + GROWING_SEGMENTS => {
                Lengths { least: target / 3, most: target }
            }
            _ => Lengths { least: target / 2, most: target },
        }
    }

    fn has_begun(&self) -> bool {
        self.target.is_some()
    }

    fn close(&mut self, begin: &Mark, end: u64, ticks: u64) {
        let is_discontinuity = self.open.as_ref().is_some_and(|open| open.is_discontinuity);
        let tables = begin.prefix.as_deref().map_or_else(Vec::new, |prefix| tables(prefix, is_discontinuity));
        self.listed.push_back(Segment {
            sequence: self.next,
            start: begin.offset,
            end,
            ticks,
            is_discontinuity,
            tables: Arc::new(tables),
        });
        self.next += 1;
        self.cut_to = end;
    }

    /// Takes off the list what it need not have, oldest first.
    fn shorten(&mut self) {
        let least = 3 * self.target() * SECOND;
        let mut total: u64 = self.listed.iter().map(|segment| segment.ticks).sum();
        while let Some(first) = self.listed.front() {
            let is_rich = self.listed.len() > WANTED_SEGMENTS || total > MAX_LISTED;
            let may_go = total - first.ticks >= least && is_rich && !self.is_ended;
            if !may_go && self.listed.len() <= MAX_SEGMENTS {
                break;
            }
            total -= first.ticks;
            self.retire();
        }
    }

    fn retire(&mut self) {
        if let Some(segment) = self.listed.pop_front() {
            self.discontinuities += u64::from(segment.is_discontinuity);
            self.retired.push_back(segment);
        }
        if self.retired.len() > MAX_RETIRED {
            self.retired.pop_front();
        }
    }

    /// Nothing before this offset is there any more.
    fn forget_lost(&mut self, tail: u64) {
        while self.listed.front().is_some_and(|segment| segment.start < tail) {
            self.retire();
        }
        self.retired.retain(|segment| segment.start >= tail);
    }

    /// The target duration in seconds.
    #[must_use]
    pub fn target(&self) -> u64 {
        self.target.unwrap_or(USUAL_TARGET)
    }

    /// What is listed, oldest first.
    pub fn listed(&self) -> impl ExactSizeIterator<Item = &Segment> {
        self.listed.iter()
    }

    /// The number of the first segment that is listed, or of the next one if there is none.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.listed.front().map_or(self.next, |segment| segment.sequence)
    }

    /// The number of the segment that comes next.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Discontinuities that are not listed any more.
    #[must_use]
    pub fn discontinuities(&self) -> u64 {
        self.discontinuities
    }

    /// Whether nothing comes behind what is listed.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// The segment of this number, if it is listed or was so lately.
    #[must_use]
    pub fn segment(&self, sequence: u64) -> Option<&Segment> {
        let mut segments = self.retired.iter().chain(&self.listed);
        segments.find(|segment| segment.sequence == sequence)
    }
}

/// Index of the mark where the first segment begins, or one behind a hole: at a keyframe, if one is to be expected.
fn begin(marks: &[Mark], is_ended: bool) -> Option<usize> {
    if let Some(keyframe) = marks.iter().position(|mark| mark.kind == StartKind::Keyframe) {
        return Some(keyframe);
    }
    let with_tables = marks.iter().position(|mark| mark.prefix.is_some())?;
    let waited = elapsed(&marks[with_tables], &marks[marks.len() - 1]);
    (is_ended || waited >= KEYFRAME_WAIT).then_some(with_tables)
}

/// The target duration in seconds of a stream with these marks: as usual, unless its keyframes are known to be further apart.
fn target_for(marks: &[Mark]) -> u64 {
    let (mut longest, mut keyframe): (u64, Option<&Mark>) = (0, None);
    for mark in marks {
        if mark.is_jump {
            keyframe = None;
        }
        if mark.kind == StartKind::Keyframe {
            longest = longest.max(keyframe.map_or(0, |before| elapsed(before, mark)));
            keyframe = Some(mark);
        }
    }
    longest.div_ceil(SECOND).clamp(USUAL_TARGET, MAX_TARGET)
}

/// Where the segment ends that begins at the first of these marks, never longer than the target.
fn next_cut(marks: &[Mark], target: u64, lengths: Lengths) -> Option<Cut> {
    let (first, rest) = marks.split_first()?;
    // The last mark within the most, in case no keyframe is late enough, and the last keyframe: behind a cut between keyframes, the
    // segments would never begin with one again where a group is as long as the target.
    let (mut last_within, mut last_keyframe) = (None, None);
    for (at, mark) in rest.iter().enumerate().map(|(index, mark)| (index + 1, mark)) {
        if mark.is_jump {
            let ticks = extrapolate(&marks[..at], mark.offset);
            return Some(Cut { at, ticks: ticks.min(target) });
        }
        let ticks = elapsed(first, mark);
        if ticks > lengths.most
            && let Some(cut) = last_keyframe.or(last_within)
        {
            return Some(cut);
        }
        if ticks > target {
            return Some(Cut { at, ticks: target });
        }
        if mark.kind == StartKind::Keyframe && ticks >= lengths.least {
            return Some(Cut { at, ticks });
        }
        let cut = Some(Cut { at, ticks: ticks.max(1) });
        last_within = cut;
        if mark.kind == StartKind::Keyframe {
            last_keyframe = cut;
        }
    }
    None
}

/// Ticks from one mark to a later one: by the stream's own time, else by arrival. What seems to go back does not go on.
fn elapsed(from: &Mark, to: &Mark) -> u64 {
    let Some((from_time, to_time)) = from.time.zip(to.time) else {
        let arrived = to.arrived.saturating_duration_since(from.arrived);
        return arrived.as_micros() as u64 * 9 / 100;
    };
    let ticks = to_time.wrapping_sub(from_time) % CYCLE;
    if ticks < CYCLE / 2 { ticks } else { 0 }
}

/// Ticks from the first of these marks to an offset behind the last, where no mark tells the time: as many bytes take as long as
/// those between the marks did.
fn extrapolate(marks: &[Mark], end: u64) -> u64 {
    let [first, .., last] = marks else { return PICTURE };
    let ticks = elapsed(first, last);
    let known = (last.offset - first.offset).max(1);
    let rest = u128::from(ticks) * u128::from(end.saturating_sub(last.offset)) / u128::from(known);
    // The stretch behind the last mark is shorter than the distance of two.
    (ticks + (rest as u64).min(SECOND)).max(PICTURE)
}

/// What of a joiner's prefix stands in front of a segment: the tables, and parameter sets with the announcement of their counters.
/// That all counters jump is only announced where they do.
fn tables(prefix: &Chunk, is_discontinuity: bool) -> Vec<u8> {
    let carries = |pid| packets(prefix.packets()).any(|packet| packet.pid() == pid && packet.has_payload());
    let kept = packets(prefix.packets()).filter(|packet| is_discontinuity || carries(packet.pid()));
    kept.flat_map(|packet| *packet.bytes()).collect()
}

#[cfg(test)]
mod tests;
