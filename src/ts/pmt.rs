//! What a programme map section says (ISO/IEC 13818-1 clauses 2.4.4.8 and 2.4.4.9).

use super::packet::Pid;

/// An elementary stream of a programme (clause 2.4.4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementaryStream {
    /// Where its packets are.
    pub pid: Pid,
    /// `stream_type` (table 2-34): 0x1B is H.264, 0x24 HEVC, 0x02 MPEG-2 video, 0x0F AAC, 0x03 and 0x04 MPEG
    /// audio.
    pub stream_type: u8,
    /// What its descriptors say where its type says little.
    pub described: Option<Described>,
}

/// A coding that is told by descriptors (EN 300 468 table 12, registrations of the SMPTE, ISO/IEC 13818-1 table 2-45).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Described {
    /// H.264.
    H264,
    /// HEVC.
    Hevc,
    /// Another video coding, of this name.
    Video(&'static str),
    /// An audio coding of this name.
    Audio(&'static str),
    /// Text of this kind.
    Text(&'static str),
}

/// A video coding whose pictures can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// MPEG-1 and MPEG-2 video, which agree in all that is read here (ISO/IEC 11172-2, H.262).
    Mpeg2,
    /// H.264.
    H264,
    /// HEVC, H.265.
    Hevc,
}

/// What an elementary stream carries, as far as its type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Video of a coding that is understood.
    Video(VideoCodec),
    /// Video of another coding.
    OtherVideo,
    /// Audio.
    Audio,
    /// Private data in PES packets: DVB's AC-3, subtitles, teletext.
    Private,
    /// Sections, no PES packets.
    Sections,
    /// Anything else.
    Other,
}

impl StreamKind {
    /// Whether it is video, of whatever coding.
    #[must_use]
    pub const fn is_video(self) -> bool {
        matches!(self, Self::Video(_) | Self::OtherVideo)
    }
}

impl ElementaryStream {
    /// Whether its type leaves it to descriptors what it is: private data in PES packets, and what the standard or its user
    /// has yet to define, of which multiplexers make use for codings younger than they are.
    const fn is_described(&self) -> bool {
        matches!(self.stream_type, 0x06 | 0x27 | 0x34 | 0x36..=0x41 | 0x43..=0x80 | 0x88..=0xD0)
    }

    /// What people call its coding, where that is known.
    #[must_use]
    pub const fn codec(&self) -> Option<&'static str> {
        if self.is_described() {
            return match self.described {
                Some(Described::H264) => Some("H.264"),
                Some(Described::Hevc) => Some("HEVC"),
                Some(Described::Video(name) | Described::Audio(name) | Described::Text(name)) => Some(name),
                None => None,
            };
        }
        Some(match self.stream_type {
            0x01 => "MPEG-1",
            0x02 => "MPEG-2",
            0x10 => "MPEG-4",
            0x1B => "H.264",
            0x21 => "JPEG 2000",
            0x24 => "HEVC",
            0x33 => "VVC",
            0x35 => "EVC",
            0x42 => "AVS",
            0xD1 => "Dirac",
            0xD2 => "AVS2",
            0xD4 => "AVS3",
            0xEA => "VC-1",
            0x03 | 0x04 => "MPEG audio",
            0x0F | 0x11 | 0x1C => "AAC",
            0x2D | 0x2E => "MPEG-H",
            0x81 => "AC-3",
            0x82 | 0x85 => "DTS",
            0x83 => "TrueHD",
            0x84 | 0x87 => "E-AC-3",
            _ => return None,
        })
    }

    /// What it carries by its `stream_type` (table 2-34, above 0x7F the registrations in common use).
    #[must_use]
    pub const fn kind(&self) -> StreamKind {
        match (self.is_described(), self.described) {
            (true, Some(Described::H264)) => return StreamKind::Video(VideoCodec::H264),
            (true, Some(Described::Hevc)) => return StreamKind::Video(VideoCodec::Hevc),
            (true, Some(Described::Video(_))) => return StreamKind::OtherVideo,
            (true, Some(Described::Audio(_))) => return StreamKind::Audio,
            (true, Some(Described::Text(_))) => return StreamKind::Private,
            _ => {}
        }
        match self.stream_type {
            0x01 | 0x02 => StreamKind::Video(VideoCodec::Mpeg2),
            0x1B => StreamKind::Video(VideoCodec::H264),
            0x24 => StreamKind::Video(VideoCodec::Hevc),
            // MPEG-4 part 2, JPEG 2000, VVC, EVC; AVS, Dirac, AVS2, AVS3, VC-1.
            0x10 | 0x21 | 0x33 | 0x35 | 0x42 | 0xD1 | 0xD2 | 0xD4 | 0xEA => StreamKind::OtherVideo,
            // MPEG audio, AAC in ADTS, LATM and bare, MPEG-H; AC-3, DTS, TrueHD, E-AC-3.
            0x03 | 0x04 | 0x0F | 0x11 | 0x1C | 0x2D | 0x2E | 0x81..=0x85 | 0x87 => StreamKind::Audio,
            0x06 => StreamKind::Private,
            // Private sections, DSM-CC, metadata and carousels in sections; SCTE 35.
            0x05 | 0x0A..=0x0D | 0x14 | 0x16..=0x18 | 0x86 => StreamKind::Sections,
            _ => StreamKind::Other,
        }
    }
}

/// What a PMT says (clause 2.4.4.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pmt {
    /// The PID whose packets carry the programme's clock; `None` if it has no clock.
    pub pcr_pid: Option<Pid>,
    /// Its elementary streams in the order of the table.
    pub streams: Vec<ElementaryStream>,
}

impl Pmt {
    /// Reads the body of a PMT; `None` if its lengths do not fit into each other.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (&[pcr_high, pcr_low, info @ ..], rest) = body.split_first_chunk::<4>()?;
        let mut rest = rest.get(length(info)..)?;
        let mut streams = Vec::new();
        while !rest.is_empty() {
            let (&[stream_type, pid_high, pid_low, info @ ..], behind) = rest.split_first_chunk::<5>()?;
            let (descriptors, behind) = behind.split_at_checked(length(info))?;
            let pid = Pid::from_be_bytes([pid_high, pid_low]);
            streams.push(ElementaryStream { pid, stream_type, described: described(descriptors) });
            rest = behind;
        }
        // 0x1FFF says that there is no clock (clause 2.4.4.9).
        let pcr_pid = Some(Pid::from_be_bytes([pcr_high, pcr_low])).filter(|pid| *pid != Pid::NULL);
        Some(Self { pcr_pid, streams })
    }
}

/// What the descriptors of a stream say of its coding. A length that does not fit ends them.
fn described(mut descriptors: &[u8]) -> Option<Described> {
    while let Some((&[tag, length], rest)) = descriptors.split_first_chunk::<2>() {
        let (body, behind) = rest.split_at_checked(usize::from(length))?;
        if let Some(found) = descriptor(tag, body) {
            return Some(found);
        }
        descriptors = behind;
    }
    None
}

fn descriptor(tag: u8, body: &[u8]) -> Option<Described> {
    use Described::{Audio, H264, Hevc, Text, Video};
    Some(match (tag, body) {
        (0x05, [b'A', b'C', b'-', b'3', ..]) | (0x6A, _) => Audio("AC-3"),
        (0x05, [b'E', b'A', b'C', b'3', ..]) | (0x7A, _) => Audio("E-AC-3"),
        (0x05, [b'A', b'C', b'-', b'4', ..]) | (0x7F, [0x15, ..]) => Audio("AC-4"),
        (0x05, [b'D', b'T', b'S', b'1'..=b'3', ..]) | (0x7B, _) | (0x7F, [0x0E, ..]) => Audio("DTS"),
        (0x05, [b'O', b'p', b'u', b's', ..]) => Audio("Opus"),
        (0x05, [b'B', b'S', b'S', b'D', ..]) => Audio("PCM"),
        (0x7C, _) => Audio("AAC"),
        (0x05, [b'H', b'E', b'V', b'C', ..]) | (0x38, _) => Hevc,
        (0x05, [b'A', b'V', b'C', b'1' | b'V', ..] | [b'H', b'2', b'6', b'4', ..]) | (0x28, _) => H264,
        (0x05, [b'V', b'V', b'C', b' ', ..]) | (0x39, _) => Video("VVC"),
        (0x05, [b'A', b'V', b'0', b'1', ..]) => Video("AV1"),
        (0x05, [b'V', b'C', b'-', b'1', ..]) => Video("VC-1"),
        (0x05, [b'd', b'r', b'a', b'c', ..]) => Video("Dirac"),
        (0x56 | 0x46, _) => Text("teletext"),
        (0x59, _) => Text("DVB subtitles"),
        _ => return None,
    })
}

/// The 12 bits of `program_info_length` and `ES_info_length`.
fn length(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_be_bytes(bytes) & 0x0FFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: [u8; 23] = [
        0xE1, 0x00, 0xF0, 0x02, 0x05, 0x00, // PCR PID 0x100, two bytes of descriptors
        0x1B, 0xE1, 0x00, 0xF0, 0x00, // H.264 on 0x100
        0x0F, 0xE1, 0x01, 0xF0, 0x02, 0x0A, 0x00, // AAC on 0x101, two bytes of descriptors
        0x06, 0xE1, 0x02, 0xF0, 0x00, // private data on 0x102
    ];

    #[test]
    fn streams_are_read_and_descriptors_stepped_over() {
        let stream = |pid, stream_type| ElementaryStream { pid: Pid::new(pid), stream_type, described: None };
        let streams = vec![stream(0x100, 0x1B), stream(0x101, 0x0F), stream(0x102, 0x06)];
        assert_eq!(Pmt::parse(&BODY), Some(Pmt { pcr_pid: Some(Pid::new(0x100)), streams }));
        let radio = Pmt { pcr_pid: None, streams: Vec::new() };
        assert_eq!(Pmt::parse(&[0xFF, 0xFF, 0xF0, 0x00]), Some(radio));
    }

    #[test]
    fn a_body_that_ends_inside_a_field_is_refused() {
        for bytes in 0..BODY.len() {
            let ends_with_a_stream = [6, 11, 18].contains(&bytes);
            assert_eq!(Pmt::parse(&BODY[..bytes]).is_some(), ends_with_a_stream, "{bytes} bytes");
        }
        let mut too_long = BODY;
        too_long[22] = 1;
        assert_eq!(Pmt::parse(&too_long), None);
    }

    #[test]
    fn descriptors_tell_what_private_data_are() {
        let check = |stream_type: u8, descriptors: &[u8], kind: StreamKind, codec: Option<&str>| {
            let length = descriptors.len() as u8;
            let head = [0xE1, 0x00, 0xF0, 0x00, stream_type, 0xE1, 0x02, 0xF0, length];
            let pmt = Pmt::parse(&[&head[..], descriptors].concat()).expect("a PMT");
            assert_eq!((pmt.streams[0].kind(), pmt.streams[0].codec()), (kind, codec), "{descriptors:02x?}");
        };
        let registered = |name: &[u8; 4]| [&[5, 4][..], name].concat();
        let language = [0x0A, 4, b'd', b'e', b'u', 0];
        check(0x06, &[], StreamKind::Private, None);
        check(0x06, &[&language[..], &[0x6A, 1, 0]].concat(), StreamKind::Audio, Some("AC-3"));
        check(0x06, &[0x7A, 1, 0], StreamKind::Audio, Some("E-AC-3"));
        check(
            0x06,
            &[&registered(b"Opus")[..], &[0x7F, 2, 0x80, 2]].concat(),
            StreamKind::Audio,
            Some("Opus"),
        );
        check(0x06, &[0x56, 0], StreamKind::Private, Some("teletext"));
        check(0x06, &[0x59, 8, 0, 0, 0, 0, 0, 0, 0, 0], StreamKind::Private, Some("DVB subtitles"));
        check(0x06, &registered(b"HEVC"), StreamKind::Video(VideoCodec::Hevc), Some("HEVC"));
        check(0x27, &registered(b"HEVC"), StreamKind::Video(VideoCodec::Hevc), Some("HEVC"));
        check(0x06, &[0x28, 4, 100, 0, 30, 0x3F], StreamKind::Video(VideoCodec::H264), Some("H.264"));
        check(0x06, &registered(b"AV01"), StreamKind::OtherVideo, Some("AV1"));
        check(0x33, &[], StreamKind::OtherVideo, Some("VVC"));
        // A type that says it has the last word.
        check(0x1B, &registered(b"HDMV"), StreamKind::Video(VideoCodec::H264), Some("H.264"));
        check(0x0F, &[0x6A, 0], StreamKind::Audio, Some("AAC"));
        // A length beyond the end.
        check(0x06, &[0x6A, 9, 0], StreamKind::Private, None);
        check(0x06, &[0x0A], StreamKind::Private, None);
    }
}
