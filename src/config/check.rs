//! Which section takes which keys, and what the sections must be together.

use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Refused};
use super::tree::{self, Findings, Section};
use super::{Config, Engine, Health, Log, Server, Stream, rules};
use crate::escape::Escaped;

/// More engines than this are a slip, and each costs a thread.
const MAX_ENGINES: usize = 64;

/// The contents of a file, checked; what they do not say is as by default.
pub(super) fn config(contents: &[u8]) -> Result<Config, Vec<Mistake>> {
    let text = match str::from_utf8(contents) {
        // Some editors put a byte order mark first; the specification allows it.
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let good = String::from_utf8_lossy(&contents[..error.valid_up_to()]);
            let mut findings = Findings::new(&good);
            let refused = Refused::new("the text is not UTF-8", "save the file as UTF-8");
            findings.add(good.len(), None, refused);
            return findings.or(Config::default());
        }
    };
    let mut findings = Findings::new(text);
    let document = tree::parse(text, &mut findings);
    // What a broken document seems to say would only add false mistakes.
    let mut findings = findings.or(Findings::new(text))?;
    let config = sections(document, &mut findings);
    findings.or(config)
}

fn sections<'i>(mut document: DeTable<'i>, findings: &mut Findings) -> Config {
    let mut config = Config::default();
    let Config { server, engines, health, stream, log } = &mut config;
    read_section(&mut document, "server", findings, |section, findings| {
        read_server(section, server, findings);
    });
    read_engines(&mut document, engines, findings);
    read_section(&mut document, "health", findings, |section, findings| {
        read_health(section, health, findings);
    });
    read_section(&mut document, "stream", findings, |section, findings| {
        read_stream(section, stream, findings);
    });
    read_section(&mut document, "log", findings, |section, findings| {
        read_log(section, log, findings);
    });
    for key in document.keys() {
        let refused = match &**key.get_ref() {
            "channels" | "playlists" => Refused::new(
                "reserved for the channel list of a later version",
                "this version takes no such section",
            ),
            _ => Refused::new(
                "unknown section",
                "allowed are [server], [[engines]], [health], [stream] and [log]",
            ),
        };
        let name = Escaped(key.get_ref()).to_string();
        findings.add(key.span().start, Some(name), refused);
    }
    config
}

/// Reads the table `name` by `read`, if the document has one.
fn read_section<'i>(
    document: &mut DeTable<'i>,
    name: &'static str,
    findings: &mut Findings,
    read: impl FnOnce(&mut Section<'i>, &mut Findings),
) {
    match tree::take(document, name) {
        None => {}
        Some((_, DeValue::Table(table))) => {
            let mut section = Section::new(name, table);
            read(&mut section, findings);
            section.finish(findings);
        }
        Some((span, other)) => {
            let refused = Refused::new(
                format!("{} is no section", tree::shown(&other)),
                format!("write [{name}] once, with its keys below"),
            );
            findings.add(span.start, Some(name.to_owned()), refused);
        }
    }
}

fn read_server<'i>(section: &mut Section<'i>, server: &mut Server, findings: &mut Findings) {
    let Server { listen, max_clients, max_clients_per_address, admin_token, public_url, write_timeout } =
        server;
    section.read("listen", listen, rules::listen_value, findings);
    section.read("max_clients", max_clients, rules::whole(1..=100_000), findings);
    section.read("max_clients_per_address", max_clients_per_address, rules::limit_or_none, findings);
    section.read("admin_token", admin_token, rules::token, findings);
    section.read("public_url", public_url, rules::text_or_none, findings);
    section.read("write_timeout_s", write_timeout, rules::timeout, findings);
}

fn read_health<'i>(section: &mut Section<'i>, health: &mut Health, findings: &mut Findings) {
    let Health { interval, timeout, failures } = health;
    section.read("interval_s", interval, rules::timeout, findings);
    section.read("timeout_s", timeout, rules::timeout, findings);
    section.read("failures", failures, rules::whole(1..=1000), findings);
}

fn read_stream<'i>(section: &mut Section<'i>, stream: &mut Stream, findings: &mut Findings) {
    let Stream {
        connect_timeout,
        first_data_timeout,
        stall_timeout,
        recover_timeout,
        linger,
        abandon,
        max_streams,
        backlog,
        backlog_bytes,
        memory_bytes,
        start_behind,
        keepalive,
    } = stream;
    section.read("connect_timeout_s", connect_timeout, rules::timeout, findings);
    section.read("first_data_timeout_s", first_data_timeout, rules::timeout, findings);
    section.read("stall_timeout_s", stall_timeout, rules::timeout, findings);
    section.read("recover_timeout_s", recover_timeout, rules::seconds, findings);
    section.read("linger_s", linger, rules::seconds, findings);
    section.read("abandon_s", abandon, rules::seconds, findings);
    section.read("max_streams", max_streams, rules::whole(1..=10_000), findings);
    section.read("backlog_s", backlog, rules::timeout, findings);
    section.read("backlog_mb", backlog_bytes, rules::megabytes, findings);
    section.read("memory_mb", memory_bytes, rules::megabytes, findings);
    section.read("start_behind_s", start_behind, rules::seconds, findings);
    section.read("keepalive_s", keepalive, rules::seconds_or_never, findings);
}

fn read_log<'i>(section: &mut Section<'i>, log: &mut Log, findings: &mut Findings) {
    let Log { level, file } = log;
    section.read("level", level, rules::level_value, findings);
    section.read("file", file, rules::path, findings);
}

fn read_engine<'i>(table: DeTable<'i>, findings: &mut Findings) -> Engine {
    let mut engine = Engine::default();
    engine.name.clear();
    let mut section = Section::new("engines", table);
    let Engine { host, port, name, forwarded, max_streams, max_starts } = &mut engine;
    section.read("host", host, rules::text, findings);
    section.read("port", port, rules::port, findings);
    section.read("name", name, rules::name, findings);
    section.read("forwarded", forwarded, rules::truth, findings);
    section.read("max_streams", max_streams, rules::whole(1..=10_000), findings);
    section.read("max_starts", max_starts, rules::whole(1..=10_000), findings);
    section.finish(findings);
    if engine.name.is_empty() {
        engine.name = engine.authority();
    }
    engine
}

/// Reads the engines of the file in place of the default one.
fn read_engines<'i>(document: &mut DeTable<'i>, engines: &mut Vec<Engine>, findings: &mut Findings) {
    let Some((span, value)) = tree::take(document, "engines") else {
        return;
    };
    let key = || Some("engines".to_owned());
    let DeValue::Array(array) = value else {
        let wrong = format!("{} is no list of engines", tree::shown(&value));
        let refused = Refused::new(wrong, "write [[engines]] for each, with its keys below");
        findings.add(span.start, key(), refused);
        return;
    };
    engines.clear();
    let mut offsets = Vec::new();
    let mistakes_before = findings.count();
    for element in array {
        let offset = element.span().start;
        match element.into_inner() {
            DeValue::Table(table) => {
                engines.push(read_engine(table, findings));
                offsets.push(offset);
            }
            other => {
                let refused = Refused::new(
                    format!("{} is no engine", tree::shown(&other)),
                    "write [[engines]] for each, with its keys below",
                );
                findings.add(offset, key(), refused);
            }
        }
    }
    // A refused host stands as the default one, and would be told as a double of it.
    if findings.count() > mistakes_before {
        return;
    }
    if let Err(conflict) = check_engines(engines) {
        let offset = offsets.get(conflict.index).copied().unwrap_or(span.start);
        findings.add(offset, key(), conflict.refused);
    }
}

/// An engine that cannot stand beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which one, counted from 0; 0 for an empty list.
    index: usize,
    /// Why.
    pub refused: Refused,
}

/// Holds what engines must be together: at least one, not too many, each place and each name once.
///
/// # Errors
///
/// The first engine that cannot stand beside those before it.
pub fn check_engines(engines: &[Engine]) -> Result<(), Conflict> {
    let conflict = |index, refused| Err(Conflict { index, refused });
    if engines.is_empty() {
        let refused = Refused::new("there is no engine", "name at least one");
        return conflict(0, refused);
    }
    if engines.len() > MAX_ENGINES {
        let refused = Refused::new("too many engines", format!("allowed are {MAX_ENGINES}"));
        return conflict(MAX_ENGINES, refused);
    }
    for (index, engine) in engines.iter().enumerate() {
        let before = &engines[..index];
        let place = engine.authority();
        if before.iter().any(|other| other.authority() == place) {
            let refused = Refused::new(format!("{place} is there twice"), "name each engine once");
            return conflict(index, refused);
        }
        if before.iter().any(|other| other.name == engine.name) {
            let wrong = format!("the name \"{}\" is there twice", Escaped(&engine.name));
            return conflict(index, Refused::new(wrong, "give each engine a name of its own"));
        }
    }
    Ok(())
}
