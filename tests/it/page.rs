//! The page: served whole, self-contained, and held in by its policy.

use acerelay::id::ContentKey;

use super::harness::{ID, Proxy, engine};

/// The page as it is served, with its policy.
fn page() -> (String, String) {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get("/");
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(reply.header("Referrer-Policy"), Some("no-referrer"));
    let policy = reply.header("Content-Security-Policy").expect("a policy").to_owned();
    let page = reply.text();
    let mut connection = reply.into_connection();
    connection.send_request("HEAD", "/", "");
    assert_eq!(connection.reply_to_head().status, 200);
    (page, policy)
}

/// What is between the one start and the one end of this element.
fn block<'a>(page: &'a str, name: &str) -> &'a str {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    assert_eq!((page.matches(&start).count(), page.matches(&end).count()), (1, 1), "{name}");
    page.split_once(&start).and_then(|(_, rest)| rest.split_once(&end)).expect("in this order").0
}

#[test]
fn its_policy_lets_run_what_is_in_it_and_nothing_else() {
    let (page, policy) = page();
    let hash = |name| format!("'sha256-{}'", base64(&sha256(block(&page, name).as_bytes())));
    let expected = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; media-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    );
    // After a change of the page, these are the new hashes for src/http/page.rs.
    assert_eq!(policy, expected);
    for inline in [" style=", " onclick=", " onload=", " onerror=", "javascript:"] {
        assert!(!page.contains(inline), "{inline} is not let through by the policy");
    }
}

#[test]
fn it_loads_nothing_from_elsewhere() {
    let (page, _) = page();
    for (at, _) in page.match_indices("://") {
        let around = &page[page[..at].rfind(['"', '\'', ' ', '(', '/']).unwrap_or(0)..];
        let is_namespace = page[..at].ends_with("http") && page[at..].starts_with("://www.w3.org/2000/svg");
        let is_words = page[..at].ends_with("acestream");
        assert!(is_namespace || is_words, "{}", around.lines().next().unwrap_or_default());
    }
    for reference in
        ["src=\"", "url(", "@import", "import(", "href=\"//", "<link rel=\"stylesheet", "<iframe"]
    {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
}

#[test]
fn it_takes_what_peers_send_for_text() {
    let (page, _) = page();
    let script = block(&page, "script");
    for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
        assert!(!script.contains(way), "{way} would take text for markup or code");
    }
}

#[test]
fn its_playlists_are_made_in_it_and_the_path_of_a_playlist_is_kept_for_channels() {
    let (page, _) = page();
    // Both lead nowhere until the script says otherwise, and the one that nothing hides is hidden itself.
    for link in [
        "<a id=\"m3u\" class=\"button\">",
        "<a id=\"all\" class=\"button small\" download=\"acerelay.m3u\" hidden>",
    ] {
        assert_eq!(page.matches(link).count(), 1, "{link}");
    }
    let script = block(&page, "script");
    for part in [
        "\"data:audio/x-mpegurl,\" + encodeURIComponent(\"#EXTM3U\\n\"",
        "\"#EXTINF:-1,\" + name.replace(/[\\p{Cc}\\u2028\\u2029]+/gu, \" \")",
        // Without a name a browser would have to show it, and refuses to.
        "$(\"m3u\").download = ",
        "$(\"m3u\").removeAttribute(\"href\")",
        "$(\"url\").hidden = !found",
        "link.hidden = listed.length === 0",
        "const base = new URL(\".\", location.href)",
    ] {
        assert!(script.contains(part), "{part}");
    }
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for path in ["/playlist.m3u", "/playlist.m3u8"] {
        assert_eq!(proxy.get(path).text(), "#EXTM3U\n", "{path} has the channels, of which there are none");
    }
}

#[test]
fn it_keeps_the_parameters_that_make_another_stream() {
    let (page, _) = page();
    let (_, rest) = page.split_once("const PARAMETERS = [").expect("a list");
    let names: Vec<_> =
        rest.split_once(']').expect("its end").0.split(", ").map(|name| name.trim_matches('"')).collect();
    // All that the API names, and each of them does make one.
    assert_eq!(
        names,
        [
            "_idx",
            "stream_id",
            "quality",
            "preferred_audio_language",
            "transcode_audio",
            "transcode_mp3",
            "transcode_ac3"
        ]
    );
    let id = ID.to_string();
    for name in names {
        let key = ContentKey::from_query(None, [("id", id.as_str()), (name, "1")]).expect("a key");
        assert_ne!(key.stream_id(), id, "{name}");
    }
}

/// SHA-256 (FIPS 180-4), for the hashes of the policy.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let primes = || (2_u64..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    // The first 32 bits of the fractional part of a root, found in whole numbers.
    let fraction = |prime: u64, power: u32| {
        let (mut low, mut high) = (0_u128, 1_u128 << 40);
        let wanted = u128::from(prime) << (32 * power);
        while high - low > 1 {
            let middle = u128::midpoint(low, high);
            if middle.pow(power) <= wanted { low = middle } else { high = middle }
        }
        low as u32
    };
    let mut state: Vec<u32> = primes().take(8).map(|prime| fraction(prime, 2)).collect();
    let keys: Vec<u32> = primes().take(64).map(|prime| fraction(prime, 3)).collect();

    let mut message = bytes.to_vec();
    message.push(0x80);
    // Room for the length behind it.
    message.resize((message.len() + 8).next_multiple_of(64), 0);
    let length = message.len() - 8;
    message[length..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut words: Vec<u32> = block
            .chunks_exact(4)
            .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        for at in 16..64 {
            let (a, b) = (words[at - 15], words[at - 2]);
            let low = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let high = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            words.push(words[at - 16].wrapping_add(low).wrapping_add(words[at - 7]).wrapping_add(high));
        }
        let mut v = state.clone();
        for at in 0..64 {
            let sum = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let first =
                v[7].wrapping_add(sum).wrapping_add(choice).wrapping_add(keys[at]).wrapping_add(words[at]);
            let sum = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v[3] = v[3].wrapping_add(first);
            v[7] = first.wrapping_add(sum.wrapping_add(majority));
            v.rotate_right(1);
        }
        state.iter_mut().zip(v).for_each(|(word, value)| *word = word.wrapping_add(value));
    }
    let mut digest = [0; 32];
    digest.chunks_exact_mut(4).zip(state).for_each(|(out, word)| out.copy_from_slice(&word.to_be_bytes()));
    digest
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * place) & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[test]
fn the_hash_is_sha_256() {
    // FIPS 180-2, appendix B, in base64.
    assert_eq!(base64(&sha256(b"abc")), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    assert_eq!(
        base64(&sha256(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
        "JI1qYdIGOLjlwCaTDD5gOaM85Flk/yFn9uzt1BnbBsE="
    );
    // With its end mark it fills a block, and its length needs another.
    assert_eq!(base64(&sha256(&[b'a'; 63])), "fT50oF19sVvOStnsBljqmOPwbu7PFrTG//LaRX3cLzQ=");
}
