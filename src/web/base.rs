//! What the absolute URLs that go out begin with.
//!
//! A playlist is read by a player on another box, so its URLs must name us as that box knows us: by the configured
//! `public_url`, else by the name under which it has just asked. Pure; what is behind the base is not known here.

use std::borrow::Cow;

use crate::config::PublicUrl;
use crate::http::request::Request;

use super::admin::host_of;
use super::target::authority_of;

/// The base of absolute URLs, without a slash at its end: scheme, host, port and path prefix. `None` for a request that names
/// no host we could be asked under, when no `public_url` is set.
pub(super) fn base_url(public_url: Option<&PublicUrl>, request: &Request) -> Option<String> {
    let asked = authority_of(request.target()).or_else(|| request.header("Host"));
    base_of(public_url, asked).map(Cow::into_owned)
}

/// The same for a program that asked us by a name of its own and takes that for the engine's: the name it asked under, and
/// `public_url` only where it asked under that host, or under none.
pub(super) fn base_url_as_asked(public_url: Option<&PublicUrl>, request: &Request) -> Option<String> {
    let asked = authority_of(request.target()).or_else(|| request.header("Host"));
    let host = asked.and_then(|asked| host_of(asked.trim()));
    let is_public = public_url.is_some_and(|url| {
        host.is_none_or(|host| host.is_empty() || host.eq_ignore_ascii_case(url.host().as_str()))
    });
    base_of(public_url.filter(|_| is_public), asked).map(Cow::into_owned)
}

/// The longest host of DNS has 253 characters, and a port five.
const MAX_AUTHORITY_BYTES: usize = 259;

fn base_of<'a>(public_url: Option<&'a PublicUrl>, authority: Option<&str>) -> Option<Cow<'a, str>> {
    if let Some(url) = public_url {
        return Some(url.as_str().into());
    }
    let authority = authority?.trim();
    let host = host_of(authority)?;
    // It stands in lists that other programs read: nothing that means something there may be in it.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%[]".contains(&byte);
    let is_host = !host.is_empty() && authority.len() <= MAX_AUTHORITY_BYTES && host.bytes().all(is_plain);
    is_host.then(|| format!("http://{}", authority.trim_end_matches(':')).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_us_as_the_player_does() {
        for host in [
            "box:8000",
            "192.168.0.2",
            "[fd00::2]:8000",
            "[fe80::1%25eth0]:80",
            "tv.example.org",
            " box.lan ",
        ] {
            let base = base_of(None, Some(host));
            assert_eq!(base.as_deref(), Some(&*format!("http://{}", host.trim())), "{host}");
        }
        assert_eq!(base_of(None, Some("box:")).as_deref(), Some("http://box"));
    }

    #[test]
    fn what_names_no_host_is_no_base() {
        let long = "a".repeat(MAX_AUTHORITY_BYTES + 1);
        for host in ["", ":80", "box:8o", "a b", "a/b", "a\"b", "user@box", "[::1", "b\u{f6}x", &long] {
            assert_eq!(base_of(None, Some(host)), None, "{host}");
        }
        assert_eq!(base_of(None, None), None);
    }

    #[test]
    fn the_configured_url_stands_above_what_was_asked() {
        let url: PublicUrl = "https://tv.example:8443/ace/".parse().expect("a URL");
        assert_eq!(base_of(Some(&url), Some("box:8000")).as_deref(), Some("https://tv.example:8443/ace"));
        assert_eq!(base_of(Some(&url), None).as_deref(), Some("https://tv.example:8443/ace"));
    }
}
