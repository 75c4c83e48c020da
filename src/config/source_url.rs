//! Where lists and guides are fetched from.

use std::fmt;
use std::str::FromStr;

use super::mistake::Refused;
use super::value::Host;
use crate::escape::Escaped;

/// Longer addresses than any list has.
const MAX_BYTES: usize = 2048;

/// An `http` or `https` address without blanks. Printed, it shows neither user nor query: passwords stand there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SourceUrl(Box<str>);

impl SourceUrl {
    /// The whole of it, secrets included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Scheme, authority without its user, and path.
    fn parts(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        (scheme, host, path)
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, path) = self.parts();
        write!(f, "{scheme}://{host}{}", Escaped(path))
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether this build can ask over TLS.
const HAS_HTTPS: bool = cfg!(feature = "https");

impl FromStr for SourceUrl {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        const ALLOWED: &str = "allowed is an http or https URL of at most 2048 characters, without blanks";
        // The text itself is not repeated: it may have a password in it.
        let refuse = || Refused::new("this is no URL that a list could be fetched from", ALLOWED);
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_secure = match scheme.as_deref() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse()),
        };
        if text.len() > MAX_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse());
        }
        let url = Self(text.into());
        let (_, authority, _) = url.parts();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        let is_port = port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.parse::<Host>().is_err() || !is_port {
            return Err(refuse());
        }
        if is_secure && !HAS_HTTPS {
            let allowed =
                "write an http URL, or have another program fetch the list into a file (path = ...)";
            return Err(Refused::new("https is not built into this program", allowed));
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_no_secrets() {
        let url: SourceUrl =
            "http://ann:secret@[fd00::1]:8080/get/list.m3u?password=secret".parse().expect("a URL");
        assert_eq!(url.to_string(), "http://[fd00::1]:8080/get/list.m3u");
        assert_eq!(format!("{url:?}"), url.to_string());
        assert!(url.as_str().ends_with("password=secret"));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for bad in [
            "",
            "list.m3u",
            "file:///etc/passwd",
            "ftp://a/b",
            "http://",
            "http:///a",
            "http://a b/",
            "http://a:0/",
            "http://a:x/",
            "http://\u{e9}/",
            "http://user:secret@/x",
        ] {
            let refused = bad.parse::<SourceUrl>().expect_err("no address");
            assert!(!refused.to_string().contains("secret"), "{bad}");
        }
        for good in ["http://a", "http://a:80/x?y#z", "HTTP://box.lan/l", "http://u@1.2.3.4/"] {
            assert!(good.parse::<SourceUrl>().is_ok(), "{good}");
        }
        assert_eq!("https://a/b".parse::<SourceUrl>().is_ok(), HAS_HTTPS);
    }
}
