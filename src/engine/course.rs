//! Which segment of a list comes next, and when the list is asked for again.
//!
//! Lists and times in, steps out: it reads no clock and asks nobody.

use std::time::{Duration, Instant};

use super::m3u8::{MediaList, Segment};

/// How many target durations before the end of a live list its playing begins (RFC 8216 section 6.3.3).
const TARGETS_BEHIND: u32 = 3;

/// Where one follower of a list is.
#[derive(Debug)]
pub(super) struct Course {
    list: MediaList,
    /// The number of the segment that comes next.
    next: u64,
    /// Whether that does not follow what was read last.
    is_break: bool,
    has_read: bool,
    /// When the list is to be asked for again, at the earliest.
    reload_at: Instant,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// This is to be read.
    Read(&'a Segment),
    /// The list is to be asked for again, then.
    Reload(Instant),
    /// There is nothing more.
    End,
}

impl Course {
    /// Begins with a list that was asked for at this time.
    pub(super) fn new(list: MediaList, asked_at: Instant) -> Self {
        let (next, reload_at) = (beginning(&list), asked_at + pause(&list, !list.segments.is_empty()));
        let mut course = Self { list, next, is_break: false, has_read: false, reload_at };
        course.pass_gaps();
        course
    }

    /// Takes the list as it is now, asked for at this time.
    pub(super) fn update(&mut self, list: MediaList, asked_at: Instant) {
        let has_changed = list.end() != self.list.end() || list.is_over != self.list.is_over;
        let listed = list.segments.len() as u64;
        if self.list.segments.is_empty() && !self.has_read {
            self.next = beginning(&list);
        } else if self.next < list.first {
            // It was slow, or the engine was: the oldest is what is lost least of.
            log::debug!("an HLS list went from segment {} on to {}", self.next, list.first);
            (self.next, self.is_break) = (list.first, true);
        } else if list.end() + listed < self.next {
            // An old copy is not as old as that: its numbers begin anew.
            log::debug!("an HLS list went back from segment {} to {}", self.next, list.first);
            (self.next, self.is_break) = (beginning(&list), true);
        }
        self.reload_at = asked_at + pause(&list, has_changed);
        self.list = list;
        self.pass_gaps();
    }

    /// What is to be done next.
    pub(super) fn step(&self) -> Step<'_> {
        match self.list.get(self.next) {
            Some(segment) => Step::Read(segment),
            None if self.list.is_over => Step::End,
            None => Step::Reload(self.reload_at),
        }
    }

    /// The number of the segment that comes next.
    pub(super) fn number(&self) -> u64 {
        self.next
    }

    /// Whether the next segment does not go on where the one read before ended.
    pub(super) fn is_break(&self) -> bool {
        let is_marked = self.list.get(self.next).is_some_and(|segment| segment.is_break);
        self.has_read && (self.is_break || is_marked)
    }

    /// The next segment was read.
    pub(super) fn advance(&mut self) {
        (self.has_read, self.is_break) = (true, false);
        self.next += 1;
        self.pass_gaps();
    }

    /// The next segment is left out, if there is one behind it: whether there is.
    pub(super) fn skip(&mut self) -> bool {
        let is_there = self.next + 1 < self.list.end();
        if is_there {
            self.next += 1;
            self.is_break = true;
            self.pass_gaps();
        }
        is_there
    }

    /// The longest a segment is.
    pub(super) fn target(&self) -> Duration {
        self.list.target
    }

    /// When the list is to be asked for again, at the earliest.
    pub(super) fn reload_at(&self) -> Instant {
        self.reload_at
    }

    fn pass_gaps(&mut self) {
        while self.list.get(self.next).is_some_and(|segment| segment.is_gap) {
            self.next += 1;
            self.is_break = true;
        }
    }
}

/// The number of the segment to begin with: the first of what has ended, else some before the end.
fn beginning(list: &MediaList) -> u64 {
    let mut behind = Duration::ZERO;
    let wanted = list.target * TARGETS_BEHIND;
    let is_wanted = |segment: &&Segment| {
        let is_enough = behind >= wanted;
        behind += segment.duration;
        list.is_over || !is_enough
    };
    list.end() - list.segments.iter().rev().take_while(is_wanted).count() as u64
}

/// How long after a list was asked for it may be asked for again (RFC 8216 section 6.3.4).
fn pause(list: &MediaList, has_changed: bool) -> Duration {
    if has_changed { list.target } else { list.target / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments `first..end` of two seconds each, named by their numbers.
    fn list(first: u64, end: u64) -> MediaList {
        let segment = |number: u64| Segment {
            uri: number.to_string(),
            range: None,
            duration: Duration::from_secs(2),
            is_break: false,
            is_gap: false,
        };
        let target = Duration::from_secs(2);
        MediaList { target, first, segments: (first..end).map(segment).collect(), is_over: false }
    }

    /// Reads what is listed: the numbers, those after a break negative.
    fn read(course: &mut Course) -> Vec<i64> {
        let mut numbers = Vec::new();
        while let Step::Read(segment) = course.step() {
            let number: i64 = segment.uri.parse().expect("a number");
            numbers.push(if course.is_break() { -number } else { number });
            course.advance();
        }
        numbers
    }

    #[test]
    fn it_begins_three_targets_before_the_end_and_reads_everything_once() {
        let now = Instant::now();
        let mut course = Course::new(list(10, 17), now);
        assert_eq!(read(&mut course), [14, 15, 16]);
        course.update(list(10, 17), now);
        assert_eq!(read(&mut course), [0_i64; 0]);
        course.update(list(12, 19), now);
        assert_eq!(read(&mut course), [17, 18]);
        // An older copy.
        course.update(list(11, 18), now);
        assert_eq!(read(&mut course), [0_i64; 0]);
        course.update(list(13, 20), now);
        assert_eq!(read(&mut course), [19]);
    }

    #[test]
    fn a_short_list_is_read_from_its_beginning_and_one_that_is_over_to_its_end() {
        let now = Instant::now();
        let mut young = Course::new(list(0, 0), now);
        assert_eq!(young.step(), Step::Reload(now + Duration::from_secs(1)));
        young.update(list(0, 2), now);
        assert_eq!(read(&mut young), [0, 1]);
        let mut unknown = Course::new(MediaList::default(), now);
        assert_eq!(unknown.step(), Step::Reload(now));
        unknown.update(list(30, 35), now);
        assert_eq!(read(&mut unknown), [32, 33, 34]);
        let mut whole = list(3, 20);
        whole.is_over = true;
        let mut course = Course::new(whole, now);
        assert_eq!(read(&mut course), (3..20).collect::<Vec<_>>());
        assert_eq!(course.step(), Step::End);
    }

    #[test]
    fn the_list_is_asked_for_after_a_target_or_half_of_it_when_nothing_is_new() {
        let now = Instant::now();
        let at = |millis| Step::Reload(now + Duration::from_millis(millis));
        let mut course = Course::new(list(0, 3), now);
        read(&mut course);
        assert_eq!(course.step(), at(2000));
        course.update(list(0, 3), now + Duration::from_secs(2));
        assert_eq!(course.step(), at(3000));
        course.update(list(0, 4), now + Duration::from_secs(3));
        read(&mut course);
        assert_eq!(course.step(), at(5000));
    }

    #[test]
    fn what_does_not_follow_is_a_break() {
        let now = Instant::now();
        let mut course = Course::new(list(0, 6), now);
        assert_eq!(read(&mut course), [3, 4, 5]);
        // Numbers are missing.
        course.update(list(9, 11), now);
        assert_eq!(read(&mut course), [-9, 10]);
        // The list says so itself.
        let mut marked = list(9, 14);
        marked.segments[3].is_break = true;
        marked.segments[4].is_gap = true;
        course.update(marked, now);
        assert_eq!(read(&mut course), [11, -12]);
        course.update(list(12, 15), now);
        assert_eq!(read(&mut course), [-14]);
        // Its numbers begin anew.
        course.update(list(1, 3), now);
        assert_eq!(read(&mut course), [-1, 2]);
    }

    #[test]
    fn a_break_in_front_of_everything_is_none() {
        let mut marked = list(0, 3);
        marked.segments[0].is_break = true;
        assert_eq!(read(&mut Course::new(marked, Instant::now())), [0, 1, 2]);
    }

    #[test]
    fn a_segment_that_does_not_come_is_left_out_only_if_another_is_there() {
        let now = Instant::now();
        let mut course = Course::new(list(0, 3), now);
        course.advance();
        assert!(course.skip());
        assert_eq!((course.number(), course.is_break()), (2, true));
        assert!(!course.skip());
        assert_eq!(read(&mut course), [-2]);
    }
}
