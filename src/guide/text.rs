//! Makes lines of good UTF-8 of what a guide consists of, and holds that no event of it is too long.
//!
//! It must not know XML beyond the encoding that stands in the first line.

use std::io::{self, BufRead, Read};

/// No text of a real guide comes near it, and twice as much may be held for a moment.
const MAX_EVENT_BYTES: usize = 512 * 1024;

/// How much is read at once.
const PART_BYTES: usize = 32 * 1024;

/// The encoding stands within so many bytes, if anywhere (XML 1.0 section 4.3.1).
const HEAD_BYTES: usize = 256;

/// What Windows-1252 has from 0x80 to 0x9F, as the WHATWG's encoding standard does; the five gaps are control characters.
const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}',
    '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Utf8,
    Windows1252,
}

/// The text of a guide.
pub(super) struct Text<R> {
    reader: R,
    raw: Box<[u8]>,
    /// So many bytes of `raw` have been read and not made text of.
    held: usize,
    is_ended: bool,
    coding: Option<Coding>,
    text: String,
    at: usize,
    lines: u64,
    since_event: usize,
}

impl<R: Read> Text<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            raw: vec![0; PART_BYTES].into_boxed_slice(),
            held: 0,
            is_ended: false,
            coding: None,
            text: String::new(),
            at: 0,
            lines: 1,
            since_event: 0,
        }
    }

    /// The line up to which it was read, from 1.
    pub(super) fn line(&self) -> u64 {
        self.lines
    }

    /// An event is over; the next one has all its room.
    pub(super) fn end_event(&mut self) {
        self.since_event = 0;
    }

    /// Reads at least `least` bytes into `raw`, if there are so many.
    fn read_raw(&mut self, least: usize) -> io::Result<()> {
        while !self.is_ended && self.held < least {
            match self.reader.read(&mut self.raw[self.held..]) {
                Ok(0) => self.is_ended = true,
                Ok(read) => self.held += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn next_part(&mut self) -> io::Result<()> {
        self.text.clear();
        self.at = 0;
        let coding = match self.coding {
            Some(coding) => coding,
            None => {
                self.read_raw(HEAD_BYTES)?;
                let (coding, mark_bytes) = coding_of(&self.raw[..self.held])?;
                self.raw.copy_within(mark_bytes..self.held, 0);
                self.held -= mark_bytes;
                *self.coding.insert(coding)
            }
        };
        while self.text.is_empty() && !(self.is_ended && self.held == 0) {
            // What is held may be the begin of a character, which has up to four bytes.
            if self.held < 4 {
                self.read_raw(self.held + 1)?;
            }
            let raw = &self.raw[..self.held];
            let rest = match coding {
                Coding::Utf8 => append_utf8(raw, self.is_ended, &mut self.text),
                Coding::Windows1252 => {
                    self.text.extend(raw.iter().map(|byte| match byte {
                        0x80..0xA0 => WINDOWS_1252[usize::from(byte - 0x80)],
                        byte => char::from(*byte),
                    }));
                    0
                }
            };
            self.raw.copy_within(self.held - rest..self.held, 0);
            self.held = rest;
        }
        Ok(())
    }
}

/// Which coding a guide has that begins with this, and how long its byte order mark is.
fn coding_of(head: &[u8]) -> io::Result<(Coding, usize)> {
    let refuse = |what: &str| Err(io::Error::other(format!("it is in {what}, which is not read")));
    match head {
        [0xEF, 0xBB, 0xBF, ..] => return Ok((Coding::Utf8, 3)),
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, b'<', ..] | [b'<', 0, ..] => return refuse("UTF-16"),
        _ => {}
    }
    let head: String = head.iter().map(|byte| char::from(*byte).to_ascii_lowercase()).collect();
    let declared = head.trim_start().strip_prefix("<?xml").and_then(|rest| rest.split("?>").next());
    let named = declared.and_then(|text| text.split_once("encoding")).map(|(_, behind)| {
        let value =
            behind.trim_start_matches(|character: char| character == '=' || character.is_whitespace());
        let quote = value.chars().next().unwrap_or('"');
        value.trim_start_matches(quote).split(quote).next().unwrap_or_default().to_owned()
    });
    match named.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii" | "ascii" | "") => Ok((Coding::Utf8, 0)),
        Some("iso-8859-1" | "iso-8859-15" | "latin1" | "windows-1252" | "cp1252") => {
            Ok((Coding::Windows1252, 0))
        }
        Some(_) => refuse("an encoding other than UTF-8 and Windows-1252"),
    }
}

/// Appends what is whole of these bytes; what is no UTF-8 is a replacement character. Gives how many bytes at the end may be
/// the begin of a character whose rest is to come.
fn append_utf8(bytes: &[u8], is_last: bool, text: &mut String) -> usize {
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        if invalid.is_empty() {
            continue;
        }
        let may_go_on = chunks.peek().is_none()
            && !is_last
            && str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if may_go_on {
            return invalid.len();
        }
        text.push(char::REPLACEMENT_CHARACTER);
    }
    0
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.fill_buf()?;
        let length = part.len().min(buffer.len());
        buffer[..length].copy_from_slice(&part[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: Read> BufRead for Text<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.since_event > MAX_EVENT_BYTES {
            return Err(io::Error::other("an element or text without end"));
        }
        if self.at == self.text.len() {
            self.next_part()?;
        }
        Ok(&self.text.as_bytes()[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        let end = (self.at + amount).min(self.text.len());
        let taken = &self.text.as_bytes()[self.at..end];
        self.lines += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.since_event += taken.len();
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives so many bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len()).min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn read(bytes: &[u8], at_once: usize) -> io::Result<(String, u64)> {
        let mut text = Text::new(Dribble(bytes, at_once));
        let mut all = Vec::new();
        loop {
            let part = text.fill_buf()?;
            if part.is_empty() {
                return Ok((String::from_utf8(all).expect("good UTF-8"), text.line()));
            }
            all.extend_from_slice(part);
            let length = part.len();
            text.consume(length);
            text.end_event();
        }
    }

    #[test]
    fn every_coding_that_guides_have_becomes_utf8() {
        let latin = b"<?xml version=\"1.0\" encoding='ISO-8859-1'?>\n<a>\xe9\x80</a>";
        for at_once in [1, 2, 3, 1000] {
            assert_eq!(
                read(latin, at_once).expect("it is read").0,
                "<?xml version=\"1.0\" encoding='ISO-8859-1'?>\n<a>é€</a>"
            );
            let text = "\u{feff}<a>\u{20ac}\u{1f600}</a>\n";
            assert_eq!(read(text.as_bytes(), at_once).expect("it is read"), (text[3..].to_owned(), 2));
            let broken = read(b"<a>\xff\xe2\x82</a>\xe2\x82", at_once).expect("it is read").0;
            assert_eq!(broken, "<a>\u{fffd}\u{fffd}</a>\u{fffd}");
            assert_eq!(read(b"", at_once).expect("it is read"), (String::new(), 1));
        }
        for refused in [&b"\xff\xfe<\0"[..], b"\0<", b"<?xml version='1.0' encoding='UTF-16'?>"] {
            assert!(read(refused, 1000).is_err());
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut text = Text::new(io::repeat(b'x'));
        let mut taken = 0;
        let error = loop {
            match text.fill_buf() {
                Ok(part) => {
                    let length = part.len();
                    assert!(length > 0, "there is always more");
                    taken += length;
                    text.consume(length);
                }
                Err(error) => break error,
            }
        };
        assert!(taken <= MAX_EVENT_BYTES + PART_BYTES, "{taken} bytes: {error}");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_is_the_same_text_however_it_is_cut(bytes in prop::collection::vec(any::<u8>(), 0..600), at_once in 1_usize..700) {
            match read(&bytes, at_once) {
                Ok((text, _)) => prop_assert_eq!(Some(text), read(&bytes, 1).ok().map(|(text, _)| text)),
                Err(_) => prop_assert!(read(&bytes, 1).is_err()),
            }
        }
    }
}
