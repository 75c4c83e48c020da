//! Playback of a file: any part of it, to any number of readers, slow where it is not downloaded yet (engine-contract.md
//! sections 8.1 and 10).
//!
//! It must not know what is in the file.

use std::io;
use std::time::Instant;

use super::call::Reply;
use super::file::{FilmFile, Parts};
use super::http::AnswerHead;
use super::reader::{BodyEnd, Course, Reader};
use super::script::{BodyEvent, PlaybackStep};
use super::state::WaitEnd;

/// Engines count in these (engine-contract.md section 3).
const PIECE_BYTES: u64 = 16 * 1024;

/// One write.
const WRITE_BYTES: u64 = 4 * PIECE_BYTES;

/// Whether a piece is there from the beginning.
fn is_downloaded(file: &FilmFile, piece: u64) -> bool {
    file.piece.is_zero() || (piece + 1).saturating_mul(PIECE_BYTES) <= file.downloaded
}

/// Which part a `Range` asks for; the whole for what is no single range.
fn asked(range: Option<&str>, length: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return Ok(None);
    };
    let (from, to) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, length.min(last.saturating_add(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, length),
        (Err(_), Ok(count)) if first.is_empty() => (length.saturating_sub(count), length),
        _ => return Ok(None),
    };
    if from < to { Ok(Some((from, to))) } else { Err(()) }
}

/// Answers a playback with the part that was asked for.
pub(super) fn send(
    reader: &Reader<'_>,
    place: usize,
    file: &FilmFile,
    step: &PlaybackStep,
) -> io::Result<Reply> {
    let (request, length) = (reader.request, file.bytes.length());
    let range = request.record.header("Range").filter(|_| file.parts == Parts::Ranges);
    let Ok(part) = asked(range, length) else {
        let head = AnswerHead::new(416).with("Content-Range", &format!("bytes */{length}"));
        request.connection.write_all(&head.with("Content-Length", "0").finish(), || true)?;
        return Ok(Reply::Close);
    };
    let (from, to) = part.unwrap_or((0, length));
    let mut head = AnswerHead::new(if part.is_some() { 206 } else { 200 });
    if let Some(content_type) = &file.content_type {
        head = head.with("Content-Type", content_type);
    }
    if let Some(etag) = &file.etag {
        head = head.with("ETag", etag);
    }
    if file.parts == Parts::Ranges {
        head = head.with("Accept-Ranges", "bytes");
    }
    if part.is_some() {
        head = head.with("Content-Range", &format!("bytes {from}-{}/{length}", to - 1));
    }
    if file.parts != Parts::Neither {
        head = head.with("Content-Length", &(to - from).to_string());
    }
    request.connection.write_all(&head.finish(), || reader.goes_on())?;
    request.shared.update(|state| state.count(Some(reader.content), |counts| counts.playbacks += 1));
    let first_byte = Instant::now().checked_add(step.first_byte_after);
    if reader.wait_until(first_byte) != WaitEnd::TimeUp {
        return Ok(end(reader.end()));
    }
    let mut body = Body { reader, place, file, at: from, to, events: step.events.clone(), begin: from };
    Ok(end(body.run()?))
}

fn end(end: BodyEnd) -> Reply {
    match end {
        BodyEnd::Clean => Reply::Close,
        BodyEnd::Reset => Reply::Reset,
    }
}

struct Body<'a> {
    reader: &'a Reader<'a>,
    /// Which of the content's files it is.
    place: usize,
    file: &'a FilmFile,
    begin: u64,
    at: u64,
    to: u64,
    events: Vec<(u64, BodyEvent)>,
}

impl Body<'_> {
    fn run(&mut self) -> io::Result<BodyEnd> {
        while self.at < self.to {
            if let Some(end) = self.do_events() {
                return Ok(end);
            }
            match self.reader.course() {
                Course::GoOn => {}
                Course::Stall if self.reader.wait_out_stall() == WaitEnd::Gone => return Ok(BodyEnd::Clean),
                // Something may have happened meanwhile.
                Course::Stall => continue,
                Course::End(end) => return Ok(end),
            }
            let piece = self.at / PIECE_BYTES;
            if !self.has(piece) {
                if self.reader.wait_until(Instant::now().checked_add(self.file.piece)) != WaitEnd::TimeUp {
                    return Ok(self.reader.end());
                }
                self.download(piece);
                continue;
            }
            self.send()?;
        }
        Ok(BodyEnd::Clean)
    }

    fn has(&self, piece: u64) -> bool {
        let state = self.reader.request.shared.lock();
        is_downloaded(self.file, piece)
            || state.contents[self.reader.content].pieces.contains(&(self.place, piece))
    }

    fn download(&self, piece: u64) {
        let place = (self.place, piece);
        self.reader.request.shared.update(|state| {
            state.contents[self.reader.content].pieces.insert(place);
        });
    }

    /// Does what is due at this byte of the body.
    fn do_events(&mut self) -> Option<BodyEnd> {
        let sent = self.at - self.begin;
        while let Some(&(at, event)) = self.events.first()
            && at <= sent
        {
            self.events.remove(0);
            match event {
                BodyEvent::End => return Some(BodyEnd::Clean),
                BodyEvent::Reset => return Some(BodyEnd::Reset),
                BodyEvent::Stall => self.reader.stall(),
                BodyEvent::Pause(time) => {
                    if self.reader.wait_until(Instant::now().checked_add(time)) != WaitEnd::TimeUp {
                        return Some(self.reader.end());
                    }
                }
                // Of packets, which a file has none of.
                BodyEvent::Garbage(_)
                | BodyEvent::NullPackets(_)
                | BodyEvent::Tear(_)
                | BodyEvent::LosePicture => {}
            }
        }
        None
    }

    fn send(&mut self) -> io::Result<()> {
        let mut to = (self.at + WRITE_BYTES).min(self.to);
        // Only what is downloaded, and only up to the next event.
        let mut piece = self.at / PIECE_BYTES + 1;
        while piece * PIECE_BYTES < to {
            if !self.has(piece) {
                to = piece * PIECE_BYTES;
            }
            piece += 1;
        }
        if let Some((at, _)) = self.events.first() {
            to = to.min(self.begin + at);
        }
        let bytes = self.file.bytes.part(self.at, to);
        self.reader.request.connection.write_all(&bytes, || self.reader.goes_on())?;
        self.at = to;
        let (content, sent) = (self.reader.content, bytes.len() as u64);
        self.reader.request.shared.update(|state| {
            if let Some(session) = state.sessions.get_mut(&self.reader.token, content) {
                session.sent += sent;
            }
            state.count(Some(content), |counts| counts.bytes_sent += sent);
        });
        Ok(())
    }
}
