//! The lines of a list, whatever it was written with.
//!
//! Lists come from every kind of editor and script: with a byte order mark or two bytes a character, in the code page of a
//! Windows, with line ends of three systems, and mixed from several of these. It must not know what the lines mean.

use std::borrow::Cow;

/// The longest line of a list in use has 1,200 bytes; a longer one than this is no line.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u32,
    /// Without blanks at its ends; `None` for one that is too long.
    pub(super) text: Option<Cow<'a, str>>,
}

/// The whole as bytes of UTF-8 or of an 8-bit code page, without a byte order mark.
pub(super) fn without_mark(bytes: &[u8]) -> Cow<'_, [u8]> {
    let units = |from: fn([u8; 2]) -> u16| {
        let pairs = bytes[2..].chunks_exact(2).map(move |pair| from([pair[0], pair[1]]));
        let text: String =
            char::decode_utf16(pairs).map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Cow::Owned(text.into_bytes())
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => Cow::Borrowed(bytes),
    }
}

/// The lines of a text, numbered as editors do; empty ones are left out.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = Some(bytes);
    let mut number = 0;
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            number += 1;
            let (line, after) = match end {
                Some(end) => {
                    let length = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
                    (&text[..end], Some(&text[end + length..]))
                }
                None => (text, None),
            };
            rest = after;
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let text = (line.len() <= MAX_LINE_BYTES).then(|| decoded(line));
            return Some(Line { number, text });
        }
    })
}

/// UTF-8, else Windows-1252: line by line, since lists are put together from others.
fn decoded(line: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(line.iter().map(|&byte| of_windows_1252(byte)).collect()),
    }
}

/// What Windows-1252 has at 0x80 to 0x9f; everything else is as in Unicode.
const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}',
    '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

/// The character of a byte of Windows-1252.
pub(super) fn of_windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &[(u32, &str)]) {
        let bytes = without_mark(bytes);
        let found: Vec<_> = lines(&bytes)
            .map(|line| (line.number, line.text.unwrap_or("too long".into()).into_owned()))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(number, text)| (*number, (*text).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_encoding_and_line_end_gives_the_same_lines() {
        let expected: &[(u32, &str)] = &[(1, "uno"), (3, "\u{fa}ltimo \u{20ac}"), (4, "fin")];
        check(b"uno\n\n\xfaltimo \x80\nfin", expected);
        check("\u{feff}uno\r\n \t\r\n\u{fa}ltimo \u{20ac}\r\nfin\r\n".as_bytes(), expected);
        check("uno\r\r\u{fa}ltimo \u{20ac}\rfin".as_bytes(), expected);
        let text = "\u{feff}uno\n\n\u{fa}ltimo \u{20ac}\nfin";
        let utf16 = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<_>>();
        check(&utf16(u16::to_le_bytes), expected);
        check(&utf16(u16::to_be_bytes), expected);
        // A list put together from two.
        check(b"\xc3\xba\n\xfa", &[(1, "\u{fa}"), (2, "\u{fa}")]);
        check(b"", &[]);
        check(b"\xff\xfe\x41", &[]);
    }

    #[test]
    fn a_line_without_an_end_is_passed_over() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES + 1];
        bytes.extend(b"\nnext");
        check(&bytes, &[(1, "too long"), (2, "next")]);
    }
}
