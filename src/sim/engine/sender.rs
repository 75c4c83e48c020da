//! Sends a body: its pace, the sizes of its writes, and what goes wrong in its course.
//!
//! It must not know how the body was asked for.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::media::{Broadcast, packet, packet::PACKET_BYTES};
use super::content::{Begin, Content, Framing, Pace};
use super::reader::{BodyEnd, Course, Reader};
use super::script::{BodyEvent, PlaybackStep};
use super::state::WaitEnd;

/// What one write of an unlimited body may hold at most, whatever its script asks for.
const MAX_PENDING_BYTES: usize = 256 * 1024;

/// Sends a body: packets as they fall due, cut into writes, with what the script does to them.
pub(super) struct Sender<'a> {
    reader: &'a Reader<'a>,
    content: &'a Content,
    /// When media time 0 is sent.
    origin: Instant,
    /// How much media time is sent ahead.
    ahead: Duration,
    broadcast: Arc<Broadcast>,
    next_packet: u64,
    /// Nothing follows what is pending for now: the broadcaster has gone.
    is_at_edge: bool,
    /// Bytes made but not sent, from `at` on.
    pending: Vec<u8>,
    at: usize,
    /// Bytes still to be left out.
    to_drop: usize,
    has_picture: bool,
    sent: u64,
    events: VecDeque<(u64, BodyEvent)>,
    writes: usize,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        reader: &'a Reader<'a>,
        content: &'a Content,
        added: Instant,
        playback: PlaybackStep,
    ) -> Self {
        let delivery = &content.delivery;
        let broadcast = reader.broadcast();
        let now = Instant::now();
        let live = |behind| broadcast.due_by((now - added).saturating_sub(behind)).packet;
        let (origin, next_packet) = match delivery.begin {
            Begin::Live => (added, live(Duration::ZERO)),
            Begin::Behind(time) => (added, live(time)),
            Begin::Start => (now, 0),
        };
        let ahead = delivery.ahead(&content.media);
        let mut events = VecDeque::from(playback.events);
        if let Framing::Length(bytes) = delivery.framing {
            let at = events.partition_point(|(at, _)| *at <= bytes);
            events.insert(at, (bytes, BodyEvent::End));
        }
        Self {
            reader,
            content,
            origin,
            ahead,
            broadcast,
            next_packet,
            is_at_edge: false,
            pending: Vec::new(),
            at: 0,
            to_drop: delivery.skip_bytes % PACKET_BYTES,
            has_picture: true,
            sent: 0,
            events,
            writes: 0,
        }
    }

    pub(super) fn run(&mut self) -> io::Result<BodyEnd> {
        loop {
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
            let wanted = self.next_write_bytes();
            self.fill(wanted);
            let ready = self.pending.len() - self.at;
            let is_over = self.next_packet >= self.broadcast.packets();
            if ready >= wanted || self.is_at_edge && ready > 0 {
                self.send(ready.min(wanted))?;
            } else if is_over || self.reader.wait_until(self.due(wanted - ready)) == WaitEnd::Gone {
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
                BodyEvent::End => return Some(BodyEnd::Clean),
                BodyEvent::Reset => return Some(BodyEnd::Reset),
                BodyEvent::Stall => {
                    self.reader.stall();
                    return None;
                }
                BodyEvent::Pause(time) => {
                    if self.reader.wait_until(Instant::now().checked_add(time)) != WaitEnd::TimeUp {
                        return Some(self.reader.end());
                    }
                }
                BodyEvent::Garbage(bytes) => {
                    // Never a sync byte by chance: what comes of it must be the same in every run.
                    self.insert((0..bytes).map(|at| (at % 0x40) as u8));
                }
                BodyEvent::NullPackets(count) => {
                    let mut packet = [0xff; PACKET_BYTES];
                    packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
                    self.insert(std::iter::repeat_n(packet, count).flatten());
                }
                BodyEvent::Tear(bytes) => self.to_drop += bytes,
                BodyEvent::LosePicture => self.has_picture = false,
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
        loop {
            let dropped = self.to_drop.min(self.pending.len() - self.at);
            self.at += dropped;
            self.to_drop -= dropped;
            let missing = (wanted + self.to_drop).saturating_sub(self.pending.len() - self.at);
            let packets = missing.div_ceil(PACKET_BYTES) as u64;
            let Some(to) = self.claim(packets) else {
                return;
            };
            self.pending.drain(..self.at);
            self.at = 0;
            let begin = self.pending.len();
            self.broadcast.append(self.next_packet, to, &mut self.pending);
            if let Some(dress) = self.content.dress {
                let plain = self.pending.split_off(begin);
                for (place, packet) in (self.next_packet..).zip(plain.as_chunks().0) {
                    dress(place, packet, &mut self.pending);
                }
            }
            if !self.has_picture {
                packet::take_out_picture(&mut self.pending[begin..]);
            }
            self.next_packet = to;
        }
    }

    /// Takes so many packets, or as many as there will be for now, if all of them are due: the first one after them.
    fn claim(&mut self, packets: u64) -> Option<u64> {
        let (pace, content) = (self.content.delivery.pace, self.reader.content);
        let mut state = self.reader.request.shared.lock();
        let known = &mut state.contents[content];
        let limit = match pace {
            Pace::RealTime => known.broadcast.due_by(self.origin.elapsed() + self.ahead),
            Pace::Unlimited => known.broadcast.all_by(Instant::now()),
        };
        if !Arc::ptr_eq(&self.broadcast, &known.broadcast) {
            self.broadcast = Arc::clone(&known.broadcast);
        }
        self.is_at_edge = limit.is_edge && limit.packet <= self.next_packet;
        let wanted = self.next_packet.saturating_add(packets);
        let to = limit.packet.min(wanted);
        let is_enough = to == wanted || limit.is_edge && to == limit.packet;
        if to <= self.next_packet || !is_enough {
            return None;
        }
        self.is_at_edge = limit.is_edge && to == limit.packet;
        // Under the lock: a broadcaster that begins anew does so behind what was given.
        known.given = known.given.max(to);
        Some(to)
    }

    /// When so many more bytes will be due.
    fn due(&self, bytes: usize) -> Option<Instant> {
        let packets = (bytes + self.to_drop).div_ceil(PACKET_BYTES) as u64;
        let last = self.next_packet.saturating_add(packets - 1);
        let last = last.min(self.broadcast.packets() - 1);
        if self.content.delivery.pace == Pace::Unlimited {
            return self.broadcast.opens(last);
        }
        let media = self.broadcast.due(last).saturating_sub(self.ahead);
        self.origin.checked_add(media)
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
            if let Some(session) = state.sessions.get_mut(&self.reader.token, content) {
                session.sent += bytes as u64;
            }
            state.count(Some(content), |counts| counts.bytes_sent += bytes as u64);
        });
        Ok(())
    }
}
