//! A run of whole packets, shared by everybody who sends it.

use std::ops::Range;
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
        frame.extend_from_slice(&head(packets.len()));
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

impl AsRef<[u8]> for Chunk {
    /// The packets alone.
    fn as_ref(&self) -> &[u8] {
        self.packets()
    }
}

/// A part of a chunk's packets, shared with whoever else sends the chunk.
#[derive(Clone, Debug)]
pub struct ChunkSlice {
    /// The chunk.
    pub chunk: Arc<Chunk>,
    /// Which of its packets' bytes; never beyond their end.
    pub range: Range<usize>,
}

impl ChunkSlice {
    /// What of a chunk lies between two offsets of the stream.
    #[must_use]
    pub fn between(chunk: &Arc<Chunk>, from: u64, to: u64) -> Self {
        let start = chunk.start();
        let within = |offset: u64| offset.clamp(start, chunk.end).saturating_sub(start) as usize;
        let (from, to) = (within(from), within(to));
        Self { chunk: Arc::clone(chunk), range: from..to.max(from) }
    }
}

impl AsRef<[u8]> for ChunkSlice {
    fn as_ref(&self) -> &[u8] {
        self.chunk.packets().get(self.range.clone()).unwrap_or_default()
    }
}

/// The head of a frame round so many bytes.
fn head(bytes: usize) -> [u8; HEAD_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut head = *b"000000\r\n";
    for (index, digit) in head[..6].iter_mut().rev().enumerate() {
        *digit = DIGITS[bytes >> (4 * index) & 0xF];
    }
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_size_stands_in_six_hex_digits() {
        for bytes in [1, 9, 0xA, 188, 0x1_0000, 0x12_34AB, MAX_DATA_BYTES] {
            assert_eq!(head(bytes), format!("{bytes:06x}\r\n").as_bytes());
        }
    }

    #[test]
    fn a_slice_is_what_lies_between_two_offsets() {
        let chunk = Arc::new(Chunk::new(100, Instant::now(), b"0123456789"));
        let between = |from, to| ChunkSlice::between(&chunk, from, to).as_ref().to_vec();
        assert_eq!(between(0, 500), b"0123456789");
        assert_eq!(between(103, 105), b"34");
        assert_eq!((between(0, 101), between(109, 110)), (b"0".to_vec(), b"9".to_vec()));
        for (from, to) in [(0, 100), (110, 200), (105, 105), (105, 103)] {
            assert!(between(from, to).is_empty(), "{from} to {to}");
        }
    }

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
