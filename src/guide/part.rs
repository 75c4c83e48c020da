//! What is kept of one guide, as a file: the elements one after the other, as they will go out.
//!
//! A line of JSON says what the file is; then each element has its kind, when it ends, its channel's id and its text, with
//! their lengths in front. It must not know where files lie. A file that is damaged ends where the damage is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use crate::channels::sources::Validators;

use super::filter::{Kept, Kind};

/// The first line has so many bytes, blanks included, since it is written last.
const HEADER_BYTES: usize = 2048;

/// No element is longer: the filter holds that, but for the names that it adds.
const MAX_XML_BYTES: usize = 1024 * 1024;

/// What a part is of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Of which channels: [`super::wanted::Wanted::digest`].
    pub(super) wanted: u64,
    /// For so many days.
    pub(super) days: u32,
    /// When it was fetched, in seconds since 1970.
    pub(super) fetched_at: i64,
    /// Whether its guide was read to its end.
    pub(super) is_whole: bool,
    /// What its server knows it by.
    pub(super) validators: Validators,
}

/// Writes a part.
pub(super) struct Writer<'a>(BufWriter<&'a mut File>);

impl<'a> Writer<'a> {
    pub(super) fn new(file: &'a mut File) -> io::Result<Self> {
        let mut out = BufWriter::new(file);
        out.write_all(&[b' '; HEADER_BYTES])?;
        Ok(Self(out))
    }

    pub(super) fn add(&mut self, kept: &Kept<'_>) -> io::Result<()> {
        let too_long = |_| io::Error::other("too long an id or element");
        let id_length = u16::try_from(kept.id.len()).map_err(too_long)?;
        let length = u32::try_from(kept.xml.len()).map_err(too_long)?;
        self.0.write_all(&[match kept.kind {
            Kind::Channel => b'c',
            Kind::Programme => b'p',
        }])?;
        self.0.write_all(&kept.stop.to_le_bytes())?;
        self.0.write_all(&id_length.to_le_bytes())?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(kept.id.as_bytes())?;
        self.0.write_all(kept.xml.as_bytes())
    }

    pub(super) fn finish(mut self, header: &Header) -> io::Result<()> {
        let mut line = serde_json::to_vec(header)?;
        if line.len() >= HEADER_BYTES {
            // Some server's long ETag: then everything is fetched the next time.
            line = serde_json::to_vec(&Header { validators: Validators::default(), ..header.clone() })?;
        }
        line.resize(HEADER_BYTES - 1, b' ');
        line.push(b'\n');
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(&line)?;
        self.0.flush()
    }
}

/// Reads a part, element by element.
pub(super) struct Elements {
    file: BufReader<File>,
    id: String,
    xml: String,
}

impl Elements {
    /// The first line of a part, and what follows.
    pub(super) fn open(file: File) -> io::Result<(Header, Self)> {
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        (&mut file).take(HEADER_BYTES as u64).read_until(b'\n', &mut line)?;
        let header = serde_json::from_slice(&line)?;
        Ok((header, Self { file, id: String::new(), xml: String::new() }))
    }

    /// The next element; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Kept<'_>>> {
        let mut head = [0; 15];
        match self.file.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let [kind, s0, s1, s2, s3, s4, s5, s6, s7, i0, i1, l0, l1, l2, l3] = head;
        let kind = match kind {
            b'c' => Kind::Channel,
            b'p' => Kind::Programme,
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        let stop = i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let id_length = usize::from(u16::from_le_bytes([i0, i1]));
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_XML_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        read_text(&mut self.file, id_length, &mut self.id)?;
        read_text(&mut self.file, length, &mut self.xml)?;
        Ok(Some(Kept { kind, id: &self.id, stop, xml: &self.xml }))
    }
}

fn read_text(file: &mut impl Read, length: usize, text: &mut String) -> io::Result<()> {
    text.clear();
    if file.take(length as u64).read_to_string(text)? < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
