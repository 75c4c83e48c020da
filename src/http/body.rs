//! The body of a whole answer: bytes of its own, or parts of what others hold.
//!
//! It must not know what the bytes are.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that several may hold; they are always the same.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// How much of a file is read at once.
const FILE_PART_BYTES: usize = 64 * 1024;

/// The body of an answer whose length is known.
#[derive(Debug)]
pub enum ResponseBody {
    /// Made for this answer, and small: it is sent in one piece with the head.
    Bytes(Vec<u8>),
    /// Shared, and as large as they like: each is sent from where it lies.
    Parts(Vec<Part>),
    /// The first bytes of a file that does not change, so many; read as they are taken.
    File(Arc<File>, u64),
}

/// Some of the bytes that somebody holds.
#[derive(Clone)]
pub struct Part {
    bytes: SharedBytes,
    range: Range<usize>,
}

impl Part {
    /// These of the bytes; `None` if there are not so many.
    #[must_use]
    pub fn new(bytes: SharedBytes, range: Range<usize>) -> Option<Self> {
        let is_there = (*bytes).as_ref().get(range.clone()).is_some();
        is_there.then_some(Self { bytes, range })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.range.len() as u64
    }

    fn as_slice(&self) -> &[u8] {
        // It was there when it was made.
        (*self.bytes).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&self.range).finish()
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<Part>> for ResponseBody {
    fn from(parts: Vec<Part>) -> Self {
        Self::Parts(parts)
    }
}

impl ResponseBody {
    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.iter().map(Part::length).sum(),
            Self::File(_, length) => *length,
        }
    }

    /// Sends it behind this head.
    ///
    /// # Errors
    ///
    /// When the peer is gone, or takes nothing: of bytes for one slice of its connection's time, of parts for `limit`.
    pub(super) fn send(&self, head: Vec<u8>, writer: &mut dyn Write, limit: Duration) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let mut whole = head;
                whole.extend_from_slice(bytes);
                writer.write_all(&whole)?;
                writer.flush()
            }
            Self::Parts(parts) => {
                let mut writer = PatientWriter { writer, limit };
                writer.write_all(&head)?;
                parts.iter().try_for_each(|part| writer.write_all(part.as_slice()))?;
                writer.flush()
            }
            Self::File(file, length) => {
                let mut writer = PatientWriter { writer, limit };
                writer.write_all(&head)?;
                let mut buffer = vec![0; FILE_PART_BYTES];
                let mut at = 0;
                while at < *length {
                    let most = buffer.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
                    // By its place: others are sent the same file meanwhile.
                    let read = file.read_at(&mut buffer[..most], at)?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    writer.write_all(&buffer[..read])?;
                    at += read as u64;
                }
                writer.flush()
            }
        }
    }
}

/// Goes on writing to a peer that takes nothing now and then, as long as that lasts no longer than `limit`.
struct PatientWriter<'a> {
    writer: &'a mut dyn Write,
    limit: Duration,
}

impl PatientWriter<'_> {
    fn try_until_taken<T>(&mut self, mut step: impl FnMut(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
        let began = Instant::now();
        loop {
            match step(self.writer) {
                Err(error) if is_timeout(&error) && began.elapsed() < self.limit => {}
                outcome => return outcome,
            }
        }
    }
}

impl Write for PatientWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_until_taken(|writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.try_until_taken(|writer| writer.flush())
    }
}

/// Whether a peer took nothing for a slice of time.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes where the bytes of each write lie, and takes nothing so many times first.
    #[derive(Default)]
    struct Writes {
        refusals: usize,
        places: Vec<*const u8>,
        text: Vec<u8>,
    }

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.refusals > 0 {
                self.refusals -= 1;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.places.push(bytes.as_ptr());
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LIMIT: Duration = Duration::from_secs(60);

    fn shared(text: &str) -> SharedBytes {
        Arc::new(text.as_bytes().to_vec())
    }

    #[test]
    fn bytes_go_out_with_their_head_in_one_write() {
        let body = ResponseBody::from(b"body".to_vec());
        let mut writes = Writes::default();
        body.send(b"head ".to_vec(), &mut writes, LIMIT).expect("it is taken");
        assert_eq!((writes.text.as_slice(), writes.places.len()), (&b"head body"[..], 1));
        writes = Writes { refusals: 1, ..Writes::default() };
        let error = body.send(Vec::new(), &mut writes, LIMIT).expect_err("it is not taken");
        assert!(is_timeout(&error), "{error}");
    }

    #[test]
    fn parts_go_out_from_where_they_lie() {
        let (one, two) = (shared("-one-"), shared("two and more"));
        let part = |bytes: &SharedBytes, range| Part::new(Arc::clone(bytes), range).expect("it is there");
        let body = ResponseBody::from(vec![part(&one, 1..4), part(&two, 0..3), part(&two, 3..3)]);
        assert_eq!(body.length(), 6);
        let mut writes = Writes { refusals: 3, ..Writes::default() };
        body.send(b"head ".to_vec(), &mut writes, LIMIT).expect("it is taken in the end");
        assert_eq!(writes.text, b"head onetwo");
        let places = [&(*one).as_ref()[1], &(*two).as_ref()[0]].map(std::ptr::from_ref);
        assert_eq!(writes.places[1..], places);
        writes = Writes { refusals: 1, ..Writes::default() };
        body.send(Vec::new(), &mut writes, Duration::ZERO).expect_err("it is not taken in time");
    }

    #[test]
    fn a_part_lies_within_its_bytes() {
        let bytes = || shared("1234");
        for range in [0..0, 0..4, 4..4] {
            assert!(Part::new(bytes(), range.clone()).is_some(), "{range:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "it is what must be refused")]
        for range in [0..5, 5..5, 3..2] {
            assert!(Part::new(bytes(), range.clone()).is_none(), "{range:?}");
        }
    }
}
