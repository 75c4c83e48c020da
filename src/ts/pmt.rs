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
    /// What it carries by its `stream_type` (table 2-34, above 0x7F the registrations in common use).
    #[must_use]
    pub const fn kind(&self) -> StreamKind {
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
            streams.push(ElementaryStream { pid: Pid::from_be_bytes([pid_high, pid_low]), stream_type });
            rest = behind.get(length(info)..)?;
        }
        // 0x1FFF says that there is no clock (clause 2.4.4.9).
        let pcr_pid = Some(Pid::from_be_bytes([pcr_high, pcr_low])).filter(|pid| *pid != Pid::NULL);
        Some(Self { pcr_pid, streams })
    }
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
        let stream = |pid, stream_type| ElementaryStream { pid: Pid::new(pid), stream_type };
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
}
