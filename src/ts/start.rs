//! Where a decoder may start.
//!
//! One elementary stream decides: the first video stream of the first programme that has one, else the first
//! audio stream, else the first private one. One that sends nothing for some seconds is stood in for by the next that
//! does, until it sends again: a picture that is announced and never comes, one still picture in half a minute, a picture
//! that has died. While no table is known, every PID that is not reserved for tables decides. Of the deciding stream each PES packet is looked into until its first picture is known for one
//! that can be decoded by itself or for another; of all other packets only PID and flags are looked at.
//!
//! It holds the state of one PES packet, a few dozen bytes, and keeps no list of what it found.

use super::packet::{Packet, Pid};
use super::pes::{PesHead, decoding_time, starts_pes};
use super::picture::{Picture, PictureFinder};
use super::pmt::{StreamKind, VideoCodec};
use super::psi::PsiCache;

/// After so much of the time of another stream, in 90 kHz ticks, a stream that has sent nothing decides no more. Pictures and
/// their sound lie up to a second or two apart in a multiplex.
const STAND_IN_AFTER: u64 = 3 * 90_000;

/// A longer step from one PES packet to the next is a jump, and tells nothing of time that has passed.
const MAX_STEP: u64 = 10 * 90_000;

/// What a PES packet without time stamps is taken to last: that of a frame of sound.
const UNSTAMPED_STEP: u64 = 1_920;

/// After so many PES packets without a keyframe at their begin they are looked into to their end: some multiplexers put
/// several pictures into one, or begin one seldom, and the keyframe may be any of them. Four seconds of ordinary ones; where
/// keyframes are found as they should be, nothing behind the first picture is looked at.
const SHALLOW_PES: u32 = 100;

/// A place in the stream where a client may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Number of the packet that starts the PES packet.
    pub packet: u64,
    /// What begins there.
    pub kind: StartKind,
}

/// What begins at a [`Start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartKind {
    /// A picture, or audio, that can be decoded without what came before.
    Keyframe,
    /// Something whole, though a decoder may need what came before: better than the middle of something.
    Pes,
}

/// Finds the places in a stream where a client may begin.
#[derive(Debug, Default)]
pub struct StartFinder {
    /// By the tables.
    decider: Decider,
    stand_in: StandIn,
    /// The PES packet that is not decided yet.
    open: Option<Open>,
    /// PES packets in a row without a keyframe.
    without_keyframe: u32,
    /// The last packet that began a PES packet, as far as it takes to know it again.
    last: Option<Begin>,
}

/// A packet that began a PES packet: PID, counter and time in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begin(u64);

impl Begin {
    fn of(packet: &Packet<'_>) -> Option<Self> {
        let time = decoding_time(packet).filter(|_| !packet.has_error())?;
        // 33 bits of time, 4 of the counter, 13 of the PID.
        Some(Self(time | u64::from(packet.continuity()) << 33 | u64::from(packet.pid().get()) << 37))
    }
}

/// The stream whose PES packets count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Decider {
    /// No stream is known: any.
    #[default]
    Any,
    /// Video of a coding that is understood.
    Video(Pid, VideoCodec),
    /// Video that only its multiplexer understands.
    OtherVideo(Pid),
    /// Audio or private data: every PES packet can be decoded by itself.
    Audio(Pid),
}

/// Who decides while the stream that should sends nothing.
#[derive(Debug, Default)]
struct StandIn {
    /// The first by the tables of those that have sent since.
    decider: Decider,
    /// The time of its last PES packet.
    time: Option<u64>,
    /// How long the silence is, in 90 kHz ticks.
    silence: u64,
}

/// A PES packet of video that is being looked into.
#[derive(Debug)]
struct Open {
    start: u64,
    pid: Pid,
    /// Counter of its last packet.
    continuity: u8,
    /// What to believe if the picture cannot be read.
    random_access: RandomAccess,
    head: PesHead,
    picture: PictureFinder,
    /// It began with a picture that is no keyframe, and is looked into all the same.
    is_beyond_first: bool,
}

/// `random_access_indicator` of a packet that starts a PES packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RandomAccess {
    Set,
    Unset,
}

impl StartFinder {
    /// At the begin of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next packet; `number` is its number in the stream, and `tables` has seen it already.
    ///
    /// Each PES packet of the deciding stream is reported once as it begins, as [`StartKind::Pes`] if it is
    /// not known for a keyframe yet. If it turns out to be one, perhaps packets later, a
    /// [`StartKind::Keyframe`] with the same packet number follows.
    pub fn observe(&mut self, number: u64, packet: &Packet<'_>, tables: &PsiCache) -> Option<Start> {
        if self.stand_in.silence > 0 && packet.has_payload() && Some(packet.pid()) == self.decider.pid() {
            self.stand_in = StandIn::default();
        }
        if packet.starts_unit() {
            return if self.is_repeated(packet) { None } else { self.begin(number, packet, tables) };
        }
        let is_deep = self.without_keyframe >= SHALLOW_PES;
        let open = self.open.as_mut().filter(|open| open.pid == packet.pid())?;
        let finding = open.follow(packet, is_deep);
        self.settle(finding)
    }

    /// Forgets what came, as after a gap in the stream.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a packet that starts a unit is the last of its kind once more: each may be sent twice (clause 2.4.3.3).
    fn is_repeated(&mut self, packet: &Packet<'_>) -> bool {
        let begin = Begin::of(packet);
        begin.is_some() && std::mem::replace(&mut self.last, begin) == begin
    }

    fn begin(&mut self, number: u64, packet: &Packet<'_>, tables: &PsiCache) -> Option<Start> {
        let declared = Decider::of(tables);
        if declared != self.decider {
            *self = Self { decider: declared, last: self.last, ..Self::default() };
        }
        self.stand_in.observe(packet, declared, tables);
        let decider = if self.stand_in.silence > STAND_IN_AFTER { self.stand_in.decider } else { declared };
        if !decider.listens_to(packet.pid(), tables) || packet.has_error() {
            return None;
        }
        // Without a picture in the one before, its multiplexer's word counts. That one is reported instead of
        // this, which is no better place.
        let late = self.open.take().and_then(|open| open.by_indicator());
        let indicator = if packet.random_access() { RandomAccess::Set } else { RandomAccess::Unset };
        let kind = match decider {
            Decider::Any if indicator == RandomAccess::Set && packet.has_payload() => StartKind::Keyframe,
            _ if !starts_pes(packet) => return late,
            Decider::Audio(_) => StartKind::Keyframe,
            Decider::Video(pid, codec) if !packet.is_scrambled() => {
                let mut open = Open::new(number, pid, packet.continuity(), indicator, codec);
                self.without_keyframe = self.without_keyframe.saturating_add(1);
                let is_deep = self.without_keyframe >= SHALLOW_PES;
                let finding = open.look_into(packet.payload().unwrap_or_default(), is_deep);
                self.open = Some(open);
                let keyframe = self.settle(finding);
                return late.or(keyframe).or(Some(Start { packet: number, kind: StartKind::Pes }));
            }
            Decider::Video(..) | Decider::OtherVideo(_) if indicator == RandomAccess::Set => {
                StartKind::Keyframe
            }
            Decider::Video(..) | Decider::OtherVideo(_) | Decider::Any => StartKind::Pes,
        };
        late.or(Some(Start { packet: number, kind }))
    }

    /// Closes what is decided.
    fn settle(&mut self, finding: Finding) -> Option<Start> {
        let open = match finding {
            Finding::Open => return None,
            _ => self.open.take()?,
        };
        match finding {
            Finding::Picture(Picture::Key) => {
                self.without_keyframe = if open.is_beyond_first { self.without_keyframe } else { 0 };
                Some(Start { packet: open.start, kind: StartKind::Keyframe })
            }
            Finding::Picture(Picture::Unreadable) => open.by_indicator(),
            Finding::Picture(Picture::Other) | Finding::Torn | Finding::Open => None,
        }
    }
}

/// What a packet told of an open PES packet.
#[derive(Debug, Clone, Copy)]
enum Finding {
    /// Nothing yet.
    Open,
    /// With what picture it goes on.
    Picture(Picture),
    /// A part of it is missing or broken.
    Torn,
}

impl Open {
    const fn new(
        start: u64,
        pid: Pid,
        continuity: u8,
        random_access: RandomAccess,
        codec: VideoCodec,
    ) -> Self {
        let picture = PictureFinder::new(codec, matches!(random_access, RandomAccess::Set));
        let head = PesHead::new();
        Self { start, pid, continuity, random_access, head, picture, is_beyond_first: false }
    }

    /// Takes the next packet of its PID.
    fn follow(&mut self, packet: &Packet<'_>, is_deep: bool) -> Finding {
        let Some(payload) = packet.payload() else { return Finding::Open };
        if packet.continuity() == self.continuity {
            // Sent twice, which is allowed.
            return Finding::Open;
        }
        let is_next = packet.continuity() == (self.continuity + 1) % 16;
        if packet.has_error() || packet.is_scrambled() || !is_next {
            return Finding::Torn;
        }
        self.continuity = packet.continuity();
        self.look_into(payload, is_deep)
    }

    fn look_into(&mut self, payload: &[u8], is_deep: bool) -> Finding {
        for &byte in payload {
            match self.head {
                PesHead::Open { .. } => self.head.push(byte),
                PesHead::Read => {
                    let Some(picture) = self.picture.push(byte) else { continue };
                    let goes_on = is_deep && (picture == Picture::Other || self.is_beyond_first);
                    if picture == Picture::Key || !goes_on {
                        return Finding::Picture(picture);
                    }
                    self.is_beyond_first = true;
                    self.picture.go_on();
                }
                PesHead::Unreadable => return Finding::Picture(Picture::Unreadable),
            }
        }
        Finding::Open
    }

    /// What the multiplexer says of it.
    fn by_indicator(&self) -> Option<Start> {
        (self.random_access == RandomAccess::Set && !self.is_beyond_first)
            .then_some(Start { packet: self.start, kind: StartKind::Keyframe })
    }
}

impl StandIn {
    /// Looks at a packet that starts a unit.
    fn observe(&mut self, packet: &Packet<'_>, declared: Decider, tables: &PsiCache) {
        let pid = packet.pid();
        if declared == Decider::Any || Some(pid) == declared.pid() || !starts_pes(packet) {
            return;
        }
        if Some(pid) != self.decider.pid() {
            let mut by_rank = Decider::candidates(tables);
            let better = by_rank.find(|candidate| [Some(pid), self.decider.pid()].contains(&candidate.pid()));
            if let Some(better) = better.filter(|better| better.pid() == Some(pid)) {
                (self.decider, self.time) = (better, None);
            } else {
                return;
            }
        }
        let before = self.time;
        self.time = decoding_time(packet);
        self.silence += match (before, self.time) {
            // 33 bits, which begin anew.
            (Some(before), Some(time)) => match time.wrapping_sub(before) % (1 << 33) {
                step if step <= MAX_STEP => step,
                _ => 0,
            },
            _ => UNSTAMPED_STEP,
        };
    }
}

impl Decider {
    fn of(tables: &PsiCache) -> Self {
        Self::candidates(tables).next().unwrap_or_default()
    }

    /// Who may decide, the best first.
    fn candidates(tables: &PsiCache) -> impl Iterator<Item = Self> {
        let video = tables.streams().filter_map(|stream| match stream.kind() {
            StreamKind::Video(codec) => Some(Self::Video(stream.pid, codec)),
            StreamKind::OtherVideo => Some(Self::OtherVideo(stream.pid)),
            _ => None,
        });
        let others = [StreamKind::Audio, StreamKind::Private].into_iter().flat_map(|kind| {
            let of_this_kind = tables.streams().filter(move |stream| stream.kind() == kind);
            of_this_kind.map(|stream| Self::Audio(stream.pid))
        });
        video.chain(others)
    }

    const fn pid(self) -> Option<Pid> {
        match self {
            Self::Any => None,
            Self::Video(pid, _) | Self::OtherVideo(pid) | Self::Audio(pid) => Some(pid),
        }
    }

    fn listens_to(self, pid: Pid, tables: &PsiCache) -> bool {
        match self {
            Self::Any => pid != Pid::NULL && !tables.is_table(pid),
            Self::Video(of, _) | Self::OtherVideo(of) | Self::Audio(of) => pid == of,
        }
    }
}

#[cfg(test)]
mod tests;
