//! Where a decoder may start.
//!
//! One elementary stream decides: the first video stream of the first programme that has one, else the first
//! audio stream, else the first private one. While no table is known, every PID that is not reserved for
//! tables does. Of the deciding stream each PES packet is looked into until its first picture is known for one
//! that can be decoded by itself or for another; of all other packets only PID and flags are looked at.
//!
//! It holds the state of one PES packet, a few dozen bytes, and keeps no list of what it found.

use super::packet::{Packet, Pid};
use super::pes::{PesHead, starts_pes};
use super::picture::{Picture, PictureFinder};
use super::pmt::{StreamKind, VideoCodec};
use super::psi::PsiCache;

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
    decider: Decider,
    /// The PES packet that is not decided yet.
    open: Option<Open>,
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
        if packet.starts_unit() {
            return self.begin(number, packet, tables);
        }
        let open = self.open.as_mut().filter(|open| open.pid == packet.pid())?;
        let finding = open.follow(packet);
        self.settle(finding)
    }

    /// Forgets what came, as after a gap in the stream.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn begin(&mut self, number: u64, packet: &Packet<'_>, tables: &PsiCache) -> Option<Start> {
        let decider = Decider::of(tables);
        if decider != self.decider {
            self.decider = decider;
            self.open = None;
        }
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
                let finding = open.look_into(packet.payload().unwrap_or_default());
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
            Finding::Picture(Picture::Key) => Some(Start { packet: open.start, kind: StartKind::Keyframe }),
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
        let picture = PictureFinder::new(codec);
        Self { start, pid, continuity, random_access, head: PesHead::new(), picture }
    }

    /// Takes the next packet of its PID.
    fn follow(&mut self, packet: &Packet<'_>) -> Finding {
        let Some(payload) = packet.payload() else { return Finding::Open };
        let is_next = packet.continuity() == (self.continuity + 1) % 16;
        if packet.has_error() || packet.is_scrambled() || !is_next {
            return Finding::Torn;
        }
        self.continuity = packet.continuity();
        self.look_into(payload)
    }

    fn look_into(&mut self, payload: &[u8]) -> Finding {
        for &byte in payload {
            match self.head {
                PesHead::Open { .. } => self.head.push(byte),
                PesHead::Read => {
                    if let Some(picture) = self.picture.push(byte) {
                        return Finding::Picture(picture);
                    }
                }
                PesHead::Unreadable => return Finding::Picture(Picture::Unreadable),
            }
        }
        Finding::Open
    }

    /// What the multiplexer says of it.
    fn by_indicator(&self) -> Option<Start> {
        (self.random_access == RandomAccess::Set)
            .then_some(Start { packet: self.start, kind: StartKind::Keyframe })
    }
}

impl Decider {
    fn of(tables: &PsiCache) -> Self {
        let video = tables.streams().find_map(|stream| match stream.kind() {
            StreamKind::Video(codec) => Some(Self::Video(stream.pid, codec)),
            StreamKind::OtherVideo => Some(Self::OtherVideo(stream.pid)),
            _ => None,
        });
        let first = |kind| {
            let mut streams = tables.streams();
            streams.find(|stream| stream.kind() == kind).map(|stream| Self::Audio(stream.pid))
        };
        video.or_else(|| first(StreamKind::Audio)).or_else(|| first(StreamKind::Private)).unwrap_or_default()
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
