//! What the playback URL answers: the redirect, the head, and who sends the body.
//!
//! It must not know how a body is paced or what goes wrong in its course.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::call::{Reply, Request};
use super::content::Framing;
use super::film;
use super::hls;
use super::http::{Answer, status_line};
use super::reader::{BodyEnd, Reader};
use super::script::{Entry, Head};
use super::sender::Sender;
use super::sessions::Ticket;
use super::state::WaitEnd;

/// What `/ace/r` says of a session that is not there (engine-contract.md 1.3).
const NOT_FOUND: &str = "download not found";

/// Answers the playback URL: holds until there is something to play, then redirects.
pub(super) fn entry(request: &Request<'_>, infohash: &str, token: &str) -> io::Result<Reply> {
    let not_found = || Ok(Reply::Answer(Answer::plain(500, NOT_FOUND)));
    let Some(content) = request.by_path(infohash) else {
        return not_found();
    };
    count_request(request, content);
    let found = request.shared.control(|state| {
        state.count(Some(content), |counts| counts.playback_requests += 1);
        let is_read = state.is_read(token);
        let session = state.sessions.get_mut(token, content)?;
        session.active = Instant::now();
        let is_at_once = (session.asking > 0 || is_read) && !session.newest_reads;
        session.asking += 1;
        let since = session.buffers_since;
        let is_at_once = is_at_once && state.contents[content].content.is_live;
        state.count(Some(content), |counts| counts.playbacks_at_once += u64::from(is_at_once));
        let known = &mut state.contents[content];
        known.attempts.playback += 1;
        let playback = known.script.playback.at(known.attempts.playback - 1).clone();
        let ready = since + known.content.delivery.prebuffer;
        Some((playback, ready))
    });
    let Some((playback, ready)) = found else {
        return not_found();
    };
    let _asking = Asking { request, content, token };
    let base = request.base_url()?;
    let until = match &playback.entry {
        Entry::Never => return Ok(request.hang(|_| false)),
        Entry::Status(status, text) => return Ok(Reply::Answer(Answer::plain(*status, text))),
        Entry::Loop => {
            let location = format!("{base}/ace/r/{infohash}/{token}");
            return Ok(Reply::Answer(Answer::redirect(location)));
        }
        Entry::Elsewhere(url) => return Ok(Reply::Answer(Answer::redirect(url.clone()))),
        Entry::StartTimeout if Instant::now() < ready => {
            return Ok(Reply::Answer(Answer::plain(500, "start timeout")));
        }
        Entry::Late(time) => ready.max(Instant::now()) + *time,
        Entry::Normal | Entry::Direct | Entry::Relative | Entry::StartTimeout => ready,
    };
    match request.hold(Some(until), |state| !state.sessions.contains(token)) {
        WaitEnd::Gone => return Ok(Reply::Close),
        WaitEnd::Released => return not_found(),
        WaitEnd::TimeUp => {}
    }
    let is_direct = playback.entry == Entry::Direct;
    let is_relative = playback.entry == Entry::Relative;
    let ticket = Ticket { token: token.to_owned(), playback };
    if is_direct {
        return send_body(request, content, ticket);
    }
    let name = request.shared.lock().sessions.add_ticket(ticket);
    let path = format!("/content/{infohash}/{name}");
    let location = if is_relative { path } else { base + &path };
    Ok(Reply::Answer(Answer::redirect(location)))
}

/// A request to the playback URL that is being answered.
struct Asking<'a> {
    request: &'a Request<'a>,
    content: usize,
    token: &'a str,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.request.shared.update(|state| {
            if let Some(session) = state.sessions.get_mut(self.token, self.content) {
                session.asking -= 1;
            }
        });
    }
}

/// Answers what the playback URL redirects to.
pub(super) fn content(request: &Request<'_>, infohash: &str, name: &str) -> io::Result<Reply> {
    let found = request
        .by_path(infohash)
        .and_then(|content| Some((content, request.shared.lock().sessions.ticket(name)?)));
    let Some((content, ticket)) = found else {
        let known = request.by_path(infohash);
        let is_list =
            known.is_some_and(|content| request.shared.lock().contents[content].content.hls.is_some());
        if is_list {
            // What the list of a session is once that has ended.
            return Ok(Reply::Answer(Answer::plain(500, NOT_FOUND)));
        }
        return Ok(Reply::Answer(Answer::error(404, "File not found")));
    };
    count_request(request, content);
    send_body(request, content, ticket)
}

fn count_request(request: &Request<'_>, content: usize) {
    let record = request.record;
    let (has_gzip, has_range) = (record.allows_gzip(), record.header("Range").is_some());
    request.shared.update(|state| {
        state.count(Some(content), |counts| {
            counts.playbacks_with_gzip += u64::from(has_gzip);
            counts.playbacks_with_range += u64::from(has_range);
        });
    });
}

fn send_body(request: &Request<'_>, content: usize, ticket: Ticket) -> io::Result<Reply> {
    let hls = request.shared.lock().contents[content].content.hls.clone();
    if let Some(hls) = hls {
        return hls::list(request, content, &ticket, &hls);
    }
    let Some(reader) = Reader::enter(request, content, ticket.token) else {
        // What a real engine's second reader gets: another status line, in a row with the first.
        let broken = [status_line(200), status_line(200)].concat();
        request.connection.write_all(broken.as_bytes(), || true)?;
        return Ok(Reply::Close);
    };
    match &ticket.playback.head {
        Head::Normal => {}
        Head::Never => return Ok(request.hang(|_| false)),
        Head::Status(status, text) => return Ok(Reply::Answer(Answer::plain(*status, text))),
        Head::Text { content_type, body } => {
            let head = super::http::AnswerHead::new(200)
                .with("Content-Type", content_type)
                .with("Content-Length", &body.len().to_string());
            let text = [head.finish().as_slice(), body.as_bytes()].concat();
            request.connection.write_all(&text, || true)?;
            return Ok(Reply::Close);
        }
        Head::Late(time) => {
            if reader.wait_until(Instant::now().checked_add(*time)) != WaitEnd::TimeUp {
                return Ok(Reply::Close);
            }
        }
    }
    let (known, added) = {
        let state = request.shared.lock();
        let known = &state.contents[content];
        (Arc::clone(&known.content), known.added)
    };
    if let Some(last) = known.files.len().checked_sub(1) {
        let place = request.shared.lock().sessions.get_mut(&reader.token, content).map_or(0, |it| it.file);
        let place = place.min(last);
        return film::send(&reader, place, &known.files[place], &ticket.playback);
    }
    let mut head = super::http::AnswerHead::new(200);
    if let Some(content_type) = &known.delivery.content_type {
        head = head.with("Content-Type", content_type);
    }
    head = match known.delivery.framing {
        Framing::Close => head,
        Framing::Chunked => head.with("Transfer-Encoding", "chunked"),
        Framing::Length(bytes) => head.with("Content-Length", &bytes.to_string()),
    };
    request.connection.write_all(&head.finish(), || reader.goes_on())?;
    let shared = request.shared;
    shared.update(|state| state.count(Some(content), |counts| counts.playbacks += 1));
    let first_byte = Instant::now().checked_add(ticket.playback.first_byte_after);
    let mut body = Sender::new(&reader, &known, added, ticket.playback);
    let end = match reader.wait_until(first_byte) {
        WaitEnd::TimeUp => body.run()?,
        WaitEnd::Released | WaitEnd::Gone => reader.end(),
    };
    match end {
        BodyEnd::Clean => {
            if known.delivery.framing == Framing::Chunked {
                request.connection.write_all(b"0\r\n\r\n", || reader.goes_on())?;
            }
            Ok(Reply::Close)
        }
        BodyEnd::Reset => Ok(Reply::Reset),
    }
}
