//! Which sections there are, and what they must be together.

use toml::de::{DeTable, DeValue};

use super::channels::{
    MAX_CHANNELS, MAX_PLAYLISTS, check_channel, check_channels, check_playlist, check_playlists,
};
use super::mistake::{Mistake, Refused};
use super::tree::{self, Findings, Section};
use super::{Channel, Config, Engine, Playlist, keys, raw};
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

fn sections(mut document: DeTable<'_>, findings: &mut Findings) -> Config {
    let mut config = Config::default();
    let Config { server, engines, health, stream, epg, tuner, log, channels, playlists, state_dir: _ } =
        &mut config;
    read_section(&mut document, "server", findings, server, keys::server);
    read_engines(&mut document, engines, findings);
    read_section(&mut document, "health", findings, health, keys::health);
    read_section(&mut document, "stream", findings, stream, keys::stream);
    read_section(&mut document, "epg", findings, epg, keys::epg);
    read_section(&mut document, "tuner", findings, tuner, keys::tuner);
    read_section(&mut document, "log", findings, log, keys::log);
    read_channels(&mut document, channels, findings);
    read_playlists(&mut document, playlists, findings);
    for key in document.keys() {
        let refused = Refused::new(
            "unknown section",
            "allowed are [server], [[engines]], [health], [stream], [epg], [tuner], [log], [[channels]] and [[playlists]]",
        );
        let name = Escaped(key.get_ref()).to_string();
        findings.add(key.span().start, Some(name), refused);
    }
    config
}

/// Reads the table `name` by the list of its `keys`, if the document has one.
fn read_section<'i, 'f, T>(
    document: &mut DeTable<'i>,
    name: &'static str,
    findings: &'f mut Findings,
    target: &mut T,
    keys: fn(&mut Section<'i, 'f>, &mut T),
) {
    match tree::take(document, name) {
        None => {}
        Some((_, DeValue::Table(table))) => Section::new(name, table, findings).read(target, keys),
        Some((span, other)) => {
            let refused = Refused::new(
                format!("{} is no section", raw::shown(&other)),
                format!("write [{name}] once, with its keys below"),
            );
            findings.add(span.start, Some(name.to_owned()), refused);
        }
    }
}

fn read_engine(table: DeTable<'_>, findings: &mut Findings) -> Engine {
    let mut engine = Engine::default();
    engine.name.clear();
    Section::new("engines", table, findings).read(&mut engine, keys::engine);
    if engine.name.is_empty() {
        engine.name = engine.authority();
    }
    engine
}

/// Reads the engines of the file in place of the default one.
fn read_engines(document: &mut DeTable<'_>, engines: &mut Vec<Engine>, findings: &mut Findings) {
    let Some((span, value)) = tree::take(document, "engines") else {
        return;
    };
    let key = || Some("engines".to_owned());
    let DeValue::Array(array) = value else {
        let wrong = format!("{} is no list of engines", raw::shown(&value));
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
                    format!("{} is no engine", raw::shown(&other)),
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

/// Reads all tables of this name, each from its default, and holds what each must be by itself; with the places where they begin.
/// `None` if one could not be read: a refused value stands as the default one, and more would be told of that.
fn read_tables<'i, T>(
    document: &mut DeTable<'i>,
    name: &'static str,
    max: usize,
    findings: &mut Findings,
    read: fn(DeTable<'i>, &mut Findings) -> T,
    check: fn(&T) -> Result<(), Refused>,
) -> Option<(Vec<usize>, Vec<T>)> {
    let (mut offsets, mut tables) = (Vec::new(), Vec::new());
    let Some((span, value)) = tree::take(document, name) else { return Some((offsets, tables)) };
    let key = || Some(name.to_owned());
    let allowed = || format!("write [[{name}]] for each, with its keys below");
    let DeValue::Array(array) = value else {
        findings.add(
            span.start,
            key(),
            Refused::new(format!("{} is no list", raw::shown(&value)), allowed()),
        );
        return None;
    };
    let mistakes_before = findings.count();
    for element in array {
        let offset = element.span().start;
        if tables.len() >= max {
            let refused = Refused::new(format!("too many [[{name}]]"), format!("allowed are {max}"));
            findings.add(offset, key(), refused);
            break;
        }
        match element.into_inner() {
            DeValue::Table(table) => {
                offsets.push(offset);
                tables.push(read(table, findings));
            }
            other => {
                findings.add(
                    offset,
                    key(),
                    Refused::new(format!("{} is none", raw::shown(&other)), allowed()),
                );
            }
        }
    }
    if findings.count() > mistakes_before {
        return None;
    }
    for (offset, table) in offsets.iter().zip(&tables) {
        if let Err(refused) = check(table) {
            findings.add(*offset, key(), refused);
        }
    }
    Some((offsets, tables))
}

fn read_channel(table: DeTable<'_>, findings: &mut Findings) -> Channel {
    let mut channel = Channel::default();
    Section::new("channels", table, findings).read(&mut channel, keys::channel);
    channel
}

fn read_playlist(table: DeTable<'_>, findings: &mut Findings) -> Playlist {
    let mut playlist = Playlist::default();
    Section::new("playlists", table, findings).read(&mut playlist, keys::playlist);
    playlist
}

fn read_channels(document: &mut DeTable<'_>, channels: &mut Vec<Channel>, findings: &mut Findings) {
    let read = read_tables(document, "channels", MAX_CHANNELS, findings, read_channel, check_channel);
    let Some((offsets, read)) = read else { return };
    *channels = read;
    if let Err((index, refused)) = check_channels(channels) {
        findings.add(offsets[index], Some("channels".to_owned()), refused);
    }
}

fn read_playlists(document: &mut DeTable<'_>, playlists: &mut Vec<Playlist>, findings: &mut Findings) {
    let read = read_tables(document, "playlists", MAX_PLAYLISTS, findings, read_playlist, check_playlist);
    let Some((offsets, read)) = read else { return };
    *playlists = read;
    if let Err((index, refused)) = check_playlists(playlists) {
        findings.add(offsets[index], Some("playlists".to_owned()), refused);
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
