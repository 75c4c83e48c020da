//! Which value a key takes: each rule turns a value of the file into its type, or says what is allowed.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use super::mistake::Refused;
use super::tree::{Value, shown};
use super::{AdminToken, MEBIBYTE};
use crate::escape::Escaped;

/// The longest time a key takes, a day: more is a slip of units, and far below what `Instant` can add.
const MAX_SECONDS: f64 = 86_400.0;

/// The shortest time-out. Less cannot be met by a busy small box; 0 would fail everything at once.
const MIN_TIMEOUT_SECONDS: f64 = 0.1;

/// The longest name of an engine; it stands in every log line about it.
const MAX_NAME_CHARS: usize = 64;

/// A whole number within `range`.
pub(super) fn whole<T: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&Value<'_>) -> Result<T, Refused> {
    move |value| {
        let allowed = format!("allowed is a whole number from {} to {}", range.start(), range.end());
        let Some(number) = value.as_integer() else {
            return Err(Refused::new(format!("{} is no whole number", shown(value)), allowed));
        };
        i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Refused::new(format!("{} is out of range", shown(value)), allowed))
    }
}

/// A limit, or 0 for none.
pub(super) fn limit_or_none(value: &Value<'_>) -> Result<Option<NonZeroUsize>, Refused> {
    whole(0..=100_000)(value).map(NonZeroUsize::new)
}

/// A TCP port that can be connected to.
pub(super) fn port(value: &Value<'_>) -> Result<u16, Refused> {
    whole(1..=i64::from(u16::MAX))(value)
}

/// Megabytes, as bytes. A tebibyte is more than any box this runs on has.
pub(super) fn megabytes(value: &Value<'_>) -> Result<u64, Refused> {
    whole::<u64>(1..=1_048_576)(value).map(|megabytes| megabytes * MEBIBYTE)
}

/// Seconds, where 0 has a meaning.
pub(super) fn seconds(value: &Value<'_>) -> Result<Duration, Refused> {
    seconds_from(0.0, value)
}

/// Seconds that something may take or last.
pub(super) fn timeout(value: &Value<'_>) -> Result<Duration, Refused> {
    seconds_from(MIN_TIMEOUT_SECONDS, value)
}

/// Seconds, or 0 for never.
pub(super) fn seconds_or_never(value: &Value<'_>) -> Result<Option<Duration>, Refused> {
    seconds(value).map(|time| Some(time).filter(|time| !time.is_zero()))
}

fn seconds_from(least: f64, value: &Value<'_>) -> Result<Duration, Refused> {
    let allowed = format!("allowed are seconds, whole or decimal, from {least} to {MAX_SECONDS}");
    let number = match value {
        Value::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(f64::INFINITY, |number| number as f64)
        }
        Value::Float(number) => number.as_str().parse().unwrap_or(f64::NAN),
        _ => {
            return Err(Refused::new(format!("{} is no number", shown(value)), allowed));
        }
    };
    Some(number)
        .filter(|number| (least..=MAX_SECONDS).contains(number))
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or_else(|| Refused::new(format!("{} is out of range", shown(value)), allowed))
}

/// `true` or `false`.
pub(super) fn truth(value: &Value<'_>) -> Result<bool, Refused> {
    let refusal =
        || Refused::new(format!("{} is no truth value", shown(value)), "allowed are true and false");
    value.as_bool().ok_or_else(refusal)
}

/// A string that parses to what the key holds.
pub(super) fn text<T: FromStr<Err = Refused>>(value: &Value<'_>) -> Result<T, Refused> {
    string(value)?.parse()
}

/// The same, where the empty string stands for nothing.
pub(super) fn text_or_none<T: FromStr<Err = Refused>>(value: &Value<'_>) -> Result<Option<T>, Refused> {
    match string(value)? {
        "" => Ok(None),
        text => text.parse().map(Some),
    }
}

/// The admin token. A value that is no string is not repeated either: it is still the secret.
pub(super) fn token(value: &Value<'_>) -> Result<Option<AdminToken>, Refused> {
    if value.is_str() {
        text_or_none(value)
    } else {
        Err(Refused::new("the token is no string", "allowed is text in quotes"))
    }
}

fn string<'v>(value: &'v Value<'_>) -> Result<&'v str, Refused> {
    let refusal = || Refused::new(format!("{} is no string", shown(value)), "allowed is text in quotes");
    value.as_str().ok_or_else(refusal)
}

/// The name of an engine; empty for its default.
pub(super) fn name(value: &Value<'_>) -> Result<String, Refused> {
    let name = string(value)?;
    if name.chars().any(char::is_control) || name.trim() != name || name.chars().count() > MAX_NAME_CHARS {
        return Err(Refused::new(
            format!("\"{}\" is no name", Escaped(name)),
            format!(
                "allowed are up to {MAX_NAME_CHARS} characters, without control characters and outer blanks; \
                 empty for host:port"
            ),
        ));
    }
    Ok(name.to_owned())
}

/// A path, or empty for none.
pub(super) fn path(value: &Value<'_>) -> Result<Option<PathBuf>, Refused> {
    let path = string(value)?;
    if path.chars().any(char::is_control) {
        return Err(Refused::new(
            format!("\"{}\" is no file name", Escaped(path)),
            "allowed is a path without control characters, or empty for standard error",
        ));
    }
    Ok(Some(path).filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// The address to listen on, of a file.
pub(super) fn listen_value(value: &Value<'_>) -> Result<SocketAddr, Refused> {
    listen(string(value)?)
}

/// The level to log at, of a file.
pub(super) fn level_value(value: &Value<'_>) -> Result<LevelFilter, Refused> {
    level(string(value)?)
}

/// Reads `ADDRESS:PORT`; an IPv6 address stands in brackets, port 0 lets the system choose.
///
/// # Errors
///
/// For anything else, also for a host name: what it resolves to can change under a running listener.
pub fn listen(text: &str) -> Result<SocketAddr, Refused> {
    text.parse().map_err(|_| {
        Refused::new(
            format!("\"{}\" is no IP address with a port", Escaped(text)),
            "allowed is ADDRESS:PORT, such as 0.0.0.0:8000 for every IPv4 address or [::]:8000 for IPv6",
        )
    })
}

/// Reads the name of a log level, in any case.
///
/// # Errors
///
/// For anything else, also for `off`: errors are always told.
pub fn level(text: &str) -> Result<LevelFilter, Refused> {
    text.parse().ok().filter(|&level| level != LevelFilter::Off).ok_or_else(|| {
        Refused::new(
            format!("\"{}\" is no log level", Escaped(text)),
            "allowed are error, warn, info, debug and trace",
        )
    })
}
