//! Which value a key takes: each rule turns a value of the file into its type, or says what is allowed, and
//! knows the way back.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use super::mistake::Refused;
use super::raw::{Value, quoted, seconds as in_seconds, shown};
use super::{AdminToken, DeviceId, Host, MEBIBYTE, PublicUrl, SourceUrl};
use crate::escape::Escaped;

/// The longest time a key takes, a day: more is a slip of units, and far below what `Instant` can add.
const MAX_SECONDS: f64 = 86_400.0;

/// The shortest time-out. Less cannot be met by a busy small box; 0 would fail everything at once.
const MIN_TIMEOUT_SECONDS: f64 = 0.1;

/// The longest name of an engine; it stands in every log line about it.
const MAX_NAME_CHARS: usize = 64;

type Read<T> = dyn Fn(&Value<'_>) -> Result<T, Refused>;

/// What a key's value may be, both ways.
pub(super) struct Rule<T> {
    /// Turns a value of the file into its type, or says what is allowed.
    pub(super) read: Box<Read<T>>,
    /// The same value as TOML; `None` for one that is kept to ourselves.
    pub(super) show: fn(&T) -> Option<String>,
}

impl<T> Rule<T> {
    pub(super) fn new(
        read: impl Fn(&Value<'_>) -> Result<T, Refused> + 'static,
        show: fn(&T) -> Option<String>,
    ) -> Self {
        Self { read: Box::new(read), show }
    }
}

/// A whole number within `range`.
pub(super) fn whole<T: TryFrom<i64> + ToString>(range: RangeInclusive<i64>) -> Rule<T> {
    Rule::new(move |value| whole_in(&range, value), |number| Some(number.to_string()))
}

pub(super) fn whole_in<T: TryFrom<i64>>(
    range: &RangeInclusive<i64>,
    value: &Value<'_>,
) -> Result<T, Refused> {
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

/// A limit, or 0 for none.
pub(super) fn limit_or_none() -> Rule<Option<NonZeroUsize>> {
    Rule::new(
        |value| whole_in(&(0..=100_000), value).map(NonZeroUsize::new),
        |limit| Some(limit.map_or(0, NonZeroUsize::get).to_string()),
    )
}

/// Megabytes, as bytes. A tebibyte is more than any box this runs on has.
pub(super) fn megabytes() -> Rule<u64> {
    Rule::new(
        |value| whole_in::<u64>(&(1..=1_048_576), value).map(|megabytes| megabytes * MEBIBYTE),
        |bytes| Some((bytes / MEBIBYTE).to_string()),
    )
}

/// Seconds, where 0 has a meaning.
pub(super) fn seconds() -> Rule<Duration> {
    Rule::new(|value| seconds_from(0.0, value), |time| Some(in_seconds(*time)))
}

/// Seconds that something may take or last.
pub(super) fn timeout() -> Rule<Duration> {
    Rule { read: Box::new(|value| seconds_from(MIN_TIMEOUT_SECONDS, value)), ..seconds() }
}

/// Seconds, or 0 for never.
pub(super) fn seconds_or_never() -> Rule<Option<Duration>> {
    Rule::new(
        |value| seconds_from(0.0, value).map(|time| Some(time).filter(|time| !time.is_zero())),
        |time| Some(in_seconds(time.unwrap_or_default())),
    )
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
pub(super) fn truth() -> Rule<bool> {
    let read = |value: &Value<'_>| {
        let refusal =
            || Refused::new(format!("{} is no truth value", shown(value)), "allowed are true and false");
        value.as_bool().ok_or_else(refusal)
    };
    Rule::new(read, |truth| Some(truth.to_string()))
}

pub(super) fn string<'v>(value: &'v Value<'_>) -> Result<&'v str, Refused> {
    let refusal = || Refused::new(format!("{} is no string", shown(value)), "allowed is text in quotes");
    value.as_str().ok_or_else(refusal)
}

/// A string that parses, where the empty one stands for nothing.
fn text_or_none<T: FromStr<Err = Refused>>(value: &Value<'_>) -> Result<Option<T>, Refused> {
    match string(value)? {
        "" => Ok(None),
        text => text.parse().map(Some),
    }
}

/// The host of an engine.
pub(super) fn host() -> Rule<Host> {
    Rule::new(|value| string(value)?.parse(), |host| Some(quoted(host.as_str())))
}

/// A base URL, or empty for none.
pub(super) fn url_or_none() -> Rule<Option<PublicUrl>> {
    Rule::new(text_or_none, |url| Some(quoted(url.as_ref().map_or("", PublicUrl::as_str))))
}

/// The admin token, or empty for none. A value that is no string is not repeated: it is still the secret.
pub(super) fn token() -> Rule<Option<AdminToken>> {
    let read = |value: &Value<'_>| {
        if value.is_str() {
            text_or_none(value)
        } else {
            Err(Refused::new("the token is no string", "allowed is text in quotes"))
        }
    };
    Rule::new(read, |token| token.is_none().then(|| quoted("")))
}

/// The name of an engine; empty for its default.
pub(super) fn name() -> Rule<String> {
    let read = |value: &Value<'_>| {
        let name = string(value)?;
        let is_long = name.chars().count() > MAX_NAME_CHARS;
        if name.chars().any(char::is_control) || name.trim() != name || is_long {
            return Err(Refused::new(
                format!("\"{}\" is no name", Escaped(name)),
                format!(
                    "allowed are up to {MAX_NAME_CHARS} characters, without control characters and outer \
                     blanks; empty for host:port"
                ),
            ));
        }
        Ok(name.to_owned())
    };
    Rule::new(read, |name| Some(quoted(name)))
}

/// The URLs of guides. Each is fetched twice a day, one after the other, so a few dozen are more than anybody needs.
pub(super) fn guide_urls() -> Rule<Vec<SourceUrl>> {
    const MAX_GUIDES: usize = 64;
    let read = |value: &Value<'_>| {
        let allowed = format!("allowed is a list of up to {MAX_GUIDES} URLs in quotes");
        let list = value.as_array().filter(|list| list.len() <= MAX_GUIDES);
        let list =
            list.ok_or_else(|| Refused::new(format!("{} is no list of guides", shown(value)), allowed))?;
        list.iter().map(|url| string(url.get_ref())?.parse()).collect()
    };
    Rule::new(read, |urls| {
        let urls: Vec<_> = urls.iter().map(|url| quoted(url.as_str())).collect();
        Some(format!("[{}]", urls.join(", ")))
    })
}

/// What programs call the tuner; it stands in their menus.
pub(super) fn tuner_name() -> Rule<String> {
    let read = |value: &Value<'_>| {
        let name = string(value)?;
        let is_short = (1..=MAX_NAME_CHARS).contains(&name.chars().count());
        if is_short && name.trim() == name && !name.chars().any(char::is_control) {
            return Ok(name.to_owned());
        }
        Err(Refused::new(
            format!("\"{}\" is no name", Escaped(name)),
            format!(
                "allowed are 1 to {MAX_NAME_CHARS} characters, without control characters and outer blanks"
            ),
        ))
    };
    Rule::new(read, |name| Some(quoted(name)))
}

/// How many tuners there are said to be, or 0 for as many as there may be streams. More than 32 have made clients fail
/// (playlist-facts.md section 3.1).
pub(super) fn tuners() -> Rule<Option<NonZeroU8>> {
    Rule::new(
        |value| whole_in(&(0..=32), value).map(NonZeroU8::new),
        |count| Some(count.map_or(0, NonZeroU8::get).to_string()),
    )
}

/// The tuner's id, or empty for one that is made.
pub(super) fn device_id() -> Rule<Option<DeviceId>> {
    Rule::new(text_or_none, |id| Some(quoted(&id.map(|id| id.to_string()).unwrap_or_default())))
}

/// A path, or empty for none.
pub(super) fn path() -> Rule<Option<PathBuf>> {
    let read = |value: &Value<'_>| {
        let path = string(value)?;
        if path.chars().any(char::is_control) {
            return Err(Refused::new(
                format!("\"{}\" is no file name", Escaped(path)),
                "allowed is a path without control characters, or empty for standard error",
            ));
        }
        Ok(Some(path).filter(|path| !path.is_empty()).map(PathBuf::from))
    };
    Rule::new(read, |path| {
        let path = path.as_ref().map(|path| path.display().to_string());
        Some(quoted(&path.unwrap_or_default()))
    })
}

/// How often something is fetched. More often than once a minute is a burden to whoever serves it.
pub(super) fn refresh() -> Rule<Duration> {
    Rule { read: Box::new(|value| seconds_from(60.0, value)), ..seconds() }
}

/// The address to listen on.
pub(super) fn address() -> Rule<SocketAddr> {
    Rule::new(|value| listen(string(value)?), |address| Some(quoted(&address.to_string())))
}

/// The level to log at.
pub(super) fn log_level() -> Rule<LevelFilter> {
    let show = |level: &LevelFilter| Some(quoted(&level.as_str().to_ascii_lowercase()));
    Rule::new(|value| level(string(value)?), show)
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
