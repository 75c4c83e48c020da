//! The guide of `--demo`: what is on, made from the clock, for as many days as anybody keeps.

use time::OffsetDateTime;

const HOUR: i64 = 3600;

/// Programmes begin that long ago: a proxy keeps what ended a few hours ago, too.
const HOURS_BEFORE: i64 = 12;

/// Programmes go on for so long: a day more than a guide keeps by default.
const HOURS_AHEAD: i64 = 4 * 24;

/// A guide in XMLTV around the present, for channels of these names and groups.
pub(super) fn make(channels: &[(&str, &str)]) -> String {
    guide_at(channels, OffsetDateTime::now_utc().unix_timestamp())
}

/// A guide around this second of Unix time: one programme an hour on each channel.
fn guide_at(channels: &[(&str, &str)], now: i64) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE tv SYSTEM \"xmltv.dtd\">\n\
         <tv generator-info-name=\"acerelay --demo\">\n",
    );
    for (number, (name, _)) in channels.iter().enumerate() {
        out.push_str(&format!(
            "  <channel id=\"demo-{number}\"><display-name>{name}</display-name></channel>\n"
        ));
    }
    let this_hour = now.div_euclid(HOUR) * HOUR;
    for (number, (name, group)) in channels.iter().enumerate() {
        for hour in -HOURS_BEFORE..HOURS_AHEAD {
            let begin = this_hour + hour * HOUR;
            let (start, stop) = (xmltv_time(begin), xmltv_time(begin + HOUR));
            let clock = format!("{}:{}", &start[8..10], &start[10..12]);
            out.push_str(&format!(
                "  <programme start=\"{start}\" stop=\"{stop}\" channel=\"demo-{number}\">\
                 <title lang=\"en\">{name} at {clock} UTC</title>\
                 <desc lang=\"en\">Nothing but a clock and a tone, made up for the demo.</desc>\
                 <category lang=\"en\">{group}</category></programme>\n"
            ));
        }
    }
    out.push_str("</tv>\n");
    out
}

/// A second of Unix time as XMLTV writes it.
fn xmltv_time(second: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (second, expected) in [
            (0, "19700101000000 +0000"),
            (951_782_399, "20000228235959 +0000"),
            (951_782_400, "20000229000000 +0000"),
            (1_798_761_599, "20261231235959 +0000"),
            (1_798_761_600, "20270101000000 +0000"),
        ] {
            assert_eq!(xmltv_time(second), expected);
        }
    }

    #[test]
    fn each_channel_has_something_on_now() {
        let guide = guide_at(&[("One", "Good"), ("Two", "Good")], 951_782_400 + 1);
        assert_eq!(guide.matches("start=\"20000229000000 +0000\" stop=\"20000229010000 +0000\"").count(), 2);
        assert_eq!(guide.matches("<channel id=").count(), 2);
    }
}
