//! What a file may say, and the exact words for what it may not.

use proptest::prelude::*;

use super::*;
use crate::id::ContentKey;

const SHIPPED: &str = include_str!("../../config.toml");

fn parsed(text: &str) -> Result<Config, Mistakes> {
    Config::parse("config.toml", text.as_bytes())
}

fn good(text: &str) -> Config {
    parsed(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

/// Holds that `text` has this one mistake, told in these words behind the file's name.
fn refused(text: &str, message: &str) {
    let mistakes = parsed(text).expect_err(text);
    assert_eq!(mistakes.to_string(), format!("config.toml:{message}"), "{text}");
}

/// The keys and section headers of a file, in their order.
fn keys(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(" = ").next()).map(str::trim).filter(|key| !key.is_empty()).collect()
}

#[test]
fn the_shipped_file_says_the_defaults() {
    assert_eq!(good(SHIPPED), Config::default());
    assert_eq!(good(""), Config::default());
}

#[test]
fn the_shipped_file_names_every_key_there_is() {
    // Of what there is none by default, it has an example in comments.
    let is_example = |line: &&str| line.contains("[[") || line.contains(" = ");
    let lines = SHIPPED.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_example);
    let example: String = lines.map(|line| format!("{line}\n")).collect();
    let header = |name: &str| name.split_once(" #").map_or(name, |(header, _)| header).trim().to_owned();
    let shipped: Vec<_> = keys(SHIPPED).into_iter().chain(keys(&example)).map(header).collect();
    let mut all = Config::default();
    all.channels.push(Channel::default());
    all.playlists.push(Playlist::default());
    assert_eq!(shipped, keys(&all.to_toml()));
}

#[test]
fn every_key_of_the_shipped_file_is_read_into_the_configuration() {
    let other = r#"
[server]
listen = "[::1]:0"
max_clients = 1
max_clients_per_address = 2
admin_token = "secret"
public_url = "https://tv.example:8443/ace/"
write_timeout_s = 0.5

[[engines]]
host = "Engine-1.LAN"
port = 6879
name = "the first"
forwarded = true
max_streams = 3
max_starts = 5

[[engines]]
host = "fd00::1"

[health]
interval_s = 6
timeout_s = 7
failures = 8

[stream]
connect_timeout_s = 9
first_data_timeout_s = 10
stall_timeout_s = 11
recover_timeout_s = 0
linger_s = 0
abandon_s = 0.25
max_streams = 12
backlog_s = 13
backlog_mb = 14
memory_mb = 15
start_behind_s = 1.6
keepalive_s = 0
hls_idle_s = 17
hls_backlog_s = 18
hls_backlog_mb = 19

[epg]
urls = ["http://me:secret@guide.example/epg.xml.gz?x=y", "http://box.lan/guide.xml"]
days = 7

[tuner]
enabled = true
discovery = true
name = "the house"
tuners = 4
device_id = "1ACE1234"

[log]
level = "trace"
file = "/var/log/acerelay.log"

[[channels]]
name = "Canal Faro"
ids = ["acestream://0123456789abcdef0123456789abcdef01234567"]
infohashes = ["89ABCDEF0123456789abcdef0123456789abcdef"]
match = "Canal Faro*"
group = "Deportes"
logo = "http://x.example/f.png"
tvg_id = "Faro.xx"
number = 5
slug = "faro"

[[playlists]]
url = "http://lists.example/a.m3u?token=x"
name = "a"
refresh_s = 60
group_prefix = "A: "
include = ["x*", "group:y"]
exclude = ["z"]
merge = "quality"
prefer = ["1080"]
strip = ["[X]"]
other = "keep"

[[playlists]]
path = "/srv/b.m3u"
"#;
    let secs = Duration::from_secs;
    let key = |name: &str, digits: &str| ContentKey::from_query(None, [(name, digits)]).expect("a key");
    let config = good(other);
    assert_eq!(
        config,
        Config {
            server: Server {
                listen: "[::1]:0".parse().expect("an address"),
                max_clients: 1,
                max_clients_per_address: NonZeroUsize::new(2),
                admin_token: Some("secret".parse().expect("a token")),
                public_url: Some("https://tv.example:8443/ace".parse().expect("a URL")),
                write_timeout: Duration::from_millis(500),
            },
            engines: vec![
                Engine {
                    host: "engine-1.lan".parse().expect("a name"),
                    port: 6879,
                    name: "the first".to_owned(),
                    forwarded: true,
                    max_streams: 3,
                    max_starts: 5,
                },
                Engine {
                    host: "fd00::1".parse().expect("an address"),
                    name: "[fd00::1]:6878".to_owned(),
                    ..Engine::default()
                },
            ],
            health: Health { interval: secs(6), timeout: secs(7), failures: 8 },
            stream: Stream {
                connect_timeout: secs(9),
                first_data_timeout: secs(10),
                stall_timeout: secs(11),
                recover_timeout: Duration::ZERO,
                linger: Duration::ZERO,
                abandon: Duration::from_millis(250),
                max_streams: 12,
                backlog: secs(13),
                backlog_bytes: 14 * MEBIBYTE,
                memory_bytes: 15 * MEBIBYTE,
                start_behind: Duration::from_millis(1600),
                keepalive: None,
                hls_idle: secs(17),
                hls_backlog: secs(18),
                hls_backlog_bytes: 19 * MEBIBYTE,
            },
            epg: Epg {
                urls: ["http://me:secret@guide.example/epg.xml.gz?x=y", "http://box.lan/guide.xml"]
                    .map(|url| url.parse().expect("a URL"))
                    .to_vec(),
                days: 7,
            },
            tuner: Tuner {
                enabled: true,
                discovery: true,
                name: "the house".to_owned(),
                tuners: NonZeroU8::new(4),
                device_id: Some("1ACE1234".parse().expect("an id")),
            },
            log: Log { level: LevelFilter::Trace, file: Some(PathBuf::from("/var/log/acerelay.log")) },
            channels: vec![Channel {
                name: "Canal Faro".into(),
                ids: vec![key("id", "0123456789abcdef0123456789abcdef01234567")],
                infohashes: vec![key("infohash", "89abcdef0123456789abcdef0123456789abcdef")],
                pattern: "Canal Faro*".into(),
                group: "Deportes".into(),
                logo: "http://x.example/f.png".into(),
                tvg_id: "Faro.xx".into(),
                number: Some(5),
                slug: Some("faro".parse().expect("a slug")),
            }],
            playlists: vec![
                Playlist {
                    url: Some(Place::Web("http://lists.example/a.m3u?token=x".parse().expect("a URL"))),
                    path: None,
                    name: "a".into(),
                    refresh: secs(60),
                    group_prefix: "A: ".into(),
                    include: vec!["x*".into(), "group:y".into()],
                    exclude: vec!["z".into()],
                    merge: Merge::Quality,
                    prefer: vec!["1080".into()],
                    strip: vec!["[X]".into()],
                    other: Other::Keep,
                },
                Playlist {
                    path: Some("/srv/b.m3u".into()),
                    name: "/srv/b.m3u".into(),
                    ..Playlist::default()
                },
            ],
            state_dir: None,
        }
    );
    let mut without_token = config.clone();
    without_token.server.admin_token = None;
    assert_eq!(good(&config.to_toml()), without_token);
}

#[test]
fn a_mistake_is_told_with_its_line_its_key_and_what_is_allowed() {
    let cases = [
        (
            "[stream]\nlinger = 5",
            "2: stream.linger: unknown key; [stream] takes connect_timeout_s, first_data_timeout_s, \
             stall_timeout_s, recover_timeout_s, linger_s, abandon_s, max_streams, backlog_s, backlog_mb, \
             memory_mb, start_behind_s, keepalive_s, hls_idle_s, hls_backlog_s, hls_backlog_mb",
        ),
        ("[log]\n\"a\\nb\" = 1", r"2: log.a\nb: unknown key; [log] takes level, file"),
        (
            "listen = 1",
            "1: listen: unknown section; allowed are [server], [[engines]], [health], [stream], [epg], [tuner], [log], \
             [[channels]] and [[playlists]]",
        ),
        (
            "\n[[channels]]\nname = 'x'",
            "2: channels: a channel without a source; write ids, infohashes or match",
        ),
        ("[[channels]]\nmatch = 'x'", "1: channels: a channel without a name; write name = \"...\""),
        (
            "[[channels]]\nname = 'x'\nids = ['0123']",
            "3: channels.ids: \"0123\" is none; allowed are content ids of 40 hex digits, such as ids = [\"0123...\"]",
        ),
        (
            "[[channels]]\nname = 'x'\nmatch = 'x'\nslug = '24'",
            "4: channels.slug: \"24\" is no name in a path; allowed are 1 to 64 of a-z, 0-9 and -, not digits alone and \
             no - at its ends",
        ),
        (
            "[[channels]]\nname = 'x'\nmatch = 'x'\nnumber = 5\n[[channels]]\nname = 'y'\nmatch = 'y'\nnumber = 5",
            "5: channels: the number 5 is there twice; give each its own",
        ),
        (
            "[channels]\nname = 'x'",
            "1: channels: a table is no list; write [[channels]] for each, with its keys below",
        ),
        ("[[playlists]]", "1: playlists: a list that is nowhere; write url = \"...\" or path = \"...\""),
        (
            "[[playlists]]\nurl = 'http://a/'\npath = 'b'",
            "1: playlists: a list in two places; write either url or path",
        ),
        (
            "[[playlists]]\nurl = 'ftp://user:secret@a/'",
            "2: playlists.url: this is no URL that a list could be fetched from; allowed is an http or https URL of at most \
             2048 characters, without blanks",
        ),
        (
            "[[playlists]]\npath = 'b'\nmerge = 'all'",
            "3: playlists.merge: \"all\" is none of the words; allowed are \"name\", \"quality\" and \"off\"",
        ),
        (
            "[[playlists]]\npath = 'b'\nrefresh_s = 5",
            "3: playlists.refresh_s: 5 is out of range; allowed are seconds, whole or decimal, from 60 to 86400",
        ),
        (
            "[[playlists]]\npath = 'b'\ninclude = 'x'",
            "3: playlists.include: \"x\" is no list; allowed is a list of texts, such as [\"a\", \"b\"]",
        ),
        (
            "[[playlists]]\npath = 'a'\nname = 'x'\n[[playlists]]\npath = 'b'\nname = 'x'",
            "4: playlists: the name \"x\" is there twice; give each list a name of its own",
        ),
        ("[[server]]", "1: server: an array is no section; write [server] once, with its keys below"),
        ("log = 1", "1: log: 1 is no section; write [log] once, with its keys below"),
        (
            "[engines]\nhost = 'a'",
            "1: engines: a table is no list of engines; write [[engines]] for each, with its keys below",
        ),
        ("engines = []", "1: engines: there is no engine; name at least one"),
        (
            "engines = ['a:1']",
            "1: engines: \"a:1\" is no engine; write [[engines]] for each, with its keys below",
        ),
        (
            "[[engines]]\n\n[[engines]]\nport = 6878",
            "3: engines: 127.0.0.1:6878 is there twice; name each engine once",
        ),
        (
            "[[engines]]\nhost = '::1'\n[[engines]]\nhost = '[0:0::1]'",
            "3: engines: [::1]:6878 is there twice; name each engine once",
        ),
        (
            "[[engines]]\nname = 'x'\n[[engines]]\nport = 1\nname = 'x'",
            "3: engines: the name \"x\" is there twice; give each engine a name of its own",
        ),
        (
            "[[engines]]\nname = '127.0.0.1:2'\n[[engines]]\nport = 2",
            "3: engines: the name \"127.0.0.1:2\" is there twice; give each engine a name of its own",
        ),
        (
            "[[engines]]\nhost = 'http://a'\n[[engines]]",
            "2: engines.host: \"http://a\" is no host; allowed is a host name, an IPv4 or an IPv6 address, \
             without scheme, port or path",
        ),
        (
            "[[engines]]\nport = 0",
            "2: engines.port: 0 is out of range; allowed is a whole number from 1 to 65535",
        ),
        (
            "[[engines]]\nforwarded = 'yes'",
            "2: engines.forwarded: \"yes\" is no truth value; allowed are true and false",
        ),
        (
            "[[engines]]\nname = ' a'",
            "2: engines.name: \" a\" is no name; allowed are up to 64 characters, without control characters \
             and outer blanks; empty for host:port",
        ),
        (
            "[server]\nlisten = ':8000'",
            "2: server.listen: \":8000\" is no IP address with a port; allowed is ADDRESS:PORT, such as \
             0.0.0.0:8000 for every IPv4 address or [::]:8000 for IPv6",
        ),
        ("[server]\nlisten = 8000", "2: server.listen: 8000 is no string; allowed is text in quotes"),
        (
            "[server]\nmax_clients = 0",
            "2: server.max_clients: 0 is out of range; allowed is a whole number from 1 to 100000",
        ),
        (
            "[server]\nmax_clients = 1.5",
            "2: server.max_clients: 1.5 is no whole number; allowed is a whole number from 1 to 100000",
        ),
        (
            "[server]\nmax_clients = 99_999_999_999_999_999_999",
            "2: server.max_clients: 99999999999999999999 is out of range; allowed is a whole number from 1 to \
             100000",
        ),
        (
            "[server]\nmax_clients_per_address = -1",
            "2: server.max_clients_per_address: -1 is out of range; allowed is a whole number from 0 to 100000",
        ),
        (
            "[server]\nadmin_token = 'my secret'",
            "2: server.admin_token: no header can carry this token; allowed are 1 to 256 ASCII characters \
             without blanks",
        ),
        (
            "[server]\nadmin_token = 123456",
            "2: server.admin_token: the token is no string; allowed is text in quotes",
        ),
        (
            "[server]\npublic_url = 'tv.lan'",
            "2: server.public_url: \"tv.lan\" is no base URL; allowed is http:// or https:// with a host, a \
             port and a path if need be, and no query",
        ),
        (
            "[server]\nwrite_timeout_s = 0",
            "2: server.write_timeout_s: 0 is out of range; allowed are seconds, whole or decimal, from 0.1 to \
             86400",
        ),
        (
            "[stream]\nlinger_s = -1",
            "2: stream.linger_s: -1 is out of range; allowed are seconds, whole or decimal, from 0 to 86400",
        ),
        (
            "[stream]\nlinger_s = nan",
            "2: stream.linger_s: nan is out of range; allowed are seconds, whole or decimal, from 0 to 86400",
        ),
        (
            "[stream]\nkeepalive_s = +inf",
            "2: stream.keepalive_s: +inf is out of range; allowed are seconds, whole or decimal, from 0 to \
             86400",
        ),
        (
            "[stream]\nlinger_s = '30s'",
            "2: stream.linger_s: \"30s\" is no number; allowed are seconds, whole or decimal, from 0 to 86400",
        ),
        (
            "[stream]\nbacklog_mb = 0",
            "2: stream.backlog_mb: 0 is out of range; allowed is a whole number from 1 to 1048576",
        ),
        (
            "[log]\nlevel = 'off'",
            "2: log.level: \"off\" is no log level; allowed are error, warn, info, debug and trace",
        ),
        (
            "[log]\nfile = \"a\\u0000b\"",
            "2: log.file: \"a\\u{0}b\" is no file name; allowed is a path without control characters, or empty \
             for standard error",
        ),
        ("[log]\nlevel = 2024-01-01", "2: log.level: a date is no string; allowed is text in quotes"),
    ];
    for (text, message) in cases {
        refused(text, message);
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let allowed = "; a line is [section], key = value or # comment, with text in quotes";
    let cases = [
        ("[server\nlisten = 1", "1: not TOML: unclosed table, expected `]`"),
        ("[server]\nlisten 0.0.0.0:8000", "2: not TOML: key with no value, expected `=`"),
        ("[log]\nlevel = 'info'\nlevel = 'warn'", "3: level: not TOML: duplicate key"),
        ("[log]\n[log]\n", "2: not TOML: duplicate key"),
        ("[log]\nfile = \"\n", "2: file: not TOML: invalid basic string, expected `\"`"),
        // The value is not repeated: it might be the token.
        ("[server]\nadmin_token = info", "2: admin_token: not TOML: invalid float, expected `inf`"),
    ];
    for (text, message) in cases {
        refused(text, &format!("{message}{allowed}"));
    }
}

#[test]
fn text_that_is_not_utf8_is_told_with_its_line() {
    let mistakes = Config::parse("config.toml", b"[log]\nfile = '\xff'").expect_err("not UTF-8");
    assert_eq!(mistakes.to_string(), "config.toml:2: the text is not UTF-8; save the file as UTF-8");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_taken() {
    let config = good("\u{feff}[log]\r\nlevel = 'debug'\r\n");
    assert_eq!(config.log.level, LevelFilter::Debug);
    refused(
        "\u{feff}[log]\r\n\r\nlevel = 'x'\r\n",
        "3: log.level: \"x\" is no log level; allowed are error, warn, info, debug and trace",
    );
}

#[test]
fn several_mistakes_are_told_at_once_in_the_order_of_their_lines() {
    let text = "[stream]\nlinger_s = -1\n[server]\nmax_client = 3\n[[channels]]\n[[engines]]\nport = 70_000\n\
                [log]\nlevel = 'no'";
    assert_eq!(
        parsed(text).expect_err("five of them").to_string(),
        "config.toml: 5 mistakes\n\
         config.toml:2: stream.linger_s: -1 is out of range; allowed are seconds, whole or decimal, from 0 to \
         86400\n\
         config.toml:4: server.max_client: unknown key; [server] takes listen, max_clients, \
         max_clients_per_address, admin_token, public_url, write_timeout_s\n\
         config.toml:5: channels: a channel without a name; write name = \"...\"\n\
         config.toml:7: engines.port: 70000 is out of range; allowed is a whole number from 1 to 65535\n\
         config.toml:9: log.level: \"no\" is no log level; allowed are error, warn, info, debug and trace"
    );
}

#[test]
fn a_file_of_nothing_but_brackets_or_mistakes_is_refused_all_the_same() {
    let nested = [
        "[".repeat(50_000),
        format!("a={}", "[".repeat(50_000)),
        format!("a={}", "{a=".repeat(30_000)),
        format!("a{}=1", ".a".repeat(40_000)),
        format!("[a{}]", ".a".repeat(40_000)),
        (0..10_000).map(|number| format!("a{number}=1\n")).collect(),
        "=\n".repeat(30_000),
    ];
    for text in nested {
        assert!(parsed(&text).is_err(), "{}", &text[..20]);
    }
}

#[test]
fn a_long_list_of_mistakes_is_cut() {
    let text: String = (0..50).map(|number| format!("key{number} = 1\n")).collect();
    let told = parsed(&text).expect_err("fifty of them").to_string();
    assert_eq!(told.lines().count(), 22);
    assert!(told.ends_with("\nconfig.toml: and 30 more"), "{told}");
}

#[test]
fn a_file_that_is_too_large_or_a_directory_is_refused() {
    for (path, end) in [("/dev/zero", "larger than 1 MiB"), ("/", "(os error 21)")] {
        let error = Config::read(Path::new(path)).expect_err(path).to_string();
        assert!(error.starts_with(&format!("cannot read {path}: ")) && error.ends_with(end), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _: Result<Config, Mistakes> = Config::parse("any", &bytes);
    }

    #[test]
    fn nothing_that_looks_like_a_configuration_makes_it_panic(
        lines in prop::collection::vec(
            "(\\[?\\[(server|engines|stream|log|channels)\\]\\]?|(listen|port|host|linger_s|backlog_mb|level|x)( = )?[-+0-9a-z.:'\"\\[\\]{}]{0,12})",
            0..12,
        ),
    ) {
        let text = lines.join("\n");
        if let Err(mistakes) = parsed(&text) {
            prop_assert!(!mistakes.list.is_empty());
            for mistake in mistakes.list {
                prop_assert!((1..=lines.len() + 1).contains(&mistake.line));
            }
        }
    }

    #[test]
    fn what_is_printed_reads_back_to_the_same(
        millis in 100_u64..86_400_000,
        nanos in 0_u32..1_000_000_000,
        name in "[^\\p{Cc}\\p{Z}]{1,60}",
        port in 1_u16..,
    ) {
        let mut config = Config::default();
        config.stream.linger = Duration::from_millis(millis);
        config.stream.start_behind = Duration::new(86_399, nanos);
        config.engines[0].name.clone_from(&name);
        config.server.listen.set_port(port);
        config.log.file = Some(PathBuf::from(name));
        let printed = config.to_toml();
        prop_assert_eq!(parsed(&printed).map_err(|mistakes| TestCaseError::fail(format!("{mistakes}\n{printed}")))?, config);
    }
}
