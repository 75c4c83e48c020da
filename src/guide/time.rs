//! The times of XMLTV, only to be compared: what goes out is what came in.

use ::time::{Date, Month};

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// The Julian day of 1 January 1970.
const UNIX_DAY: i32 = 2_440_588;

/// Seconds since 1970 of `YYYYMMDDhhmmss +hhmm`, or of any first part of it (the DTD of XMLTV). Without a zone it is UTC; a
/// zone by name is taken for UTC, too, which may be wrong by half a day: what is compared with it has more room than that.
/// `None` for what is no time.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits_end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, zone) = text.split_at(digits_end);
    let number = |from: usize, length: usize, otherwise: i64| match digits.get(from..from + length) {
        Some(part) => part.parse::<i64>().ok(),
        None => Some(otherwise),
    };
    let year = i32::try_from(digits.get(..4)?.parse::<i64>().ok()?).ok()?;
    let month = Month::try_from(u8::try_from(number(4, 2, 1)?).ok()?).ok()?;
    let day = u8::try_from(number(6, 2, 1)?).ok()?;
    let date = Date::from_calendar_date(year, month, day).ok()?;
    let (hours, minutes, seconds) = (number(8, 2, 0)?, number(10, 2, 0)?, number(12, 2, 0)?);
    if hours > 24 || minutes > 59 || seconds > 60 {
        return None;
    }
    let days = i64::from(date.to_julian_day() - UNIX_DAY);
    Some(days * DAY + hours * 3600 + minutes * 60 + seconds - offset(zone.trim()))
}

/// Seconds east of UTC of `+hhmm` or `+hh:mm`; 0 for any other zone.
fn offset(zone: &str) -> i64 {
    let (sign, rest) = match zone.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return 0,
    };
    let digits: Vec<i64> =
        rest.chars().filter_map(|character| character.to_digit(10)).map(i64::from).collect();
    match digits[..] {
        [h, hh, m, mm] => sign * ((h * 10 + hh) * 3600 + (m * 10 + mm) * 60),
        [h, hh] => sign * (h * 10 + hh) * 3600,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_far_as_they_go() {
        for (text, expected) in [
            ("20261125120000 +0000", Some(1_795_608_000)),
            ("20261125120000 +0100", Some(1_795_604_400)),
            ("20261125120000 -0330", Some(1_795_620_600)),
            ("20261125120000 +01:00", Some(1_795_604_400)),
            ("20261125120000+0100", Some(1_795_604_400)),
            ("20261125120000", Some(1_795_608_000)),
            ("20261125120000 BST", Some(1_795_608_000)),
            (" 202611251200 ", Some(1_795_608_000)),
            ("20261125", Some(1_795_564_800)),
            ("1970", Some(0)),
            ("20261325", None),
            ("20260230", None),
            ("20261125250000", None),
            ("today", None),
            ("", None),
            ("197", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}|[0-9]{0,20}[ +-]?[0-9:]{0,6}") {
            let _time = parse(&text);
        }
    }
}
