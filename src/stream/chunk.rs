//! A run of whole packets, shared by everybody who sends it.

use std::sync::Arc;
use std::time::Instant;

/// Six hex digits and CRLF: fixed, so that the packets of every chunk lie at the same place. Leading zeros are
/// allowed in a chunk size (RFC 9112 section 7.1).
const HEAD_BYTES: usize = 8;

/// The CRLF behind the data of a chunk (RFC 9112 section 7.1).
const TAIL: &[u8] = b"\r\n";

/// What six hex digits can say.
const MAX_DATA_BYTES: usize = 0xFF_FFFF;

/// Whole packets, made once, with the frame of the chunked transfer coding already round them: one write sends
/// them to any client.
#[derive(Debug)]
pub struct Chunk {
    /// Offset in the stream of the byte behind this chunk; 0 if it is none of the stream's.
    pub end: u64,
    /// When its bytes were read off the engine.
    pub arrived: Instant,
    frame: Box<[u8]>,
}

impl Chunk {
    /// A chunk of these packets, the first of which lies at offset `start` of the stream.
    ///
    /// # Panics
    ///
    /// When it is empty (an empty frame would end a client's body) or above 16 MiB.
    #[must_use]
    pub fn new(start: u64, arrived: Instant, packets: &[u8]) -> Self {
        assert!((1..=MAX_DATA_BYTES).contains(&packets.len()), "a chunk of {} bytes", packets.len());
        let mut frame = Vec::with_capacity(HEAD_BYTES + packets.len() + TAIL.len());
        frame.extend_from_slice(format!("{:06x}\r\n", packets.len()).as_bytes());
        frame.extend_from_slice(packets);
        frame.extend_from_slice(TAIL);
        Self { end: start + packets.len() as u64, arrived, frame: frame.into_boxed_slice() }
    }

    /// Packets that are sent to a client but are none of the stream's: sending them is no progress.
    ///
    /// # Panics
    ///
    /// Like [`Chunk::new`].
    #[must_use]
    pub fn inserted(arrived: Instant, packets: &[u8]) -> Self {
        Self { end: 0, ..Self::new(0, arrived, packets) }
    }

    /// This chunk from an offset within it on: itself, or a copy of its end.
    #[must_use]
    pub fn rest(this: &Arc<Self>, offset: u64) -> Arc<Self> {
        let skipped = offset.saturating_sub(this.start()) as usize;
        if skipped == 0 {
            return Arc::clone(this);
        }
        Arc::new(Self::new(offset, this.arrived, &this.packets()[skipped..]))
    }

    /// The packets within the frame of the chunked transfer coding, for HTTP/1.1.
    #[must_use]
    pub fn framed(&self) -> &[u8] {
        &self.frame
    }

    /// The packets alone, for HTTP/1.0.
    #[must_use]
    pub fn packets(&self) -> &[u8] {
        &self.frame[HEAD_BYTES..self.frame.len() - TAIL.len()]
    }

    /// Offset in the stream of this chunk's first byte.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.end.saturating_sub(self.packets().len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_the_chunked_coding_of_its_packets(packets in proptest::collection::vec(any::<u8>(), 1..5000)) {
            let chunk = Chunk::new(100, Instant::now(), &packets);
            prop_assert_eq!(chunk.packets(), &packets[..]);
            prop_assert_eq!((chunk.start(), chunk.end), (100, 100 + packets.len() as u64));
            let frame = chunk.framed();
            let head = frame.iter().position(|byte| *byte == b'\r').expect("a line end");
            let size = std::str::from_utf8(&frame[..head]).expect("hex digits");
            prop_assert_eq!(usize::from_str_radix(size, 16), Ok(packets.len()));
            prop_assert_eq!(&frame[head..head + 2], b"\r\n");
            prop_assert_eq!(&frame[head + 2..], [&packets[..], b"\r\n"].concat());
        }
    }
}
