//! The values that carry a rule of their own.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::Engine;
use super::mistake::Refused;
use crate::escape::Escaped;

/// The longest host name (RFC 1035 section 2.3.4, without the final dot).
const MAX_HOST_BYTES: usize = 253;

/// The longest label of a host name (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// The longest admin token: with its header it stays far below the limit of a request's head.
const MAX_TOKEN_BYTES: usize = 256;

/// The longest public URL; it stands before every entry of a playlist.
const MAX_URL_BYTES: usize = 512;

/// A host name in lower case, or an IP address in its shortest form. It holds no character that could end or
/// extend a URL's authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host(String);

impl Host {
    /// The name or address itself; IPv6 without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it stands in a URL: IPv6 in brackets.
    #[must_use]
    pub fn in_url(&self) -> Cow<'_, str> {
        if self.0.contains(':') { Cow::Owned(format!("[{}]", self.0)) } else { Cow::Borrowed(&self.0) }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string())
    }
}

impl FromStr for Host {
    type Err = Refused;

    /// Reads a name or an address; IPv6 with or without brackets.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let address = match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6),
            None => text.parse(),
        };
        match address {
            Ok(address) => Ok(address.into()),
            Err(_) if is_host_name(text) => Ok(Self(text.to_ascii_lowercase())),
            Err(_) => Err(Refused::new(
                format!("\"{}\" is no host", Escaped(text)),
                "allowed is a host name, an IPv4 or an IPv6 address, without scheme, port or path",
            )),
        }
    }
}

/// Whether this is a host name: RFC 1123 labels, and the underscore that container names carry.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits is a mistyped IPv4 address, which resolvers read in surprising ways.
    let ends_in_a_number = |text: &str| {
        let last = text.rsplit('.').next().unwrap_or_default();
        last.bytes().all(|byte| byte.is_ascii_digit())
    };
    text.len() <= MAX_HOST_BYTES && text.split('.').all(is_label) && !ends_in_a_number(text)
}

/// Reads a port by digits alone (the standard parser would take a sign); 0 cannot be connected to.
fn port(text: &str) -> Option<u16> {
    let port = text.parse().ok().filter(|&port| port != 0)?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(port)
}

impl FromStr for Engine {
    type Err = Refused;

    /// Reads `HOST:PORT`, everything else by default; an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let parts = text.rsplit_once(':');
        // Without brackets the last group of an IPv6 address would be taken for the port.
        let parts = parts.filter(|(host, _)| !host.contains(':') || host.starts_with('['));
        let engine = parts.and_then(|(host, digits)| Some(Self::at(host.parse().ok()?, port(digits)?)));
        engine.ok_or_else(|| {
            Refused::new(
                format!("\"{}\" is no engine", Escaped(text)),
                "allowed is HOST:PORT, such as 127.0.0.1:6878 or [::1]:6878",
            )
        })
    }
}

/// The secret of whoever may stop streams. Debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl AdminToken {
    /// Whether `offered` is this token, in a time that does not tell how much of it was right.
    #[must_use]
    pub fn matches(&self, offered: &str) -> bool {
        let (ours, offered) = (self.0.as_bytes(), offered.as_bytes());
        let pairs = ours.iter().zip(offered);
        let difference = pairs.fold(0, |sum, (one, other)| sum | (one ^ other));
        ours.len() == offered.len() && std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(...)")
    }
}

impl FromStr for AdminToken {
    type Err = Refused;

    /// Reads a token that a header can carry.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let fits = (1..=MAX_TOKEN_BYTES).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        // The token itself is not repeated: error messages end up in logs.
        Err(Refused::new(
            "no header can carry this token",
            format!("allowed are 1 to {MAX_TOKEN_BYTES} ASCII characters without blanks"),
        ))
    }
}

/// Where players reach the proxy from outside: `http` or `https`, host, perhaps a port and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    host: Host,
}

impl PublicUrl {
    /// The URL without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }
}

impl FromStr for PublicUrl {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let text = text.trim_end_matches('/');
        let host = Some(text).filter(|text| text.len() <= MAX_URL_BYTES).and_then(url_host);
        host.map(|host| Self { text: text.to_owned(), host }).ok_or_else(|| {
            Refused::new(
                format!("\"{}\" is no base URL", Escaped(text)),
                "allowed is http:// or https:// with a host, a port and a path if need be, and no query",
            )
        })
    }
}

/// The host of a base URL that keeps to the characters of the rule.
fn url_host(text: &str) -> Option<Host> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte);
    if !path.bytes().all(is_plain) {
        return None;
    }
    // The colon of a port comes after the bracket that ends an IPv6 address.
    let host = match authority.rsplit_once(':') {
        Some((host, digits)) if !digits.ends_with(']') => {
            port(digits)?;
            host
        }
        _ => authority,
    };
    // Without brackets an IPv6 address is a host, but no authority.
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    host.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_cannot_smuggle_anything_into_a_url() {
        let label = "a".repeat(63);
        let good = [
            ("localhost", "localhost"),
            ("ACE.Example", "ace.example"),
            ("acestream_engine-2", "acestream_engine-2"),
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "[::1]"),
            ("[fd00::0:1]", "[fd00::1]"),
            ("3com.example", "3com.example"),
            (&*label, &*label),
        ];
        for (text, shown) in good {
            let host: Host = text.parse().unwrap_or_else(|refused| panic!("{refused}"));
            assert_eq!(host.in_url(), shown);
            assert_eq!(host.as_str().parse(), Ok(host.clone()), "{shown}");
            assert_eq!(host.in_url().parse(), Ok(host), "{shown}");
        }
        let (long_label, long) = ("a".repeat(64), "a.".repeat(130) + "a");
        let bad = [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a:1",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "user:pw@a",
            "a\nb",
            "a\r\nHost: b",
            "a%20b",
            "a\\b",
            "[::1",
            "::1]",
            "[a]",
            "[10.0.0.1]",
            "[::1]x",
            "fe80::1%eth0",
            "mañana",
            "1.2.3",
            "256.1.1.1",
            "0x7f.1",
            "http://a",
            &long_label,
            &long,
            "a\0",
            "a\"",
            "[]",
            "a,b",
            "a;b",
        ];
        for text in bad {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_url_is_a_base_and_nothing_more() {
        let good = [
            ("http://tv.lan", "http://tv.lan", "tv.lan"),
            ("https://tv.lan/", "https://tv.lan", "tv.lan"),
            ("http://[::1]:80/a-b/c_d/", "http://[::1]:80/a-b/c_d", "[::1]"),
            ("http://[::1]", "http://[::1]", "[::1]"),
            ("http://10.0.0.1:8000", "http://10.0.0.1:8000", "10.0.0.1"),
        ];
        for (text, shown, host) in good {
            let url: PublicUrl = text.parse().unwrap_or_else(|refused| panic!("{refused}"));
            assert_eq!((url.as_str(), &*url.host().in_url()), (shown, host));
        }
        let long = format!("http://a/{}", "b".repeat(600));
        let bad = [
            "",
            "tv.lan",
            "//tv.lan",
            "ftp://a",
            "http://",
            "http:///a",
            "http://a:0",
            "http://a:",
            "http://a:x",
            "http://a:+1",
            "http://a:70000",
            "http://a?b",
            "http://a/?b",
            "http://a/#b",
            "http://u@a",
            "http://a b",
            "http://a/\"",
            "http://a/<b>",
            "http://a\n",
            "http://::1",
            "http://::1:80",
            "javascript://a",
            &long,
        ];
        for text in bad {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_engine_is_a_host_and_a_port() {
        let engine = |text: &str| text.parse::<Engine>().map(|engine| engine.authority());
        assert_eq!(engine("ace.lan:6878").expect("good"), "ace.lan:6878");
        assert_eq!(engine("[::1]:1").expect("good"), "[::1]:1");
        for text in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:+1",
            "a:65536",
            "::1",
            "::1:1",
            "a:1:2",
            "http://a:1",
            "a:1 ",
        ] {
            assert!(engine(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_matches_itself_alone_and_is_not_shown() {
        let token: AdminToken = "correct".parse().expect("a token");
        assert!(token.matches("correct"));
        for offered in ["", "correc", "correct ", "correct\0", "Correct", "correctcorrect"] {
            assert!(!token.matches(offered), "{offered}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken(...)");
    }
}
