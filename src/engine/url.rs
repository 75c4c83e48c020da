//! URLs of an engine, always on the host and port of the configuration.
//!
//! An engine builds its URLs from the `Host` header, from 127.0.0.1 or from a container's name
//! (engine-contract.md section 8.4), so only path and query of what it says are believed, and of those only
//! the paths that belong to playback. No other host is ever asked.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::id::{ContentKey, ContentName};

/// Where an engine's paths for playback begin.
const ALLOWED_PREFIXES: [&str; 3] = ["/ace/", "/content/", "/hls/"];

/// Longer than any URL of an engine; what is longer is no URL of an engine.
const MAX_TARGET_BYTES: usize = 4096;

/// What stands unencoded in a query value: RFC 3986's unreserved characters.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Path and query of a URL on an engine; the path is one of those that belong to playback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Cow<'static, str>);

/// Why something an engine gave as a URL is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// It is not a URL of HTTP at all.
    NotAUrl,
    /// Its path is not one of those that belong to playback.
    ForeignPath,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAUrl => "the engine gave something that is no URL",
            Self::ForeignPath => "the engine gave a URL outside /ace/, /content/ and /hls/",
        })
    }
}

impl Target {
    /// The engine's version, where official engines tell it.
    pub const GET_VERSION: Self = Self(Cow::Borrowed("/webui/api/service?method=get_version"));

    /// The engine's version, where others tell it (engine-contract.md section 13).
    pub const GET_VERSION_OF_API: Self = Self(Cow::Borrowed("/server/api?api_version=3&method=get_version"));

    /// Whether the engine works.
    pub const GET_STATUS: Self = Self(Cow::Borrowed("/server/api?api_version=3&method=get_status"));

    /// Takes path and query of a URL that an engine gave, absolute or relative to its root.
    ///
    /// # Errors
    ///
    /// When it is no HTTP URL, or its path does not belong to playback.
    pub fn rebase(url: &str) -> Result<Self, TargetError> {
        let url = url.trim();
        if url.len() > MAX_TARGET_BYTES || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::NotAUrl);
        }
        let after_scheme = ["http://", "https://", "//"].iter().find_map(|scheme| {
            let head = url.get(..scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..])
        });
        let target = match after_scheme {
            Some(rest) => &rest[rest.find('/').ok_or(TargetError::ForeignPath)?..],
            None if url.starts_with('/') => url,
            None => return Err(TargetError::NotAUrl),
        };
        let target = target.split('#').next().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let climbs = path.split('/').any(|segment| segment == ".." || segment == ".");
        if climbs
            || path.contains(['%', '\\'])
            || !ALLOWED_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
        {
            return Err(TargetError::ForeignPath);
        }
        Ok(Self(target.to_owned().into()))
    }

    /// Takes a URL that stands in what was found at this target (RFC 3986 section 5.2): absolute, or relative to it.
    ///
    /// # Errors
    ///
    /// When it is no HTTP URL, or its path does not belong to playback.
    pub fn resolve(&self, reference: &str) -> Result<Self, TargetError> {
        let reference = reference.trim();
        let path_end = reference.find(['?', '#']).unwrap_or(reference.len());
        let (path, rest) = reference.split_at(path_end);
        if path.starts_with('/') || path.contains(':') {
            return Self::rebase(reference);
        }
        let own = self.0.split('?').next().unwrap_or_default();
        if path.is_empty() {
            return Self::rebase(&format!("{own}{rest}"));
        }
        let mut segments: Vec<&str> = own.split('/').collect();
        segments.pop();
        for segment in path.split('/') {
            match segment {
                "." => {}
                // The first is the empty one in front of the root, which nothing climbs over.
                ".." if segments.len() > 1 => drop(segments.pop()),
                ".." => {}
                segment => segments.push(segment),
            }
        }
        Self::rebase(&format!("{}{rest}", segments.join("/")))
    }

    /// The target of a getstream request with `format=json` and this player id; under its old name too, since engines before
    /// 3.1.29 know no other (engine-contract.md section 1.2).
    #[must_use]
    pub fn getstream(key: &ContentKey, pid: &str) -> Self {
        Self::getstream_without_pid(key).with(&format!("pid={pid}&sid={pid}"))
    }

    /// The same without the player id, as it stands in the log.
    #[must_use]
    pub fn getstream_without_pid(key: &ContentKey) -> Self {
        let (name, digest) = (key.name.parameter(), key.name.digest());
        let mut target = format!("/ace/getstream?{name}={digest}&format=json");
        for (name, value) in key.params.iter() {
            target.push_str(&format!("&{name}={}", utf8_percent_encode(value, VALUE)));
        }
        Self(target.into())
    }

    /// The files of a content.
    #[must_use]
    pub fn media_files(name: ContentName) -> Self {
        let (parameter, digest) = match name {
            ContentName::Id(id) => ("content_id", id),
            ContentName::Infohash(infohash) => ("infohash", infohash),
        };
        Self(format!("/server/api?api_version=3&method=get_media_files&{parameter}={digest}").into())
    }

    /// This target with one more query parameter, whose name and value need no encoding.
    #[must_use]
    pub fn with(&self, parameter: &str) -> Self {
        let separator = if self.0.contains('?') { '&' } else { '?' };
        Self(format!("{}{separator}{parameter}", self.0).into())
    }

    /// The whole URL on the engine at this `host:port`.
    #[must_use]
    pub fn on(&self, authority: &str) -> String {
        format!("http://{authority}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_url_of_an_engine_lands_on_the_configured_host() {
        for url in [
            "http://127.0.0.1:6878/ace/r/aa/bb?x=1",
            "http://172.17.0.2:1/ace/r/aa/bb?x=1",
            "HTTPS://evil.example/ace/r/aa/bb?x=1#f",
            "//evil.example/ace/r/aa/bb?x=1",
            "http://user:pass@evil.example/ace/r/aa/bb?x=1",
            " /ace/r/aa/bb?x=1\n",
        ] {
            let target = Target::rebase(url).expect(url);
            assert_eq!(target.on("box:6878"), "http://box:6878/ace/r/aa/bb?x=1", "{url}");
        }
    }

    #[test]
    fn what_does_not_belong_to_playback_is_refused() {
        for (url, expected) in [
            ("", TargetError::NotAUrl),
            ("ace/r/aa", TargetError::NotAUrl),
            ("ftp://box/ace/r/aa", TargetError::NotAUrl),
            ("/ace/r/a b", TargetError::NotAUrl),
            ("/ace/r/a\r\nHost: evil", TargetError::NotAUrl),
            ("http://box", TargetError::ForeignPath),
            ("http://box/webui/app/x/cmd/shutdown", TargetError::ForeignPath),
            ("/ace/../server/api", TargetError::ForeignPath),
            ("/ace/%2e%2e/server/api", TargetError::ForeignPath),
            ("/acex/r", TargetError::ForeignPath),
        ] {
            assert_eq!(Target::rebase(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn what_a_list_names_is_found_beside_it() {
        let list = Target::rebase("/ace/m/aa/list.m3u8?x=1").expect("a target");
        for (reference, expected) in [
            ("0.ts", "/ace/m/aa/0.ts"),
            (" sub/0.ts?a=b#c", "/ace/m/aa/sub/0.ts?a=b"),
            ("./0.ts", "/ace/m/aa/0.ts"),
            ("../../c/bb/0.ts", "/ace/c/bb/0.ts"),
            ("../../../../hls/0.ts", "/hls/0.ts"),
            ("?x=2", "/ace/m/aa/list.m3u8?x=2"),
            ("/content/0.ts", "/content/0.ts"),
            ("//172.17.0.2/ace/c/0.ts", "/ace/c/0.ts"),
            ("http://127.0.0.1:6878/ace/c/aa/0.ts", "/ace/c/aa/0.ts"),
        ] {
            let target = list.resolve(reference).expect(reference);
            assert_eq!(target.on("box:1"), format!("http://box:1{expected}"), "{reference}");
        }
        for reference in ["../../../server/api", "/webui/x", "http://box/webui/x", "..%2f0.ts", "a\\b"] {
            assert_eq!(list.resolve(reference), Err(TargetError::ForeignPath), "{reference}");
        }
        for reference in ["ftp://box/ace/0.ts", "data:video/mp2t,G", "a b.ts"] {
            assert_eq!(list.resolve(reference), Err(TargetError::NotAUrl), "{reference}");
        }
    }

    #[test]
    fn a_key_reaches_the_engine_encoded() {
        let digits = "0123456789abcdef0123456789abcdef01234567";
        let key = ContentKey::from_query(None, [("infohash", digits), ("quality", "a-b_c"), ("_idx", "2")]);
        let target = Target::getstream(&key.expect("a good key"), "00ff");
        let expected =
            format!("/ace/getstream?infohash={digits}&format=json&_idx=2&quality=a-b_c&pid=00ff&sid=00ff");
        assert_eq!(target.0, expected);
        assert_eq!(Target("/ace/cmd/a?b=1".into()).with("method=stop").0, "/ace/cmd/a?b=1&method=stop");
        assert_eq!(Target("/ace/cmd/a".into()).with("method=stop").0, "/ace/cmd/a?method=stop");
    }

    proptest! {
        #[test]
        fn whatever_an_engine_says_only_its_own_host_is_asked(url in "\\PC{0,60}|https?://[a-z@:/.%?#]{0,40}") {
            let found = Target::rebase(&url);
            for target in found.into_iter().chain(Target::rebase("/ace/m/x").expect("a target").resolve(&url)) {
                let whole = target.on("box:1");
                let prefix = ALLOWED_PREFIXES.iter().any(|prefix| whole.starts_with(&format!("http://box:1{prefix}")));
                prop_assert!(prefix && !whole.contains(char::is_whitespace), "{whole}");
            }
        }
    }
}
