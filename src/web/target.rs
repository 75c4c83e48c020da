//! What a request asks for, read as kindly as players and lists need it.
//!
//! Pure: a target is text, and what comes out is the names in its path and the pairs of its query, decoded. A URL has come
//! a long way before it is asked for: through lists that were made for another player, pages that escaped it once more,
//! proxies that joined two halves with one slash too many. What it means is clear all the same, and read here; whether
//! there is such a thing is not known here.

use std::borrow::Cow;

/// The names in a path, and the pairs of a query, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// What stands between the slashes; runs of them are one. `None` for a path that is no UTF-8, does not begin with a
    /// slash or has nothing but several.
    pub(super) names: Option<Vec<String>>,
    /// In their order.
    pub(super) pairs: Vec<(String, String)>,
}

impl Target {
    pub(super) fn of(target: &str) -> Self {
        let target = match behind_scheme(target) {
            Some(rest) => rest.find(['/', '?', '#']).map_or("/", |at| &rest[at..]),
            None => target,
        };
        let target = before_player_headers(target);
        let target = target.split('#').next().unwrap_or(target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(mut names) = names(path) else {
            return Self { names: None, pairs: pairs(query) };
        };
        // Escaped as a whole, or with an `&` where the `?` should be; no path of ours has one of them in it.
        let in_last = names.last_mut().and_then(|last| {
            let is_link = has_scheme_of_links(last);
            let at = last.find(['?', '&']).filter(|_| !is_link)?;
            let behind = last.split_off(at);
            last.truncate(last.trim_end().len());
            Some(behind)
        });
        let mut all = in_last.map(|query| pairs(&query[1..])).unwrap_or_default();
        all.extend(pairs(query));
        Self { names: Some(names), pairs: all }
    }
}

/// What follows the scheme of a target in absolute form (RFC 9112 section 3.2.2).
fn behind_scheme(target: &str) -> Option<&str> {
    let scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))?;
    target.get(scheme.len()..)
}

/// The authority of a target in absolute form, which stands above the `Host` header.
pub(super) fn authority_of(target: &str) -> Option<&str> {
    behind_scheme(target)?.split(['/', '?', '#']).next()
}

/// A bar, as it is and as it is escaped.
const BARS: [&str; 3] = ["|", "%7C", "%7c"];

/// Longer than the name of any header that a player is given.
const MAX_NAME_CHARS: usize = 64;

/// Lists that were made for Kodi have headers for its player behind a bar, `URL|User-Agent=VLC&Referer=...`; a player that
/// does not know that asks for all of it.
fn before_player_headers(target: &str) -> &str {
    let path_end = target.find('?').unwrap_or(target.len());
    let is_first = |at: &usize, bar: &str| {
        let behind = &target[at + bar.len()..];
        // No further: a target may be nothing but bars, and each of them would be looked behind up to its end.
        let mut name = behind.chars().take(MAX_NAME_CHARS + 1);
        let length = name.position(|c| !c.is_ascii_alphanumeric() && !"-_.!%+".contains(c));
        let names_header = length.is_some_and(|length| length > 0 && behind[length..].starts_with('='));
        *at < path_end || names_header
    };
    let bars = BARS.iter().flat_map(|bar| target.match_indices(bar)).filter(|(at, bar)| is_first(at, bar));
    bars.map(|(at, _)| at).min().map_or(target, |at| &target[..at])
}

/// What lists and pages leave around a name: blanks and line ends, marks without width.
fn is_fringe(character: char) -> bool {
    character.is_whitespace() || ['\u{feff}', '\u{200b}'].contains(&character)
}

fn names(path: &str) -> Option<Vec<String>> {
    let rest = path.strip_prefix('/').or(path.is_empty().then_some("")).filter(|_| !path.is_empty())?;
    // An escaped slash is part of a name, and no name of ours has one.
    let decoded = |name: &str| {
        let name = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
        Some(name.trim_matches(is_fringe).to_owned())
    };
    let names: Option<Vec<_>> = rest.split('/').filter(|name| !name.is_empty()).map(decoded).collect();
    let names = names?;
    // `//` is a mistake, or the begin of a URL without its scheme.
    (!names.is_empty() || rest.is_empty()).then_some(names)
}

fn has_scheme_of_links(text: &str) -> bool {
    text.get(.."acestream:".len()).is_some_and(|head| head.eq_ignore_ascii_case("acestream:"))
}

/// The pairs of a query, whichever way its parts are joined.
fn pairs(query: &str) -> Vec<(String, String)> {
    let query: Cow<'_, str> = if query.contains('=') {
        query.into()
    } else {
        // Escaped as a whole.
        percent_encoding::percent_decode_str(query).decode_utf8_lossy()
    };
    let mut pairs = Vec::new();
    for part in parts(&query) {
        for (name, value) in form_urlencoded::parse(part.as_bytes()) {
            // A page had escaped the `&` for itself.
            let name = name.strip_prefix("amp;").unwrap_or(&name).trim_matches(is_fringe);
            let value = value.split('|').next().unwrap_or_default().trim_matches(is_fringe);
            pairs.push((name.to_owned(), value.to_owned()));
        }
    }
    pairs
}

/// Splits a query at each `&`, and at each further `?`: something was added to a URL by one who did not see that it had a
/// query. Only in a link, `acestream:?content_id=...`, the mark is part of the value.
fn parts(query: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = query;
    let mut from = 0;
    while let Some(at) = rest[from..].find(['&', '?']).map(|at| from + at) {
        let ends_with = |end: &str| {
            let begin = at.checked_sub(end.len());
            begin.and_then(|begin| rest.get(begin..at)).is_some_and(|text| text.eq_ignore_ascii_case(end))
        };
        if rest[at..].starts_with('?') && (ends_with("acestream:") || ends_with("acestream%3a")) {
            from = at + 1;
            continue;
        }
        parts.push(&rest[..at]);
        rest = &rest[at + 1..];
        from = 0;
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(target: &str, names: Option<&[&str]>, pairs: &[(&str, &str)]) {
        let found = Target::of(target);
        let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(found.names, names, "{target}");
        let found: Vec<_> = found.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, pairs, "{target}");
    }

    #[test]
    fn slashes_in_a_row_are_one_and_an_escaped_one_is_none() {
        check("/", Some(&[]), &[]);
        for target in
            ["/a/b", "//a/b", "/a//b", "///a///b//", "/a/b/", "http://box//a/b", "HTTPS://box/a/b#c/d"]
        {
            check(target, Some(&["a", "b"]), &[]);
        }
        check("/a%2Fb", Some(&["a/b"]), &[]);
        check("http://box", Some(&[]), &[]);
        check("http://box:99999?x=y", None, &[("x", "y")]);
        for target in ["", "*", "a/b", "//", "/%ff"] {
            check(target, None, &[]);
        }
    }

    #[test]
    fn a_target_of_bars_alone_is_read_at_once() {
        let bars = BARS.map(|bar| bar.repeat(5000)).concat();
        let began = std::time::Instant::now();
        for target in [format!("/a?b=c{bars}"), format!("/a?b=c{}", "%7Cx".repeat(10_000))] {
            assert_eq!(Target::of(&target).names, Some(vec!["a".to_owned()]));
        }
        // It took 10 s as long as each was looked behind up to the end.
        assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
        check(&format!("/a?b=c|{}=d", "x".repeat(64)), Some(&["a"]), &[("b", "c")]);
    }

    #[test]
    fn what_is_meant_for_another_player_is_dropped() {
        for bar in BARS {
            check(&format!("/a/b.ts{bar}User-Agent=VLC&c=d"), Some(&["a", "b.ts"]), &[]);
            check(&format!("/a/b.ts{bar}x?c=d"), Some(&["a", "b.ts"]), &[]);
            check(
                &format!("/a?b=c{bar}User-Agent=VLC&Referer=http://x/?b=e&d=f"),
                Some(&["a"]),
                &[("b", "c")],
            );
            check(&format!("/a?b=c{bar}"), Some(&["a"]), &[("b", "c")]);
            check(&format!("/a?b=c%20{bar}%20User%2DAgent=VLC%2f3"), Some(&["a"]), &[("b", "c")]);
            check(&format!("/a?b=c{bar}User-Agent%3DVLC"), Some(&["a"]), &[("b", "c")]);
            // A bar in the name of a channel.
            check(&format!("/a?b=c{bar}HD&d=e"), Some(&["a"]), &[("b", "c"), ("d", "e")]);
        }
    }

    #[test]
    fn a_query_is_read_whichever_way_it_was_joined() {
        let both: &[_] = &[("id", "1"), ("x", "2")];
        for target in [
            "/a?id=1&x=2",
            "/a?id=1&amp;x=2",
            "/a?id=1&amp%3Bx=2",
            "/a?id=1?x=2",
            "/a??id=1&x=2",
            "/a&id=1&x=2",
            "/a%3Fid=1&x=2",
            "/a%3Fid%3D1%26x%3D2",
            "/a?id%3D1%26x%3D2",
            "/a/?id=1&x=2#t=5",
            "/a%20?id=%09+1%20&x=2%0D%0A",
            "/a?id=%EF%BB%BF1&x=2%0A",
        ] {
            let mut found = Target::of(target);
            found.pairs.retain(|(name, _)| !name.is_empty());
            let found: Vec<_> = found.pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(found, both, "{target}");
            assert_eq!(Target::of(target).names.as_deref(), Some(&["a".to_owned()][..]), "{target}");
        }
        for link in ["acestream:?content_id=1", "acestream%3A?content_id=1", "AceStream:?content_id=1"] {
            let value = link.replace("%3A", ":");
            check(&format!("/a?id={link}?x=2"), Some(&["a"]), &[("id", &value), ("x", "2")]);
        }
        check("/a/acestream:%3Fcontent_id=1", Some(&["a", "acestream:?content_id=1"]), &[]);
    }

    #[test]
    fn a_target_in_absolute_form_names_the_host() {
        for (target, authority) in [
            ("http://box:8000/proxy/sessions/1", Some("box:8000")),
            ("HTTP://evil.example", Some("evil.example")),
            ("https://a?b", Some("a")),
            ("http://", Some("")),
            ("/http://box", None),
            ("*", None),
        ] {
            assert_eq!(authority_of(target), authority, "{target}");
        }
    }

    proptest! {
        #[test]
        fn any_target_is_read(target in "\\PC{0,80}|(/|http://)?[a-f0-9%/?&=:.|#\u{e9}]{0,90}") {
            let read = Target::of(&target);
            prop_assert!(read.names.unwrap_or_default().iter().all(|name| name.len() <= 3 * target.len()));
        }
    }
}
