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
            streams.push(ElementaryStream {
                pid: Pid::from_be_bytes([pid_high, pid_low]),
                stream_type,
            });
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
        let stream = |pid, stream_type| ElementaryStream {
            pid: Pid::new(pid),
            stream_type,
        };
        let streams = vec![stream(0x100, 0x1B), stream(0x101, 0x0F), stream(0x102, 0x06)];
        assert_eq!(
            Pmt::parse(&BODY),
            Some(Pmt {
                pcr_pid: Some(Pid::new(0x100)),
                streams
            })
        );
        let radio = Pmt {
            pcr_pid: None,
            streams: Vec::new(),
        };
        assert_eq!(Pmt::parse(&[0xFF, 0xFF, 0xF0, 0x00]), Some(radio));
    }

    #[test]
    fn a_body_that_ends_inside_a_field_is_refused() {
        for bytes in 0..BODY.len() {
            let ends_with_a_stream = [6, 11, 18].contains(&bytes);
            assert_eq!(
                Pmt::parse(&BODY[..bytes]).is_some(),
                ends_with_a_stream,
                "{bytes} bytes"
            );
        }
        let mut too_long = BODY;
        too_long[22] = 1;
        assert_eq!(Pmt::parse(&too_long), None);
    }
}
