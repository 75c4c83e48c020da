//! Who may change something, stop a stream, disconnect a client; and who may see who watches.
//!
//! Pure: what a request's headers claim is weighed against the configuration. Two kinds of people are kept out. Whoever
//! lacks the token, if there is one, changes nothing. And the author of a web page that somebody in the house looks at: a page of
//! another origin gives itself away by its `Origin`, and one whose name was rebound to our address by its `Host`, which
//! is a public name, where ours is an address or a name of the house.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::{self, AdminToken, PublicUrl};

/// Endings of names that no public server has (RFC 6762, RFC 8375, and what routers of homes use).
const HOUSE_SUFFIXES: [&str; 3] = [".local", ".lan", ".home.arpa"];

/// The rules of this proxy.
#[derive(Clone, Copy, Debug)]
pub struct Admin<'a> {
    /// What has to be presented; `None` asks for nothing.
    pub token: Option<&'a AdminToken>,
    /// A name of ours that the rules for names would not allow.
    pub public_url: Option<&'a PublicUrl>,
}

impl<'a> From<&'a config::Server> for Admin<'a> {
    fn from(server: &'a config::Server) -> Self {
        Self { token: server.admin_token.as_ref(), public_url: server.public_url.as_ref() }
    }
}

/// What a request says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Origin`: the page that asks, if one does.
    pub origin: Option<&'a str>,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Asked under a name that is not ours.
    ForeignHost,
    /// Asked by another site's page.
    ForeignOrigin,
    /// Without the token.
    NoToken,
    /// With another token.
    WrongToken,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ForeignHost => {
                "ask under an address or a name of the local network, or set public_url to the name that is used here"
            }
            Self::ForeignOrigin => "a page of another site may not do this",
            Self::NoToken => "this needs \"Authorization: Bearer\" with the admin token",
            Self::WrongToken => "this is not the admin token",
        })
    }
}

impl Admin<'_> {
    /// Whether whoever claims this may change something.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self, claim: Claim<'_>) -> Result<(), Denied> {
        let host = claim.host.unwrap_or_default();
        if !self.is_ours(host) {
            return Err(Denied::ForeignHost);
        }
        if claim.origin.is_some_and(|origin| !is_origin_of(origin, host)) {
            return Err(Denied::ForeignOrigin);
        }
        match (self.token, claim.authorization.and_then(bearer)) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Denied::NoToken),
            (Some(token), Some(offered)) if token.matches(offered) => Ok(()),
            (Some(_), Some(_)) => Err(Denied::WrongToken),
        }
    }

    /// Whether whoever claims this may see who watches what. A browser always says under which name it asks; whoever says
    /// none is no page of another site.
    ///
    /// # Errors
    ///
    /// When it asks under a name that is not ours.
    pub fn check_reader(&self, claim: Claim<'_>) -> Result<(), Denied> {
        match claim.host.map(str::trim) {
            Some(host) if !host.is_empty() && !self.is_ours(host) => Err(Denied::ForeignHost),
            _ => Ok(()),
        }
    }

    fn is_ours(&self, authority: &str) -> bool {
        let Some(name) = host_of(authority) else {
            return false;
        };
        let name = name.to_ascii_lowercase();
        if let Some(inner) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            // The zone of a link-local address (RFC 4007 section 11) is the client's own matter.
            let address = inner.split('%').next().unwrap_or_default();
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let public = self.public_url.map(|url| url.host().as_str().to_ascii_lowercase());
        let name = name.strip_suffix('.').unwrap_or(&name);
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        is_name
            && (name.parse::<IpAddr>().is_ok()
                || !name.contains('.')
                || HOUSE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
                || public.as_deref() == Some(name))
    }
}

/// The host of an authority, without its port; `None` for what is no authority.
pub(super) fn host_of(authority: &str) -> Option<&str> {
    let host_end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(host_end);
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    is_port.then_some(host)
}

/// Whether a page of this origin (RFC 6454) came from this host. The scheme does not count: a proxy in front of us
/// may speak TLS.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let (rest, default_port) = if let Some(rest) = origin.strip_prefix("http://") {
        (rest, ":80")
    } else if let Some(rest) = origin.strip_prefix("https://") {
        (rest, ":443")
    } else {
        return false;
    };
    let without_default = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        authority.strip_suffix(default_port).map(str::to_owned).unwrap_or(authority)
    };
    !rest.is_empty() && without_default(rest) == without_default(host)
}

/// The token of `Bearer <token>` (RFC 6750 section 2.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(claim: Claim<'_>, expected: Result<(), Denied>) {
        let public_url = "https://tv.example.org/ace".parse().expect("a URL");
        let admin = Admin { token: None, public_url: Some(&public_url) };
        assert_eq!(admin.check(claim), expected, "{claim:?}");
    }

    #[test]
    fn names_of_the_house_are_ours_and_public_names_are_not() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8000",
            "192.168.1.5:8000",
            "[::1]:8000",
            "[fe80::1]",
            "[fe80::1%eth0]:8000",
            "[fe80::1%25eth0]",
            "localhost:8000",
            "LOCALHOST",
            "box:8000",
            "box.",
            "box.local",
            "Box.Lan:8000",
            "tv.home.arpa",
            "tv.example.org",
            "TV.example.org:443",
        ] {
            check(Claim { host: Some(host), ..Claim::default() }, Ok(()));
        }
        for host in [
            "",
            ":8000",
            "evil.example",
            "evil.example:8000",
            "example.org",
            "x.tv.example.org",
            "local.evil.example",
            "evil.lan.example",
            "127.0.0.1.evil.example",
            "box:80:80",
            "box:x",
            "box/",
            "user@box",
            "[::1",
            "[evil.example]",
            "[::1].evil.example",
            "..",
            "bóx",
        ] {
            check(Claim { host: Some(host), ..Claim::default() }, Err(Denied::ForeignHost));
        }
        check(Claim::default(), Err(Denied::ForeignHost));
    }

    #[test]
    fn whoever_asks_under_a_public_name_sees_nothing() {
        let public_url = "https://tv.example.org/ace".parse().expect("a URL");
        let token = "secret".parse().expect("a token");
        let admin = Admin { token: Some(&token), public_url: Some(&public_url) };
        let check = |host, expected| {
            let claim = Claim { host, origin: Some("http://evil.example"), authorization: None };
            assert_eq!(admin.check_reader(claim), expected, "{host:?}");
        };
        for ours in ["127.0.0.1:8000", "box", "box.lan:8000", "[::1]:8000", "tv.example.org", ""] {
            check(Some(ours), Ok(()));
        }
        check(None, Ok(()));
        for foreign in ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[evil]", "box/"] {
            check(Some(foreign), Err(Denied::ForeignHost));
        }
    }

    #[test]
    fn a_page_may_ask_its_own_host_only() {
        let (ok, no) = (Ok(()), Err(Denied::ForeignOrigin));
        for (host, origin, expected) in [
            ("box:8000", "http://box:8000", ok),
            ("Box:8000", "http://bOx:8000", ok),
            ("box", "http://box:80", ok),
            ("box:80", "http://box", ok),
            ("tv.example.org", "https://tv.example.org", ok),
            ("tv.example.org:443", "https://tv.example.org", ok),
            ("[::1]:8000", "http://[::1]:8000", ok),
            ("box:8000", "http://box", no),
            ("box", "http://box:8000", no),
            ("box", "https://box:80", no),
            ("box:8000", "null", no),
            ("box:8000", "", no),
            ("box:8000", "http://", no),
            ("box:8000", "http://evil.example", no),
            ("box:8000", "http://evil.example/http://box:8000", no),
            ("box:8000", "file://box:8000", no),
            ("box:8000", "http://box:8000.evil.example", no),
        ] {
            check(Claim { host: Some(host), origin: Some(origin), ..Claim::default() }, expected);
        }
    }

    #[test]
    fn the_token_is_asked_for_when_there_is_one() {
        let token = "secret".parse().expect("a token");
        let admin = Admin { token: Some(&token), public_url: None };
        let check = |authorization, expected| {
            let claim = Claim { host: Some("box"), authorization, ..Claim::default() };
            assert_eq!(admin.check(claim), expected, "{authorization:?}");
        };
        check(None, Err(Denied::NoToken));
        for wrong in ["", "Bearer", "secret", "Basic secret", "Bearersecret"] {
            check(Some(wrong), Err(Denied::NoToken));
        }
        for wrong in ["Bearer ", "Bearer secre", "Bearer secret2", "Bearer secret secret", "bearer SECRET"] {
            check(
                Some(wrong),
                if wrong.trim() == "Bearer" { Err(Denied::NoToken) } else { Err(Denied::WrongToken) },
            );
        }
        for right in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            check(Some(right), Ok(()));
        }
        let foreign =
            Claim { host: Some("evil.example"), authorization: Some("Bearer secret"), origin: None };
        assert_eq!(admin.check(foreign), Err(Denied::ForeignHost));
    }
}
