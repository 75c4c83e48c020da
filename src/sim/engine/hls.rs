//! Playback as an HLS list: what engines answer for encrypted, direct and hybrid sources (engine-contract.md 8.2).
//!
//! The list slides; its segments have no token in their URLs and leave with the window. Each is a piece of the media, cut
//! between packets, so that all of them are what a reader of the stream would get.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::call::{Reply, Request};
use super::http::{Answer, AnswerHead};
use super::listing::Hls;
use super::sessions::Ticket;

/// What segments answer that are not there (yet, or any more).
const NOT_FOUND: &str = "download not found";

/// Answers a playback with the list, or with one that names it.
pub(super) fn list(request: &Request<'_>, content: usize, ticket: &Ticket, hls: &Hls) -> io::Result<Reply> {
    let found = request.shared.update(|state| {
        state.count(Some(content), |counts| counts.lists += 1);
        let is_newest = state.sessions.newest(content).as_ref() == Some(&ticket.token);
        let session = state.sessions.get_mut(&ticket.token, content)?;
        session.active = Instant::now();
        state.free_if_quiet(content, Instant::now());
        let known = &mut state.contents[content];
        known.note_reader_left(Instant::now());
        Some((Arc::clone(&known.content), known.added, is_newest))
    });
    let Some((known, added, is_newest)) = found else {
        return Ok(Reply::Answer(Answer::plain(500, NOT_FOUND)));
    };
    // The newest session of a content is the only one that may follow its list.
    if !is_newest {
        return Ok(Reply::Answer(Answer::plain(403, "Forbidden")));
    }
    let base = request.base_url()?;
    let text = if hls.has_variants && request.record.param("variant").is_none() {
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=800000\nlow.m3u8\n\
         #EXT-X-STREAM-INF:BANDWIDTH=5000000\n?variant=1\n"
            .to_owned()
    } else {
        hls.text(&base, known.infohash, added.elapsed())
    };
    Ok(Reply::Answer(Answer::text(200, "application/vnd.apple.mpegurl", text)))
}

/// Answers `/ace/c/<infohash>/<number>.ts`.
pub(super) fn segment(request: &Request<'_>, infohash: &str, name: &str) -> io::Result<Reply> {
    let number = name.strip_suffix(".ts").and_then(|number| number.parse::<u64>().ok());
    let found = request.by_path(infohash).zip(number).and_then(|(content, number)| {
        let state = request.shared.lock();
        let known = &state.contents[content];
        let (hls, since) = (known.content.hls.clone()?, known.added.elapsed());
        let is_there = hls.listed(since).contains(&number)
            && since >= hls.there_at(number)
            && hls.missing != Some(number)
            && known.stuck.is_none()
            && state.sessions.newest(content).is_some();
        is_there.then(|| (content, Arc::clone(&known.broadcast), hls, number))
    });
    let Some((content, broadcast, hls, number)) = found else {
        return Ok(Reply::Answer(Answer::plain(404, NOT_FOUND)));
    };
    let (from, to) = hls.packets(&broadcast, number);
    let mut body = Vec::new();
    broadcast.append(from, to, &mut body);
    let head = AnswerHead::new(200)
        .with("Content-Type", "video/mp2t")
        .with("Content-Length", &body.len().to_string())
        .with("Connection", "close")
        .finish();
    let goes_on = || request.shared.pass().is_ok();
    request.connection.write_all(&[head, body.clone()].concat(), goes_on)?;
    request.shared.update(|state| {
        let newest = state.sessions.newest(content);
        if let Some(session) = newest.and_then(|token| state.sessions.get_mut(&token, content)) {
            session.sent += body.len() as u64;
        }
        let given = &mut state.contents[content].given;
        *given = to.max(*given);
        state.count(Some(content), |counts| {
            counts.segments += 1;
            counts.bytes_sent += body.len() as u64;
        });
    });
    Ok(Reply::Close)
}
