//! Strangers' text, made fit to be shown and compared.
//!
//! Pure, and without knowledge of lists.

/// One line without control characters or anything that turns its direction, blanks collapsed, cut to so many bytes.
pub(super) fn clean(text: &str, max_bytes: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_bytes));
    let mut has_gap = false;
    for character in text.chars() {
        if is_blank(character) {
            has_gap = !out.is_empty();
            continue;
        }
        if out.len() + character.len_utf8() + usize::from(has_gap) > max_bytes {
            break;
        }
        if std::mem::take(&mut has_gap) {
            out.push(' ');
        }
        out.push(character);
    }
    out
}

/// The same for what other programs compare byte by byte: blanks within it stay as they are.
pub(super) fn clean_id(text: &str, max_bytes: usize) -> String {
    let text = text.trim();
    let end = (0..=max_bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let harmless = |character: char| if is_blank(character) { ' ' } else { character };
    let text: String = text[..end].chars().map(harmless).collect();
    text.trim().to_owned()
}

fn is_blank(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        // Lines and paragraphs of their own, and overrides of the direction of writing.
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text in small letters of ASCII, digits, and a dash for each run of anything else; Latin letters lose their marks.
pub(super) fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars().flat_map(char::to_lowercase) {
        let letters = match character {
            'a'..='z' | '0'..='9' => {
                out.push(character);
                continue;
            }
            '+' => "-plus-",
            '\u{e0}'..='\u{e5}' | '\u{101}' | '\u{103}' | '\u{105}' => "a",
            '\u{e6}' => "ae",
            '\u{e7}' | '\u{107}' | '\u{109}' | '\u{10b}' | '\u{10d}' => "c",
            '\u{10f}' | '\u{111}' | '\u{f0}' => "d",
            '\u{e8}'..='\u{eb}' | '\u{113}' | '\u{115}' | '\u{117}' | '\u{119}' | '\u{11b}' => "e",
            '\u{11d}' | '\u{11f}' | '\u{121}' | '\u{123}' => "g",
            '\u{ec}'..='\u{ef}' | '\u{129}' | '\u{12b}' | '\u{12d}' | '\u{12f}' | '\u{131}' => "i",
            '\u{13a}' | '\u{13c}' | '\u{13e}' | '\u{140}' | '\u{142}' => "l",
            '\u{f1}' | '\u{144}' | '\u{146}' | '\u{148}' => "n",
            '\u{f2}'..='\u{f6}' | '\u{f8}' | '\u{14d}' | '\u{14f}' | '\u{151}' => "o",
            '\u{153}' => "oe",
            '\u{155}' | '\u{157}' | '\u{159}' => "r",
            '\u{15b}' | '\u{15d}' | '\u{15f}' | '\u{161}' | '\u{219}' => "s",
            '\u{df}' => "ss",
            '\u{163}' | '\u{165}' | '\u{167}' | '\u{21b}' => "t",
            '\u{fe}' => "th",
            '\u{f9}'..='\u{fc}' | '\u{169}' | '\u{16b}' | '\u{16d}' | '\u{16f}' | '\u{171}' | '\u{173}' => {
                "u"
            }
            '\u{fd}' | '\u{ff}' | '\u{177}' => "y",
            '\u{17a}' | '\u{17c}' | '\u{17e}' => "z",
            // A mark by itself belongs to the letter before it.
            '\u{300}'..='\u{36f}' | '\'' | '\u{2019}' => "",
            _ => "-",
        };
        out.push_str(letters);
    }
    let parts: Vec<_> = out.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// A pattern of names: `*` stands for anything, `?` for one character; case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<char>);

impl Glob {
    /// This pattern.
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.chars().flat_map(char::to_lowercase).collect())
    }

    /// Whether the whole text is such.
    pub(super) fn is_match(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
        let (mut at, mut of) = (0, 0);
        // Where the last `*` stands, and where the text stood then: the one place that has to be tried again.
        let mut retry = None;
        while at < text.len() {
            match self.0.get(of) {
                Some('*') => {
                    retry = Some((of, at));
                    of += 1;
                }
                Some(&wanted) if wanted == '?' || wanted == text[at] => (at, of) = (at + 1, of + 1),
                _ => match retry {
                    Some((star, from)) => {
                        retry = Some((star, from + 1));
                        (at, of) = (from + 1, star + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0[of..].iter().all(|&rest| rest == '*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_one_clean_line() {
        assert_eq!(clean("  a \t b\r\n\u{202e}c\u{7} ", 100), "a b c");
        assert_eq!(clean("\u{e9}\u{e9}\u{e9}", 5), "\u{e9}\u{e9}");
        assert_eq!(clean_id(" a  b\n\u{e9} ", 100), "a  b \u{e9}");
    }

    #[test]
    fn letters_are_folded() {
        for (text, expected) in [
            ("Canal Faro", "canal-faro"),
            ("  F\u{da}TBOL: EVENTOS!", "futbol-eventos"),
            ("L'\u{ce}le 4K", "lile-4k"),
            ("LaLiga+", "laliga-plus"),
            ("E\u{301}xito", "exito"),
            ("\u{41d}\u{422}\u{412}", ""),
            ("\u{130}stanbul \u{142}\u{f3}d\u{17a} \u{df}", "istanbul-lodz-ss"),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("canal faro*", "Canal Faro 2", true),
            ("canal faro", "Canal Faro 2", false),
            ("*faro*", "x faro", true),
            ("?a", "\u{c9}A", true),
            ("?", "", false),
            ("*", "", true),
            ("", "", true),
            ("a*b*c", "aXXbXXbc", true),
            ("a*b*c", "aXXbXXb", false),
        ] {
            assert_eq!(Glob::new(pattern).is_match(text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_long_or_dirty(text in "\\PC{0,40}|.{0,40}", max in 0..50_usize) {
            let (line, id) = (clean(&text, max), clean_id(&text, max));
            prop_assert!(line.len() <= max && id.len() <= max);
            prop_assert!(clean(&line, max) == line && clean_id(&id, max) == id);
            prop_assert!(!line.chars().chain(id.chars()).any(char::is_control));
            prop_assert!(folded(&text).bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            let _matched = Glob::new(&line).is_match(&text);
        }
    }
}
