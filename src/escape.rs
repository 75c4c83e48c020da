//! Text of a peer, made safe for one line of a log or an error message.
//!
//! Players, engines and files choose these texts. Printed raw, a line break would forge a log line, a
//! control sequence would play with the terminal, and a megabyte of header would fill the disk.

use std::fmt::{self, Write};

/// Characters of output after which [`Escaped`] cuts: user agents and engine messages fit, floods do not.
const MAX_CHARS: usize = 200;

/// Prints its text with control characters, quotes, backslashes and everything outside ASCII escaped as in
/// a Rust literal, and cut to 200 characters (then `...` follows).
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(
    /// The text as the peer sent it.
    pub &'a str,
);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = MAX_CHARS;
        for character in self.0.chars() {
            let escape = character.escape_default();
            // Never half an escape: what follows the cut could complete it to something else.
            let Some(left) = room.checked_sub(escape.len()) else {
                return f.write_str("...");
            };
            room = left;
            for ascii in escape {
                f.write_char(ascii)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        let cases = [
            ("VLC/3.0.18 LibVLC/3.0.18", "VLC/3.0.18 LibVLC/3.0.18"),
            ("", ""),
            ("a\r\n[ERROR] b", r"a\r\n[ERROR] b"),
            ("\u{1b}[31mred\u{7f}", r"\u{1b}[31mred\u{7f}"),
            ("say \"hi\" 'ho' \\n", r#"say \"hi\" \'ho\' \\n"#),
            ("mañana\u{202e}", r"ma\u{f1}ana\u{202e}"),
            ("a\tb\0", r"a\tb\u{0}"),
        ];
        for (text, printed) in cases {
            assert_eq!(Escaped(text).to_string(), printed, "{text:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let exact = "x".repeat(200);
        assert_eq!(Escaped(&exact).to_string(), exact);
        assert_eq!(Escaped(&"x".repeat(201)).to_string(), format!("{exact}..."));
        let last_is_half = format!("{}\n", "x".repeat(199));
        assert_eq!(Escaped(&last_is_half).to_string(), format!("{}...", "x".repeat(199)));
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_short_line_of_printable_ascii(text in any::<String>()) {
            let printed = Escaped(&text).to_string();
            prop_assert!(printed.len() <= 203);
            prop_assert!(printed.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
}
