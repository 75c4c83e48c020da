//! Which part of something a request asks for (RFC 9110 section 14).
//!
//! Pure. What is odd is read as nginx reads it, which is what players are tried with. Several ranges at once are answered with
//! the whole: no player needs them, and an answer in parts is one that few understand.

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All of it.
    Whole,
    /// The bytes from here to before there.
    Part(u64, u64),
    /// Nothing that is there.
    Nothing,
}

impl Asked {
    /// What this `Range` asks for of something so long.
    #[must_use]
    pub fn of(range: Option<&str>, length: u64) -> Self {
        let Some((unit, ranges)) = range.and_then(|range| range.split_once('=')) else {
            return Self::Whole;
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") || ranges.contains(',') {
            return Self::Whole;
        }
        part(ranges.trim(), length).map_or(Self::Nothing, |(from, to)| Self::Part(from, to))
    }
}

/// The part that one range names, if there is any of it.
fn part(range: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let (from, to) = match (first, last) {
        (None, None) => return None,
        // The last so many bytes.
        (None, Some(count)) => (length.saturating_sub(count), length),
        (Some(first), None) => (first, length),
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(length)),
    };
    (from < to).then_some((from, to))
}

/// A number of any size, or none; `None` for what is neither.
fn number(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    // One that is too large is beyond every end.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_names_a_part() {
        for (range, expected) in [
            ("bytes=0-", Asked::Part(0, 100)),
            ("bytes=0-0", Asked::Part(0, 1)),
            ("bytes=10-19", Asked::Part(10, 20)),
            ("bytes=90-", Asked::Part(90, 100)),
            ("bytes=90-99999999999999999999999", Asked::Part(90, 100)),
            ("bytes=-10", Asked::Part(90, 100)),
            ("bytes=-1000", Asked::Part(0, 100)),
            ("Bytes = 1 - 2 ", Asked::Part(1, 3)),
            ("bytes=100-", Asked::Nothing),
            ("bytes=99999999999999999999999-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-2", Asked::Nothing),
            ("bytes=-", Asked::Nothing),
            ("bytes=", Asked::Nothing),
            ("bytes=a-b", Asked::Nothing),
            ("bytes=1-2,5-6", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("nonsense", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(Asked::of(Some(range), 100), expected, "{range}");
        }
        assert_eq!(Asked::of(None, 100), Asked::Whole);
        assert_eq!(Asked::of(Some("bytes=0-"), 0), Asked::Nothing);
    }

    proptest! {
        #[test]
        fn a_part_lies_within(range in "\\PC{0,40}|bytes=[0-9, -]{0,20}", length: u64) {
            if let Asked::Part(from, to) = Asked::of(Some(&range), length) {
                prop_assert!(from < to && to <= length);
            }
        }
    }
}
