//! Where a guide comes from.

use std::fmt;
use std::str::FromStr;

use super::mistake::Refused;
use crate::escape::Escaped;

/// As long as any URL that a server takes for sure (RFC 9110 section 4.1 asks for 8000 bytes, people's links are shorter).
const MAX_BYTES: usize = 2048;

/// What a URL of a guide may begin with.
const SCHEMES: [&str; 3] = ["http://", "https://", "file:///"];

/// The URL of a guide: `http`, `https` or `file`. What it is shown as leaves out what may be secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuideUrl(String);

impl GuideUrl {
    /// All of it, user and password included: to fetch by, never to show.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GuideUrl {
    /// Without user, password, query and fragment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.0.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let cut = if url.len() < self.0.len() { "?..." } else { "" };
        write!(f, "{scheme}://{}{}{cut}", Escaped(host), Escaped(path))
    }
}

impl fmt::Debug for GuideUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuideUrl({self})")
    }
}

impl FromStr for GuideUrl {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let text = text.trim();
        let scheme = SCHEMES
            .iter()
            .find(|scheme| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)));
        let is_plain = |character: char| !character.is_control() && character != ' ';
        match scheme {
            Some(scheme)
                if text.len() <= MAX_BYTES
                    && text.chars().all(is_plain)
                    && text[scheme.len()..].starts_with(|first| !"/?#".contains(first)) =>
            {
                Ok(Self(format!("{scheme}{}", &text[scheme.len()..])))
            }
            // Not repeated: it may have a password in it.
            _ => Err(Refused::new(
                "this is no URL of a guide",
                format!(
                    "allowed are http://, https:// and file:///PATH, up to {MAX_BYTES} bytes without blanks"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (text, shown) in [
            ("http://guide.example/epg.xml.gz", "http://guide.example/epg.xml.gz"),
            ("HTTPS://me:secret@guide.example:8443/x/y?token=abc#1", "https://guide.example:8443/x/y?..."),
            ("http://guide.example", "http://guide.example"),
            ("file:///srv/guide.xml", "file:///srv/guide.xml"),
        ] {
            let url: GuideUrl = text.parse().unwrap_or_else(|refused| panic!("{refused}"));
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("GuideUrl({shown})"));
        }
        let url: GuideUrl = "http://a:b@c/?d=e".parse().expect("a URL");
        assert_eq!(url.secret(), "http://a:b@c/?d=e");
    }

    #[test]
    fn only_urls_that_can_be_fetched_are_taken() {
        let long = format!("http://a/{}", "b".repeat(MAX_BYTES));
        for text in [
            "",
            "guide.xml",
            "ftp://a/b",
            "http://",
            "http:///a",
            "file://host/a",
            "http://a/ b",
            "http://a\nb",
            &long,
        ] {
            let refused = text.parse::<GuideUrl>().expect_err(text);
            assert!(text.len() < 9 || !refused.to_string().contains(text), "{refused}");
        }
    }
}
