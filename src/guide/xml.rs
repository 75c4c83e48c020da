//! Writes what is kept of a guide so that it is well-formed, whatever it was.
//!
//! Text comes with its references as they stood in the guide. None is ever resolved: those that every reader of XML knows
//! are copied, and all others are said as the text that they are, so that no entity of a guide means anything in ours.

/// Appends text as it stood between tags.
pub(super) fn push_text(out: &mut String, raw: &str) {
    push(out, raw, true);
}

/// Appends text in which nothing is a reference: of a CDATA section.
pub(super) fn push_plain(out: &mut String, text: &str) {
    push(out, text, false);
}

/// Appends ` name="value"`, with a value as it stood in a tag.
pub(super) fn push_attribute(out: &mut String, name: &str, raw: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    push(out, raw, true);
    out.push('"');
}

fn push(out: &mut String, text: &str, has_references: bool) {
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let mut length = character.len_utf8();
        match character {
            '&' => match reference(rest).filter(|_| has_references) {
                Some(reference) => {
                    out.push_str(reference);
                    length = reference.len();
                }
                None => out.push_str("&amp;"),
            },
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            character if is_allowed(character) => out.push(character),
            _ => out.push(' '),
        }
        rest = &rest[length..];
    }
}

/// The reference that `text` begins with, if every reader knows it. The longest is that of U+10FFFF with some zeros.
fn reference(text: &str) -> Option<&str> {
    const MAX_BYTES: usize = 12;
    let end = text.bytes().take(MAX_BYTES).position(|byte| byte == b';')?;
    let name = text.get(1..end)?;
    let is_known = match name.strip_prefix('#') {
        None => matches!(name, "amp" | "lt" | "gt" | "quot" | "apos"),
        Some(number) => {
            let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
            let is_number = digits.chars().all(|digit| digit.is_digit(radix));
            let code = u32::from_str_radix(digits, radix).ok().filter(|_| is_number);
            code.and_then(char::from_u32).is_some_and(is_allowed)
        }
    };
    is_known.then(|| &text[..=end])
}

/// Whether XML 1.0 may have this character (section 2.2); those that play with a line's direction go, too, since nobody
/// would see why a list looks odd.
fn is_allowed(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => true,
        '\0'..' ' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        _ => true,
    }
}

/// Whether an element or attribute may have this name in our guide: the DTD's names are plain, and a prefix would have to
/// be declared.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(is_plain)
}

/// The text that raw text says, to compare names by. References that not every reader knows stay as they are.
pub(super) fn said(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (character, length) = match reference(rest) {
            Some(known) => {
                let name = &known[1..known.len() - 1];
                let number = name.strip_prefix('#').map(|number| match number.strip_prefix('x') {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                });
                let character = match (number, name) {
                    (Some(code), _) => code.ok().and_then(char::from_u32).unwrap_or(' '),
                    (None, "lt") => '<',
                    (None, "gt") => '>',
                    (None, "quot") => '"',
                    (None, "apos") => '\'',
                    (None, _) => '&',
                };
                (character, known.len())
            }
            None => ('&', 1),
        };
        out.push(character);
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_every_reader_knows_is_a_reference() {
        for (raw, written, meant) in [
            ("a &amp; b", "a &amp; b", "a & b"),
            ("&lt;&gt;&quot;&apos;", "&lt;&gt;&quot;&apos;", "<>\"'"),
            ("&#233;&#xE9;", "&#233;&#xE9;", "éé"),
            ("&eacute;", "&amp;eacute;", "&eacute;"),
            ("&lol9;&x", "&amp;lol9;&amp;x", "&lol9;&x"),
            (
                "&#8;&#x0;&#xFFFF;&#xD800;&#99999999;",
                "&amp;#8;&amp;#x0;&amp;#xFFFF;&amp;#xD800;&amp;#99999999;",
                "&#8;&#x0;&#xFFFF;&#xD800;&#99999999;",
            ),
            ("&#+1;&#;&#x;&;", "&amp;#+1;&amp;#;&amp;#x;&amp;;", "&#+1;&#;&#x;&;"),
            ("]]> \u{8}\u{202e}x", "]]&gt;   x", "]]> \u{8}\u{202e}x"),
        ] {
            let mut out = String::new();
            push_text(&mut out, raw);
            assert_eq!((out.as_str(), said(raw).as_str()), (written, meant), "{raw}");
        }
        let mut out = String::new();
        push_plain(&mut out, "a &amp; <b>");
        push_attribute(&mut out, "x", "\"<&eacute;");
        assert_eq!(out, "a &amp;amp; &lt;b&gt; x=\"&quot;&lt;&amp;eacute;\"");
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_ends_its_place(raw in any::<String>()) {
            let mut out = String::new();
            push_text(&mut out, &raw);
            prop_assert!(!out.contains(['<', '>', '"']));
            let _meant = said(&raw);
        }
    }
}
