//! Holds the layers of the architecture: imports point down only, and each risky crate or construct stays in
//! the one file that is meant for it.
//!
//! The rules read source text, without comments and the contents of strings. They are no Rust parser; they
//! catch what is written by accident, and the self-tests below show that they do.

mod circles;
mod code;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use code::Code;

/// The layers, from the bottom up. A module imports from the layers below its own; within a layer, and from
/// `BESIDE`, only what `ALLOWED` lists.
const LAYERS: [&[&str]; 6] = [
    &["allocator", "config", "escape", "fnv", "id", "stats", "sync", "threads", "ts", "wanted"],
    &["engine"],
    &["stream"],
    &["channels", "guide", "hls", "http", "tuner"],
    &["web"],
    &["app", "cli", "logging", "main", "notify"],
];

/// The simulated engine stands beside the layers: what it may import is in `ALLOWED`, and so is who may
/// import it.
const BESIDE: &str = "sim";

/// Imports that the layers would allow, and that are not to be: how it is served must not know what.
const FORBIDDEN: [(&str, &str); 3] = [("http", "engine"), ("http", "stream"), ("http", "wanted")];

/// Imports that the layers alone do not allow.
const ALLOWED: [(&str, &str); 14] = [
    // A guide is of the channels, and is fetched and kept as their lists are.
    ("guide", "channels"),
    // A panic's message may quote a peer.
    ("threads", "escape"),
    // What a file says is escaped in the message about it.
    ("config", "escape"),
    // Channels of the configuration are made of contents, and have paths.
    ("config", "id"),
    ("config", "wanted"),
    // The name of a variant of a content is its hash.
    ("id", "fnv"),
    // What is wanted is made of contents.
    ("wanted", "id"),
    ("main", "app"),
    ("main", "cli"),
    ("main", "logging"),
    ("main", "notify"),
    // `--demo` takes the simulated engine.
    ("main", BESIDE),
    (BESIDE, "id"),
    (BESIDE, "threads"),
];

/// Words, and the files that alone may have them (a path that ends in `/` is a directory).
const CONFINED: [(&str, &[&str]); 7] = [
    // The server takes connections, the request is one exchange: together they would be too long for a file.
    ("tiny_http", &["src/http/server.rs", "src/http/incoming.rs", "src/logging/mod.rs"]),
    ("ureq", &["src/engine/", "src/engine.rs", "src/channels/sources.rs"]),
    ("toml", &["src/config/", "src/config.rs"]),
    // The simulated engine peeks at its sockets by socket2, with libc's names of the flags.
    (
        "libc",
        &["src/http/socket.rs", "src/http/descriptors.rs", "src/allocator.rs", "src/sim/engine/http.rs"],
    ),
    ("unsafe", &["src/http/socket.rs", "src/allocator.rs"]),
    ("unbounded", &["src/stream/fanout.rs"]),
    // What the service manager passes may be a socket of UDP, and is refused.
    ("UdpSocket", &["src/tuner/discover.rs", "src/http/listener.rs"]),
];

/// The modules that may name the whole `Config`; all others get their section.
const SEE_THE_WHOLE_CONFIG: [&str; 4] = ["app", "cli", "config", "main"];

/// No file is longer: one idea per file.
const MAX_LINES: usize = 600;

/// A rule that is broken, and where.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

#[test]
fn the_sources_keep_to_their_layers() {
    let breaches: Vec<_> = sources().iter().flat_map(|(file, text)| check(file, text)).collect();
    let told: Vec<_> = breaches.iter().map(Breach::to_string).collect();
    assert!(told.is_empty(), "\n{}\n", told.join("\n"));
}

#[test]
fn no_two_files_import_each_other() {
    let circles = circles::circles(&sources());
    assert!(circles.is_empty(), "these import each other, in turn: {circles:#?}");
}

/// Every file below `src`, as `src/...`, with its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    assert!(files.len() > 5, "the sources were not found: {files:?}");
    files.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file");
        let name = path.strip_prefix(root).expect("it is below the root");
        (name.to_string_lossy().into_owned(), text)
    };
    files.into_iter().map(source).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// All that `text`, the file `src/...`, does against the rules.
fn check(file: &str, text: &str) -> Vec<Breach> {
    let code = Code::new(text);
    let mut breaches = Vec::new();
    let mut add = |offset: usize, rule: String| {
        breaches.push(Breach { file: file.to_owned(), line: code.line(offset), rule });
    };

    let lines = text.lines().count();
    if lines > MAX_LINES {
        add(text.len(), format!("{lines} lines; a file has at most {MAX_LINES}"));
    }
    for (word, homes) in CONFINED {
        let is_home = |home: &&str| {
            if home.ends_with('/') { file.starts_with(*home) } else { file == *home }
        };
        if homes.iter().any(is_home) {
            continue;
        }
        for offset in code.words(word) {
            add(offset, format!("`{word}` belongs into {} alone", homes[0]));
        }
    }
    for start in ["#[allow", "#![allow", "#[expect", "#![expect"] {
        for offset in code.find(start) {
            let attribute = &code.text[offset..];
            let end = attribute.find(']').unwrap_or(attribute.len());
            if !attribute[..end].contains("reason") {
                add(offset, format!("`{start}` without a reason"));
            }
        }
    }

    let own = top_module(file);
    if own == "lib" {
        return breaches;
    }
    if layer(own).is_none() && own != BESIDE {
        add(0, format!("module `{own}` has no layer; give it one in tests/it/layering/mod.rs"));
        return breaches;
    }
    for (offset, path) in code.imports(own, depth(file)) {
        let mut segments = path.split("::");
        let other = segments.next().unwrap_or_default();
        let is_known = layer(other).is_some() || other == BESIDE;
        let is_test = offset >= code.tests_start;
        if is_known && !(may_import(own, other) || is_test && other == BESIDE) {
            add(offset, format!("`{own}` must not import `{other}`"));
        }
        if other == "config" && segments.next() == Some("Config") && !SEE_THE_WHOLE_CONFIG.contains(&own) {
            add(offset, format!("`{own}` must not see the whole Config, only its section"));
        }
    }
    breaches
}

/// `engine` for `src/engine/api.rs`, `id` for `src/id.rs`.
fn top_module(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// How many times `super` a file needs to reach the crate's root.
fn depth(file: &str) -> usize {
    let below = file.matches('/').count();
    if file.ends_with("/mod.rs") { below - 1 } else { below }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn may_import(own: &str, other: &str) -> bool {
    let is_below = match (layer(own), layer(other)) {
        (Some(own), Some(other)) => other < own,
        _ => false,
    };
    own == other || is_below && !FORBIDDEN.contains(&(own, other)) || ALLOWED.contains(&(own, other))
}

/// Holds that this source breaks exactly these rules.
#[track_caller]
fn expect(file: &str, source: &str, rules: &[&str]) {
    let told: Vec<_> = check(file, source).iter().map(Breach::to_string).collect();
    let expected: Vec<_> = rules.iter().map(|rule| format!("{file}:{rule}")).collect();
    assert_eq!(told, expected, "{source}");
}

#[test]
fn an_import_that_points_up_or_aside_is_told() {
    let cases = [
        ("src/engine/api.rs", "use crate::stream::Seat;", "1: `engine` must not import `stream`"),
        ("src/stream/state.rs", "\nuse crate::http::live;", "2: `stream` must not import `http`"),
        ("src/id.rs", "use crate::threads::Threads;", "1: `id` must not import `threads`"),
        ("src/ts/mod.rs", "use crate::id::Digest;", "1: `ts` must not import `id`"),
        ("src/channels/m3u.rs", "use crate::hls;", "1: `channels` must not import `hls`"),
        ("src/http/request.rs", "use crate::stream::Seat;", "1: `http` must not import `stream`"),
        ("src/http/request.rs", "use crate::engine::api;", "1: `http` must not import `engine`"),
        ("src/stream/streams.rs", "use crate::web::live;", "1: `stream` must not import `web`"),
        ("src/web/page.rs", "fn f() { crate::app::stop(); }", "1: `web` must not import `app`"),
        ("src/web/page.rs", "use crate::sim;", "1: `web` must not import `sim`"),
        ("src/sim/mod.rs", "use crate::engine::api;", "1: `sim` must not import `engine`"),
        ("src/sim/media/packet.rs", "use crate::ts::packet;", "1: `sim` must not import `ts`"),
        ("src/logging/mod.rs", "use crate::app;", "1: `logging` must not import `app`"),
        ("src/cli/mod.rs", "use crate::logging;", "1: `cli` must not import `logging`"),
        ("src/cli/mod.rs", "use crate::sim;", "1: `cli` must not import `sim`"),
        ("src/engine/mod.rs", "use super::stream;", "1: `engine` must not import `stream`"),
        ("src/engine/api.rs", "use super::super::stream;", "1: `engine` must not import `stream`"),
        (
            "src/engine/api.rs",
            "use crate::{\n    id::{self, ContentKey},\n    http::live as l,\n};",
            "3: `engine` must not import `http`",
        ),
        (
            "src/stream/mod.rs",
            "use crate::config::Config;",
            "1: `stream` must not see the whole Config, only its section",
        ),
        (
            "src/stream/mod.rs",
            "use crate::config::{Stream, Config};",
            "1: `stream` must not see the whole Config, only its section",
        ),
        ("src/helpers.rs", "", "1: module `helpers` has no layer; give it one in tests/it/layering/mod.rs"),
    ];
    for (file, source, rule) in cases {
        expect(file, source, &[rule]);
    }
}

#[test]
fn an_import_that_points_down_is_fine() {
    let cases = [
        ("src/engine/api.rs", "use crate::id::ContentKey;\nuse crate::engine::pool;"),
        (
            "src/web/mod.rs",
            "use crate::{config::Server, engine, escape::Escaped, channels, http, stream::*};",
        ),
        ("src/engine/api.rs", "use super::stream;"),
        ("src/config/tree.rs", "use crate::escape::Escaped;"),
        ("src/app.rs", "use crate::{config::Config, http, stream};"),
        ("src/main.rs", "use acerelay::{app, cli, logging, config::Config, sim};"),
        ("src/sim/mod.rs", "use crate::{id, threads};"),
        ("src/engine/api.rs", "#[cfg(test)]\nmod tests {\n    use crate::sim::Engine;\n}"),
        ("src/lib.rs", "pub mod http;\npub use crate::app;"),
    ];
    for (file, source) in cases {
        expect(file, source, &[]);
    }
}

#[test]
fn a_unit_test_may_import_the_simulated_engine_and_nothing_else_that_points_up() {
    let source = "use crate::sim;\n#[cfg(test)]\nmod tests {\n    use crate::{sim, http};\n}";
    let told = ["1: `engine` must not import `sim`", "4: `engine` must not import `http`"];
    expect("src/engine/api.rs", source, &told);
}

#[test]
fn a_crate_or_construct_outside_its_home_is_told() {
    let cases = [
        ("use tiny_http::Server;", "1: `tiny_http` belongs into src/http/server.rs alone"),
        ("let a = ureq::agent();", "1: `ureq` belongs into src/engine/ alone"),
        ("use toml::Value;", "1: `toml` belongs into src/config/ alone"),
        ("libc::close(fd);", "1: `libc` belongs into src/http/socket.rs alone"),
        ("unsafe { f() }", "1: `unsafe` belongs into src/http/socket.rs alone"),
        ("let (a, b) = unbounded();", "1: `unbounded` belongs into src/stream/fanout.rs alone"),
        ("#[allow(dead_code)]", "1: `#[allow` without a reason"),
        ("#![allow(\n    dead_code\n)]", "1: `#![allow` without a reason"),
        ("#[expect(dead_code)]", "1: `#[expect` without a reason"),
    ];
    for (source, rule) in cases {
        expect("src/threads/mod.rs", source, &[rule]);
    }
    let long = "\n".repeat(601);
    expect("src/threads/mod.rs", &long, &["602: 601 lines; a file has at most 600"]);
}

#[test]
fn a_crate_or_construct_at_home_is_fine() {
    let cases = [
        ("src/http/server.rs", "use tiny_http::Server;"),
        ("src/engine/playback.rs", "use ureq::Agent;"),
        ("src/config/tree.rs", "use toml::Spanned;"),
        ("src/http/socket.rs", "#[allow(unsafe_code, reason = \"x\")]\nunsafe { libc::close(fd) }"),
        ("src/stream/fanout.rs", "crossbeam_channel::unbounded()"),
        ("src/threads/mod.rs", "fn to_toml() { unsafe_code(); unbounded_send(); }"),
        ("src/threads/mod.rs", &"\n".repeat(600)),
    ];
    for (file, source) in cases {
        expect(file, source, &[]);
    }
}

#[test]
fn comments_and_strings_do_not_count() {
    let source = r##"
//! tiny_http and crate::http
/// unsafe, `ureq`
/* use crate::app; */
const URL: &str = "http://a // \" unsafe";
const RAW: &str = r#"use crate::app; " toml"#;
const QUOTE: (char, char, u8) = ('"', '\'', b'"'); // unbounded()
fn f<'a>(x: &'a str) -> &'a str { x } // crate::http
"##;
    expect("src/threads/mod.rs", source, &[]);
    // What follows is seen again.
    expect(
        "src/threads/mod.rs",
        &format!("{source}unsafe"),
        &["9: `unsafe` belongs into src/http/socket.rs alone"],
    );
}
