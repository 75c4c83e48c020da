//! Which content an address in somebody's list names, in every form that lists have.
//!
//! Only these forms count: forty hex digits somewhere in a path are no content. It must not know what an entry says besides.

use form_urlencoded::parse as pairs_of;
use percent_encoding::percent_decode_str;

use crate::id::{ContentKey, KeyError};

/// What an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A content of AceStream.
    Content(ContentKey),
    /// It was to be one, and its id is none.
    BadId,
    /// Something else.
    Other,
}

impl Address {
    /// Reads one line of a list.
    pub(super) fn of(line: &str) -> Self {
        Self::within(line, true)
    }

    fn within(line: &str, may_wrap: bool) -> Self {
        // What follows is meant for a player of a certain kind.
        let line = line.split('|').next().unwrap_or_default().trim();
        let Some((scheme, rest)) = line.split_once(':') else {
            return Self::of_bare(line);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "acestream" | "ace" => Self::of_link(rest),
            "magnet" => Self::of_magnet(rest),
            "http" | "https" => Self::of_http(rest),
            "plugin" if may_wrap => Self::of_plugin(rest),
            _ => Self::Other,
        }
    }

    /// Hex digits alone. A few too many or too few are an id that somebody cut or mistyped.
    fn of_bare(text: &str) -> Self {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex && (36..=44).contains(&text.len()) { Self::of_id(text) } else { Self::Other }
    }

    fn of_id(id: &str) -> Self {
        Self::of_pairs([("id", id)])
    }

    /// What follows the colon of an `acestream:` link.
    fn of_link(rest: &str) -> Self {
        let decoded = percent_decode_str(rest).decode_utf8_lossy();
        match decoded.strip_prefix('?') {
            Some(query) => match Self::of_pairs(pairs_of(query.as_bytes())) {
                Self::Other => Self::BadId,
                address => address,
            },
            None => Self::of_id(decoded.trim_matches('/')),
        }
    }

    fn of_magnet(rest: &str) -> Self {
        let query = rest.trim_start_matches('?');
        let hash = pairs_of(query.as_bytes()).find_map(|(name, value)| {
            (name == "xt").then(|| value.strip_prefix("urn:btih:").map(str::to_owned)).flatten()
        });
        hash.map_or(Self::Other, |hash| Self::of_pairs([("infohash", &hash)]))
    }

    /// An engine's address, on whichever host, or another proxy's.
    fn of_http(rest: &str) -> Self {
        let Some(rest) = rest.strip_prefix("//") else { return Self::Other };
        let rest = rest.split('#').next().unwrap_or_default();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut names = place.split('/').skip(1);
        match (names.next(), names.next()) {
            (Some("ace"), Some("getstream" | "manifest.m3u8")) => Self::of_pairs(pairs_of(query.as_bytes())),
            (Some("pid" | "content_id"), Some(id)) if names.next().is_some() => Self::of_id(id),
            (Some("infohash"), Some(hash)) if names.next().is_some() => Self::of_pairs([("infohash", hash)]),
            _ => Self::Other,
        }
    }

    /// What an add-on of Kodi is handed.
    fn of_plugin(rest: &str) -> Self {
        let Some((place, query)) = rest.split_once('?') else { return Self::Other };
        let pairs = || pairs_of(query.as_bytes());
        match place.trim_matches('/') {
            "script.module.horus" => Self::of_pairs(
                pairs().filter(|(name, _)| matches!(&**name, "id" | "infohash" | "content_id")),
            ),
            "program.plexus" | "plugin.video.p2p-streams" => {
                let url = pairs().find(|(name, _)| name == "url");
                url.map_or(Self::Other, |(_, url)| Self::within(&url, false))
            }
            _ => Self::Other,
        }
    }

    fn of_pairs<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        match ContentKey::from_query(None, pairs) {
            Ok(key) => Self::Content(key),
            Err(KeyError::Missing) => Self::Other,
            Err(KeyError::Several | KeyError::Malformed | KeyError::Parameter(_)) => Self::BadId,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef01234567";

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let found = match Address::of(&line.replace("HEX", HEX)) {
            Address::Content(key) => {
                format!("{} {}", key.name.parameter(), key.stream_id().replace(HEX, "HEX"))
            }
            Address::BadId => "bad".to_owned(),
            Address::Other => "other".to_owned(),
        };
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn every_form_of_a_content_is_understood() {
        for line in [
            "HEX",
            "acestream://HEX",
            "ACESTREAM://HEX/",
            "ace://HEX",
            "acestream:?content_id=HEX",
            "acestream:%3Fcontent_id=HEX",
            "http://127.0.0.1:6878/ace/getstream?id=HEX",
            "http://a/ace/getstream?content_id=HEX&pid=3&network-caching=1000&format=json",
            "https://a.example:8/ace/manifest.m3u8?id=HEX",
            "http://a:8000/pid/HEX/stream.mp4",
            "http://a:8000/content_id/HEX/name.ts",
            "plugin://script.module.horus?action=play&id=HEX",
            "plugin://script.module.horus/?action=play&title=by%20x&id=HEX",
            "plugin://program.plexus/?mode=1&url=acestream://HEX&name=x",
            "plugin://program.plexus/?mode=1&url=acestream%3A%2F%2FHEX&name=x",
            "plugin://program.plexus/?url=HEX",
            "plugin://plugin.video.p2p-streams/?url=acestream://HEX",
            "acestream://HEX|User-Agent=VLC",
        ] {
            check(line, "id HEX");
        }
        for line in [
            "acestream:?infohash=HEX",
            "http://a/ace/getstream?infohash=HEX",
            "http://a/ace/manifest.m3u8?infohash=HEX",
            "http://a/infohash/HEX/name.ts",
            "plugin://script.module.horus?infohash=HEX",
            "magnet:?xt=urn:btih:HEX&dn=Radio",
        ] {
            check(line, "infohash HEX");
        }
        let with_index = Address::of(&format!("http://a/ace/getstream?infohash={HEX}&_idx=1"));
        let expected = ContentKey::from_query(None, [("infohash", HEX), ("_idx", "1")]).expect("a key");
        assert_eq!(with_index, Address::Content(expected));
    }

    #[test]
    fn nothing_else_is_a_content() {
        for line in [
            "",
            "http://127.0.0.1/",
            "https://cdn.example/live/HEX/index.m3u8|User-Agent=x",
            "http://a/x/content_id/HEX/n.ts",
            "http://a/content_id/HEX",
            "http://a/ace/getstream?url=http://b/x.acelive",
            "http://a/x.acelive",
            "plugin://plugin.video.other/?id=HEX",
            "plugin://program.plexus/?url=sop://a",
            "plugin://program.plexus/?url=plugin%3A%2F%2Fprogram.plexus%2F%3Furl%3DHEX",
            "magnet:?dn=x",
            "rtsp://a/HEX",
            "Noticias",
            "0123",
        ] {
            check(line, "other");
        }
        for line in [
            "acestream://",
            "acestream://0123",
            "acestream://HEX0",
            "0123456789abcdef0123456789abcdef0123456",
            "http://a/ace/getstream?id=",
            "http://a/ace/getstream?id=HEX&infohash=HEX",
            "acestream:?url=x",
            "magnet:?xt=urn:btih:0123",
        ] {
            check(line, "bad");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,60}|(acestream:|plugin://program.plexus/?url=|http://a/)[a-f0-9%/?&=:|.]{0,90}") {
            let _address = Address::of(&line);
        }
    }
}
