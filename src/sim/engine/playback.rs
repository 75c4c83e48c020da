//! Playback: the playback URL, the redirect, and the body with its pace and its faults.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::media::{Media, packet::PACKET_BYTES};
use super::call::{Reply, Request};
use super::content::{Begin, Burst, Content, Framing, Pace};
use super::hls;
use super::http::{Answer, is_gone, status_line};
use super::script::{Entry, Event, Head, Order, Playback};
use super::sessions::{EndedReaders, Ticket};
use super::state::{Body, Held};

/// What one write of an unlimited body may hold at most, whatever its script asks for.
const MAX_PENDING_BYTES: usize = 256 * 1024;
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
        let session = state.sessions.get_mut(token, content)?;
        session.active = Instant::now();
        let opened = session.opened;
        let known = &mut state.contents[content];
        known.attempts.playback += 1;
        let playback = known.script.playback.at(known.attempts.playback - 1).clone();
        let ready = opened + known.content.delivery.prebuffer;
        Some((playback, ready))
    });
    let Some((playback, ready)) = found else {
        return not_found();
    };
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
        Held::Gone => return Ok(Reply::Close),
        Held::Released => return not_found(),
        Held::TimeUp => {}
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
            let head = super::http::Head::new(200)
                .with("Content-Type", content_type)
                .with("Content-Length", &body.len().to_string());
            let text = [head.finish().as_slice(), body.as_bytes()].concat();
            request.connection.write_all(&text, || true)?;
            return Ok(Reply::Close);
        }
        Head::Late(time) => {
            if reader.wait_until(Instant::now().checked_add(*time)) != Held::TimeUp {
                return Ok(Reply::Close);
            }
        }
    }
    let (known, added) = {
        let state = request.shared.lock();
        let known = &state.contents[content];
        (Arc::clone(&known.content), known.added)
    };
    let mut head = super::http::Head::new(200);
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
        Held::TimeUp => body.run()?,
        Held::Released | Held::Gone => reader.end(),
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

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEnd {
    Clean,
    Reset,
}

/// A place at a session, counted from entering to dropping.
struct Reader<'a> {
    request: &'a Request<'a>,
    content: usize,
    token: String,
    number: u64,
}

impl<'a> Reader<'a> {
    /// Takes a place; `None` if the rules give a second reader broken HTTP.
    fn enter(request: &'a Request<'a>, content: usize, token: String) -> Option<Self> {
        let rules = request.shared.settings.rules;
        let number = request.shared.control(|state| {
            let session = state.sessions.get_mut(&token, content);
            let newest_reads = session.is_some_and(|session| session.newest_reads);
            let mut has_reader = false;
            for body in state.bodies.values_mut().filter(|body| body.token == token) {
                // One whose client has closed already is about to end by itself.
                let is_there = body.socket.upgrade().is_some_and(|socket| !is_gone(&socket));
                has_reader |= is_there;
                if newest_reads {
                    body.order = Order::End;
                }
            }
            if has_reader && !newest_reads {
                state.count(Some(content), |counts| counts.second_readers += 1);
                if rules.second_reader_is_broken {
                    return None;
                }
            }
            if let Some(session) = state.sessions.get_mut(&token, content) {
                session.readers += 1;
            }
            state.count(Some(content), |counts| {
                counts.readers += 1;
                counts.readers_max = counts.readers_max.max(counts.readers);
            });
            let number = state.number();
            let body = Body {
                content,
                token: token.clone(),
                socket: Arc::downgrade(request.connection.socket()),
                order: Order::Resume,
            };
            state.bodies.insert(number, body);
            Some(number)
        })?;
        Some(Self { request, content, token, number })
    }

    /// What is to be done now: its session's end counts as an order too.
    fn order(&self, state: &super::state::State) -> Order {
        let order = state.bodies.get(&self.number).map_or(Order::End, |body| body.order);
        if matches!(order, Order::Resume | Order::Stall) && !state.sessions.contains(&self.token) {
            return match self.request.shared.settings.rules.ended_readers {
                EndedReaders::End => Order::End,
                EndedReaders::Stall => Order::Stall,
            };
        }
        order
    }

    /// Whether a write that blocks is to be tried again.
    fn goes_on(&self) -> bool {
        let state = self.request.shared.lock();
        !state.is_stopping && !matches!(self.order(&state), Order::End | Order::Reset)
    }

    /// Waits, at most until then, through stalls too: `Released` by an order to end.
    fn wait_until(&self, until: Option<Instant>) -> Held {
        self.request.hold(until, |state| matches!(self.order(state), Order::End | Order::Reset))
    }

    /// Falls silent, until an order.
    fn stall(&self) {
        self.request.shared.control(|state| {
            if let Some(body) = state.bodies.get_mut(&self.number)
                && body.order == Order::Resume
            {
                body.order = Order::Stall;
            }
        });
    }

    /// Waits while the order is to stall.
    fn wait_out_stall(&self) -> Held {
        self.request.hold(None, |state| self.order(state) != Order::Stall)
    }

    fn end(&self) -> BodyEnd {
        let state = self.request.shared.lock();
        if self.order(&state) == Order::Reset { BodyEnd::Reset } else { BodyEnd::Clean }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.request.shared.control(|state| {
            state.bodies.remove(&self.number);
            if let Some(session) = state.sessions.get_mut(&self.token, self.content) {
                session.readers -= 1;
                session.active = Instant::now();
            }
            state.count(Some(self.content), |counts| counts.readers -= 1);
        });
    }
}

/// Sends a body: packets as they fall due, cut into writes, with what the script does to them.
struct Sender<'a> {
    reader: &'a Reader<'a>,
    content: &'a Content,
    /// When media time 0 is sent.
    origin: Instant,
    /// How much media time is sent ahead.
    ahead: Duration,
    next_packet: u64,
    /// Bytes made but not sent, from `at` on.
    pending: Vec<u8>,
    at: usize,
    /// Bytes still to be left out.
    to_drop: usize,
    sent: u64,
    events: VecDeque<(u64, Event)>,
    writes: usize,
}

impl<'a> Sender<'a> {
    fn new(reader: &'a Reader<'a>, content: &'a Content, added: Instant, playback: Playback) -> Self {
        let delivery = &content.delivery;
        let media = &content.media;
        let now = Instant::now();
        let (origin, next_packet) = match delivery.begin {
            Begin::Live => (added, media.due_by(now - added)),
            Begin::Start => (now, 0),
        };
        let ahead = match delivery.burst {
            Burst::Time(time) => time,
            Burst::Bytes(bytes) => {
                let packets = bytes / PACKET_BYTES as u64;
                media.due(next_packet + packets).saturating_sub(media.due(next_packet))
            }
        };
        let mut events = VecDeque::from(playback.events);
        if let Framing::Length(bytes) = delivery.framing {
            let at = events.partition_point(|(at, _)| *at <= bytes);
            events.insert(at, (bytes, Event::End));
        }
        Self {
            reader,
            content,
            origin,
            ahead,
            next_packet,
            pending: Vec::new(),
            at: 0,
            to_drop: delivery.skip_bytes % PACKET_BYTES,
            sent: 0,
            events,
            writes: 0,
        }
    }

    fn run(&mut self) -> io::Result<BodyEnd> {
        loop {
            if let Some(end) = self.do_events() {
                return Ok(end);
            }
            let is_stalled = {
                let state = self.reader.request.shared.lock();
                match self.reader.order(&state) {
                    _ if state.is_stopping => return Ok(BodyEnd::Clean),
                    Order::Resume => false,
                    Order::Stall => true,
                    Order::End => return Ok(BodyEnd::Clean),
                    Order::Reset => return Ok(BodyEnd::Reset),
                }
            };
            if is_stalled {
                if self.reader.wait_out_stall() == Held::Gone {
                    return Ok(BodyEnd::Clean);
                }
                continue;
            }
            let wanted = self.next_write_bytes();
            self.fill(wanted);
            let ready = self.pending.len() - self.at;
            let is_over = self.next_packet >= self.content.media.packets();
            if ready >= wanted || is_over && ready > 0 {
                self.send(ready.min(wanted))?;
            } else if is_over || self.reader.wait_until(self.due(wanted - ready)) == Held::Gone {
                return Ok(BodyEnd::Clean);
            }
        }
    }

    /// Does what is due at this byte.
    fn do_events(&mut self) -> Option<BodyEnd> {
        while let Some(&(at, event)) = self.events.front()
            && at <= self.sent
        {
            self.events.pop_front();
            match event {
                Event::End => return Some(BodyEnd::Clean),
                Event::Reset => return Some(BodyEnd::Reset),
                Event::Stall => {
                    self.reader.stall();
                    return None;
                }
                Event::Pause(time) => {
                    if self.reader.wait_until(Instant::now().checked_add(time)) != Held::TimeUp {
                        return Some(self.reader.end());
                    }
                }
                Event::Garbage(bytes) => {
                    // Never a sync byte by chance: what comes of it must be the same in every run.
                    self.insert((0..bytes).map(|at| (at % 0x40) as u8));
                }
                Event::NullPackets(count) => {
                    let mut packet = [0xff; PACKET_BYTES];
                    packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
                    self.insert(std::iter::repeat_n(packet, count).flatten());
                }
                Event::Tear(bytes) => self.to_drop += bytes,
            }
        }
        None
    }

    /// Has these bytes sent before what is pending.
    fn insert(&mut self, bytes: impl Iterator<Item = u8>) {
        let rest = self.pending.split_off(self.at);
        self.pending = bytes.chain(rest).collect();
        self.at = 0;
    }

    /// How long the next write is to be: the next of the pattern, but only up to the next event.
    fn next_write_bytes(&self) -> usize {
        let sizes = &self.content.delivery.write_bytes;
        let size = match sizes.len() {
            0 => PACKET_BYTES,
            count => sizes[self.writes % count].clamp(1, MAX_PENDING_BYTES),
        };
        match self.events.front() {
            Some((at, _)) => {
                let left = usize::try_from(at - self.sent).unwrap_or(usize::MAX);
                size.min(left)
            }
            None => size,
        }
    }

    /// Makes packets until `wanted` bytes are pending, if so many are due: none is made before it can be sent, so
    /// that the times in numbered packets are those of sending.
    fn fill(&mut self, wanted: usize) {
        let media = &self.content.media;
        let limit = match self.content.delivery.pace {
            Pace::RealTime => media.due_by(self.origin.elapsed() + self.ahead),
            Pace::Unlimited => media.packets(),
        };
        loop {
            let dropped = self.to_drop.min(self.pending.len() - self.at);
            self.at += dropped;
            self.to_drop -= dropped;
            let missing = (wanted + self.to_drop).saturating_sub(self.pending.len() - self.at);
            let packets = missing.div_ceil(PACKET_BYTES) as u64;
            let to = limit.min(self.next_packet.saturating_add(packets));
            let is_enough = to == media.packets() || to == self.next_packet.saturating_add(packets);
            if to <= self.next_packet || !is_enough {
                return;
            }
            self.pending.drain(..self.at);
            self.at = 0;
            media.append(self.next_packet, to, &mut self.pending);
            self.next_packet = to;
        }
    }

    /// When so many more bytes will be due.
    fn due(&self, bytes: usize) -> Option<Instant> {
        let packets = (bytes + self.to_drop).div_ceil(PACKET_BYTES) as u64;
        let last = self.next_packet.saturating_add(packets - 1);
        let last = last.min(self.content.media.packets() - 1);
        let media = self.media().due(last).saturating_sub(self.ahead);
        self.origin.checked_add(media)
    }

    fn media(&self) -> &Media {
        &self.content.media
    }

    fn send(&mut self, bytes: usize) -> io::Result<()> {
        let data = &self.pending[self.at..self.at + bytes];
        let connection = self.reader.request.connection;
        if self.content.delivery.framing == Framing::Chunked {
            let head = format!("{bytes:x}\r\n");
            let chunk = [head.as_bytes(), data, b"\r\n"].concat();
            connection.write_all(&chunk, || self.reader.goes_on())?;
        } else {
            connection.write_all(data, || self.reader.goes_on())?;
        }
        self.at += bytes;
        self.sent += bytes as u64;
        self.writes += 1;
        let content = self.reader.content;
        self.reader.request.shared.update(|state| {
            state.count(Some(content), |counts| counts.bytes_sent += bytes as u64);
        });
        Ok(())
    }
}
