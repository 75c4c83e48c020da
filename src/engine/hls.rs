//! Follows an HLS list and gives the bytes of its segments as one stream (RFC 8216; engine-contract.md section 8.2).
//!
//! What an engine gets encrypted, from a server or as a hybrid broadcast it plays as a list. It must not know what the
//! bytes mean, nor who reads them: it fetches what it is read for, so that a reader who holds back holds the engine back.
//! Whatever it waits for has an end: a time, or the cut of its line.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::BodyReader;

use super::agent::Bounded;
use super::course::{Course, Step};
use super::error::{EngineError, HlsFault};
use super::file::Span;
use super::get::{Getter, body_error};
use super::m3u8::{self, ListError, MediaList, Playlist};
use super::url::Target;

/// A list of an engine has 2 KiB.
const MAX_LIST_BYTES: usize = 1024 * 1024;

/// How long one answer may keep its reader waiting: an engine holds a list for about 7 s before it gives up (section
/// 8.2).
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long in a row lists, or segments, may fail: an engine that warms up lists what it does not have yet.
const TROUBLE_LIMIT: Duration = Duration::from_secs(20);

/// The same of connections that are closed before any answer: as a rule nobody is there behind a forwarder.
const CLOSED_LIMIT: Duration = Duration::from_secs(2);

/// What failed is asked for again after this.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The types of the boxes that a fragmented MP4 segment begins with (ISO/IEC 14496-12).
const BOXES: [&[u8]; 5] = [b"ftyp", b"styp", b"moof", b"sidx", b"moov"];

/// Follows one list.
pub(super) struct Follower {
    getter: Getter,
    /// Where the list is asked for again.
    list_at: Target,
    course: Course,
    part: Option<Part>,
    /// How much of the next segment was given before it broke off.
    given: u64,
    /// Since when there is no list, no segment, and not the one that comes next.
    no_list: Option<Instant>,
    no_segment: Option<Instant>,
    not_this_one: Option<Instant>,
    has_jumped: bool,
}

/// A segment that is being read.
struct Part {
    body: BodyReader<'static>,
    /// What comes first and is not wanted: it was given, or belongs to another part.
    to_drop: u64,
    /// What is still to be given, if that is known.
    left: Option<u64>,
    is_first: bool,
}

impl Follower {
    /// Follows the list that was found there and begins so.
    ///
    /// # Errors
    ///
    /// When it cannot be followed.
    pub(super) fn begin(
        getter: Getter,
        found_at: Target,
        begin: Vec<u8>,
        body: BodyReader<'static>,
    ) -> Result<Self, EngineError> {
        let asked_at = Instant::now();
        let (list_at, list) = match read_list(begin, body)? {
            Playlist::Media(list) => (found_at, list),
            Playlist::Variants(variants) => {
                let best = m3u8::best(&variants).ok_or(unfit(ListError::Nested))?;
                if !best.has_its_sound {
                    log::warn!("the sound of an HLS list has a list of its own, which is not passed on");
                }
                // That one is asked for at once.
                (found_at.resolve(&best.uri).map_err(no_list)?, MediaList::default())
            }
        };
        log::info!("What the engine plays is an HLS list: its segments are joined");
        Ok(Self {
            getter,
            list_at,
            course: Course::new(list, asked_at),
            part: None,
            given: 0,
            no_list: None,
            no_segment: None,
            not_this_one: None,
            has_jumped: false,
        })
    }

    /// Whether what the last read gave does not go on where the one before it ended.
    pub(super) fn has_jumped(&self) -> bool {
        self.has_jumped
    }

    fn read_on(&mut self, buffer: &mut [u8]) -> Result<usize, EngineError> {
        self.has_jumped = false;
        if buffer.is_empty() {
            return Ok(0);
        }
        while !self.getter.line().is_cut() {
            if let Some(part) = &mut self.part {
                match part.read(buffer) {
                    Ok(0) => {
                        // An interrupted body ends like a whole one.
                        if !self.getter.line().is_cut() {
                            self.end_segment();
                            self.course.advance();
                        }
                    }
                    Ok(read) => {
                        // Of a segment that broke off and was fetched again only the rest is new.
                        self.has_jumped = self.given == 0 && self.course.is_break();
                        self.given += read as u64;
                        return Ok(read);
                    }
                    Err(error) => self.bear_segment(error)?,
                }
                continue;
            }
            match self.course.step() {
                Step::End => return Ok(0),
                Step::Reload(at) => {
                    if !self.getter.line().wait_until(at) {
                        self.reload()?;
                    }
                }
                Step::Read(_) => match self.open_segment() {
                    Ok(part) => self.part = Some(part),
                    Err(error) => self.bear_segment(error)?,
                },
            }
        }
        Ok(0)
    }

    fn open_segment(&self) -> Result<Part, EngineError> {
        let Step::Read(segment) = self.course.step() else {
            return Err(EngineError::NoAnswer("nothing is listed"));
        };
        let target = self.list_at.resolve(&segment.uri)?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        let found =
            self.getter.get(target, segment.range.map(Span::from), deadline, Bounded::Steps(ANSWER_LIMIT))?;
        // Who does not know ranges answers with all of it.
        let is_part = found.status == 206;
        let before = segment.range.filter(|_| !is_part).map_or(0, |(from, _)| from);
        let left = segment.range.map(|(from, to)| to.saturating_sub(from).saturating_sub(self.given));
        Ok(Part { body: found.body, to_drop: before + self.given, left, is_first: self.given == 0 })
    }

    fn end_segment(&mut self) {
        self.part = None;
        (self.given, self.no_segment, self.not_this_one) = (0, None, None);
    }

    /// A segment did not come: tries again, looks for where the list is meanwhile, leaves it out if others come.
    fn bear_segment(&mut self, error: EngineError) -> Result<(), EngineError> {
        self.part = None;
        if self.getter.line().is_cut() {
            return Ok(());
        }
        log::debug!("segment {} of an HLS list failed: {error}", self.course.number());
        let now = Instant::now();
        let not_this_one = *self.not_this_one.get_or_insert(now);
        bear(&mut self.no_segment, now, &error).map_err(|()| hls(HlsFault::Segment, error))?;
        if now - not_this_one >= self.course.target() && self.course.skip() {
            (self.given, self.not_this_one) = (0, None);
            return Ok(());
        }
        if !self.getter.line().wait_until(now + RETRY_PAUSE) && Instant::now() >= self.course.reload_at() {
            self.reload()?;
        }
        Ok(())
    }

    /// Asks for the list as it is now; if there is none, waits for the next try.
    fn reload(&mut self) -> Result<(), EngineError> {
        let asked_at = Instant::now();
        let error = match fetch_list(&self.getter, &self.list_at) {
            Ok(list) => {
                self.no_list = None;
                let number = self.course.number();
                self.course.update(list, asked_at);
                if self.course.number() != number {
                    (self.given, self.not_this_one) = (0, None);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        if self.getter.line().is_cut() {
            return Ok(());
        }
        log::debug!("an HLS list did not come: {error}");
        let cause = match &error {
            EngineError::Hls(HlsFault::List(cause)) => cause,
            _ => &error,
        };
        let now = Instant::now();
        bear(&mut self.no_list, now, cause).map_err(|()| error)?;
        self.getter.line().wait_until(now + RETRY_PAUSE);
        Ok(())
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_on(buffer).map_err(io::Error::from)
    }
}

impl Part {
    /// Reads what there is of the segment; 0 is its end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, EngineError> {
        loop {
            let wanted = match self.left {
                Some(left) if self.to_drop == 0 => {
                    buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX))
                }
                _ => buffer.len(),
            };
            let read = match self.body.read(&mut buffer[..wanted]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(body_error(error, ANSWER_LIMIT)),
            };
            let dropped = usize::try_from(self.to_drop).unwrap_or(usize::MAX).min(read);
            self.to_drop -= dropped as u64;
            if dropped == read && read > 0 {
                continue;
            }
            buffer.copy_within(dropped..read, 0);
            let given = read - dropped;
            let given =
                self.left.map_or(given, |left| given.min(usize::try_from(left).unwrap_or(usize::MAX)));
            self.left = self.left.map(|left| left - given as u64);
            if std::mem::take(&mut self.is_first)
                && buffer[..given].get(4..8).is_some_and(|kind| BOXES.contains(&kind))
            {
                return Err(unfit(ListError::Fragmented));
            }
            return Ok(given);
        }
    }
}

fn fetch_list(getter: &Getter, list_at: &Target) -> Result<MediaList, EngineError> {
    let deadline = Instant::now() + ANSWER_LIMIT;
    let found = getter.get(list_at.clone(), None, deadline, Bounded::Answer);
    match read_list(Vec::new(), found.map_err(no_list)?.body)? {
        Playlist::Media(list) => Ok(list),
        Playlist::Variants(_) => Err(unfit(ListError::Nested)),
    }
}

fn read_list(mut text: Vec<u8>, body: BodyReader<'static>) -> Result<Playlist, EngineError> {
    let room = MAX_LIST_BYTES.saturating_sub(text.len()) + 1;
    let read = body.take(room as u64).read_to_end(&mut text);
    read.map_err(|error| no_list(body_error(error, ANSWER_LIMIT)))?;
    if text.len() > MAX_LIST_BYTES {
        return Err(unfit(ListError::TooLong));
    }
    m3u8::parse(&text).map_err(unfit)
}

/// Whether there is patience left with this, which has gone on since then.
fn bear(since: &mut Option<Instant>, now: Instant, error: &EngineError) -> Result<(), ()> {
    let limit = match error {
        error if error.is_unknown_session() => Duration::ZERO,
        EngineError::Status(404 | 500 | 502..=504, _)
        | EngineError::Silent(_)
        | EngineError::Lost(_)
        | EngineError::NoAnswer(_)
        // Half of one, or a page in place of one.
        | EngineError::Hls(HlsFault::Unfit(ListError::Unreadable(_))) => TROUBLE_LIMIT,
        EngineError::Closed(_) => CLOSED_LIMIT,
        _ => Duration::ZERO,
    };
    if now - *since.get_or_insert(now) < limit { Ok(()) } else { Err(()) }
}

fn unfit(error: ListError) -> EngineError {
    EngineError::Hls(HlsFault::Unfit(error))
}

fn no_list(error: impl Into<EngineError>) -> EngineError {
    hls(HlsFault::List, error.into())
}

fn hls(fault: fn(Box<EngineError>) -> HlsFault, error: EngineError) -> EngineError {
    match error {
        error @ EngineError::Hls(_) => error,
        error => EngineError::Hls(fault(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use ureq::Body;

    use super::*;

    fn part(body: &[u8], to_drop: u64, left: Option<u64>) -> Part {
        Part {
            body: Body::builder().data(body.to_vec()).into_reader(),
            to_drop,
            left,
            is_first: to_drop == 0,
        }
    }

    #[test]
    fn of_a_body_only_what_is_wanted_is_given() {
        const BODY: &[u8] = b"0123456789abcdef";
        for (to_drop, left, expected) in [
            (0, None, &b"0123456789abcdef"[..]),
            (10, None, b"abcdef"),
            (16, None, b""),
            (99, None, b""),
            (0, Some(3), b"012"),
            (4, Some(7), b"456789a"),
            (12, Some(99), b"cdef"),
            (0, Some(0), b""),
        ] {
            for step in [1, 3, 5, 100] {
                let (mut part, mut given) = (part(BODY, to_drop, left), Vec::new());
                let mut buffer = vec![0; step];
                while let Ok(read @ 1..) = part.read(&mut buffer) {
                    given.extend_from_slice(&buffer[..read]);
                }
                assert_eq!(given, expected, "{to_drop} {left:?} {step}");
            }
        }
    }

    #[test]
    fn fragmented_mp4_is_told_by_its_first_box() {
        let read = |body: &[u8]| part(body, 0, None).read(&mut [0; 100]);
        assert_eq!(read(b"\0\0\0\x18styp...."), Err(unfit(ListError::Fragmented)));
        assert_eq!(read(b"\0\0\0\x18mdat...."), Ok(12));
        assert_eq!(read(b"G@\0"), Ok(3));
    }

    #[test]
    fn only_what_may_pass_is_borne_and_only_for_a_while() {
        let now = Instant::now();
        let status = |status| EngineError::Status(status, String::new());
        let borne = |error: &EngineError| bear(&mut None, now, error).is_ok();
        for error in [status(404), status(500), status(503), EngineError::Silent(ANSWER_LIMIT)] {
            assert!(borne(&error), "{error}");
            assert!(bear(&mut Some(now), now + TROUBLE_LIMIT, &error).is_err(), "{error}");
        }
        let closed = EngineError::Closed("reset".to_owned());
        assert!(borne(&closed) && bear(&mut Some(now), now + CLOSED_LIMIT, &closed).is_err());
        let unknown = EngineError::Status(500, "unknown playback session id".to_owned());
        for error in [status(403), status(400), unknown, unfit(ListError::Encrypted)] {
            assert!(!borne(&error), "{error}");
        }
        assert!(no_list(status(403)).is_unknown_session() && !no_list(status(500)).is_unknown_session());
    }
}
