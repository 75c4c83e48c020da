//! Reads lists of channels as they really are, and writes the like: M3U with attributes, half a specification and half a
//! custom, or nothing but addresses.
//!
//! Bytes in, entries out, and back: what is written reads back to the same. What a `"` or a line's end would be needed for
//! cannot be said in this format. It must not know what an address leads to.

use std::borrow::Cow;

use super::lines::{lines, without_mark};
use super::text::{clean, clean_id};

/// More entries than any list that a house can use.
pub(super) const MAX_ENTRIES: usize = 50_000;

/// No player reads more of one entry.
const MAX_ATTRIBUTES: usize = 64;

/// Longer names are no names.
pub(super) const MAX_NAME_BYTES: usize = 1024;

/// Longer addresses are none.
const MAX_URL_BYTES: usize = 2048;

/// Lines between name and address at most.
const MAX_OPTIONS: usize = 16;

/// A guide is named once or a few times.
const MAX_GUIDES: usize = 16;

/// What a list says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct M3u {
    /// Where its head says that guides are.
    pub(super) guides: Vec<String>,
    /// In the order of the list.
    pub(super) entries: Vec<Entry>,
    /// Names that no address follows.
    pub(super) without_url: usize,
    /// What was longer, or more, than it may be.
    pub(super) over_bounds: usize,
}

/// One entry of a list. Its texts have no control characters, and no blanks at their ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// What is said behind the comma; may be empty.
    pub(super) name: String,
    /// In the order and spelling of the list; none is empty.
    pub(super) attributes: Vec<(String, String)>,
    /// The lines between name and address that are for players.
    pub(super) options: Vec<String>,
    /// The address.
    pub(super) url: String,
    /// The line that it stands in, from 1.
    pub(super) line: u32,
}

/// Why something is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAList {
    /// A page for people, an error most likely.
    Html,
    /// Data of another kind.
    Json,
    /// No address in it.
    Empty,
}

impl std::fmt::Display for NotAList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Html => "what came is HTML, not a list",
            Self::Json => "what came is JSON, not a list",
            Self::Empty => "there is no entry in it",
        })
    }
}

impl Entry {
    /// The value of an attribute, whichever case its name is in.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        find(&self.attributes, name)
    }
}

fn find<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Reads a whole list.
///
/// # Errors
///
/// When it is none.
pub(super) fn parse(bytes: &[u8]) -> Result<M3u, NotAList> {
    let bytes = without_mark(bytes);
    let mut reader = Reader::default();
    for line in lines(&bytes) {
        let Some(text) = &line.text else {
            reader.m3u.over_bounds += 1;
            continue;
        };
        if reader.is_first {
            reader.is_first = false;
            match text.as_bytes() {
                [b'<', ..] => return Err(NotAList::Html),
                [b'{', ..] | [b'[', b'{' | b'"' | b']', ..] | b"[" => return Err(NotAList::Json),
                _ => {}
            }
        }
        reader.take(text, line.number);
    }
    let Reader { mut m3u, pending, .. } = reader;
    m3u.without_url += usize::from(pending.is_some());
    if m3u.entries.is_empty() { Err(NotAList::Empty) } else { Ok(m3u) }
}

struct Reader {
    m3u: M3u,
    is_first: bool,
    /// An entry whose address has not come yet.
    pending: Option<Entry>,
    /// Options that came before their entry.
    options: Vec<String>,
    /// What `#EXTGRP` says, until it says something else.
    group: String,
    /// What `#EXTLOGO` says of the next address.
    logo: String,
}

impl Default for Reader {
    fn default() -> Self {
        let (group, logo) = (String::new(), String::new());
        Self { m3u: M3u::default(), is_first: true, pending: None, options: Vec::new(), group, logo }
    }
}

impl Reader {
    fn take(&mut self, text: &str, line: u32) {
        let Some(directive) = text.strip_prefix('#') else {
            return self.end_entry(text, line);
        };
        let (name, value) = directive.split_once(':').unwrap_or((directive, ""));
        match name.trim_end().to_ascii_uppercase().as_str() {
            "EXTINF" => {
                self.m3u.without_url += usize::from(self.pending.is_some());
                let (attributes, name) = attributes_and_name(value);
                if name.len() > MAX_NAME_BYTES {
                    self.m3u.over_bounds += 1;
                }
                let name = clean(name, MAX_NAME_BYTES);
                let options = std::mem::take(&mut self.options);
                self.pending = Some(Entry { name, attributes, options, ..Entry::default() });
            }
            "EXTGRP" => {
                let (attributes, _) = attributes_and_name(value);
                let group = find(&attributes, "group-title")
                    .map_or_else(|| clean(value, MAX_NAME_BYTES), str::to_owned);
                self.group = group;
            }
            "EXTLOGO" => self.logo = clean(value, MAX_URL_BYTES),
            name if name.starts_with("EXTVLCOPT") || name == "KODIPROP" => {
                let options = self.pending.as_mut().map_or(&mut self.options, |entry| &mut entry.options);
                if options.len() < MAX_OPTIONS {
                    options.push(clean(text, MAX_URL_BYTES));
                }
            }
            name if name == "EXTM3U" || name.starts_with("EXTM3U ") => {
                let (attributes, _) = attributes_and_name(&text["#EXTM3U".len()..]);
                for (key, value) in &attributes {
                    if ["url-tvg", "x-tvg-url"].iter().any(|name| key.eq_ignore_ascii_case(name)) {
                        self.take_guides(value);
                    }
                }
            }
            _ => {}
        }
    }

    fn take_guides(&mut self, value: &str) {
        for guide in value.split(',').map(str::trim).filter(|guide| !guide.is_empty()) {
            let is_new = !self.m3u.guides.iter().any(|known| known == guide);
            if is_new && self.m3u.guides.len() < MAX_GUIDES {
                self.m3u.guides.push(guide.to_owned());
            }
        }
    }

    fn end_entry(&mut self, text: &str, line: u32) {
        let had_name = self.pending.is_some();
        let mut entry = self.pending.take().unwrap_or_default();
        entry.options.splice(0..0, std::mem::take(&mut self.options));
        if had_name && !self.group.is_empty() && entry.attribute("group-title").is_none() {
            entry.attributes.push(("group-title".to_owned(), self.group.clone()));
        }
        let logo = std::mem::take(&mut self.logo);
        if !logo.is_empty() && entry.attribute("tvg-logo").is_none() {
            entry.attributes.push(("tvg-logo".to_owned(), logo));
        }
        if self.m3u.entries.len() >= MAX_ENTRIES || text.len() > MAX_URL_BYTES {
            self.m3u.over_bounds += 1;
            return;
        }
        entry.url = clean(text, MAX_URL_BYTES);
        entry.line = line;
        self.m3u.entries.push(entry);
    }
}

/// What stands behind `#EXTINF:`, taken apart: `<number> <attributes>,<name>`.
fn attributes_and_name(text: &str) -> (Vec<(String, String)>, &str) {
    // With a quote too many or too few nothing tells which is which, and only what is behind the last one is sure.
    if text.matches('"').count() % 2 == 1 {
        let behind = text.rfind('"').map_or(0, |at| at + 1);
        let comma = text[behind..].rfind(',').map(|at| behind + at).or_else(|| text.rfind(','));
        let (head, name) = comma.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
        return (Scanner { text: head, attributes: Vec::new() }.run().0, name);
    }
    Scanner { text, attributes: Vec::new() }.run()
}

/// Goes through the attributes of a line, up to the comma that ends them.
struct Scanner<'a> {
    text: &'a str,
    attributes: Vec<(String, String)>,
}

impl<'a> Scanner<'a> {
    fn run(mut self) -> (Vec<(String, String)>, &'a str) {
        loop {
            self.text = self.text.trim_start();
            let Some(first) = self.text.chars().next() else { return (self.attributes, "") };
            if first == ',' {
                return (self.attributes, &self.text[1..]);
            }
            let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
            let length = self.text.bytes().take_while(is_key).count();
            let (key, rest) = self.text.split_at(length);
            match rest.trim_start().strip_prefix('=') {
                Some(rest) if length > 0 => {
                    let (value, rest) = value_of(rest);
                    self.add(key, value);
                    self.text = rest;
                }
                _ if length > 0 => self.text = rest,
                // Something that is none: to its end, quoted text and all.
                _ if first == '"' => self.text = self.text[1..].split_once('"').map_or("", |(_, rest)| rest),
                _ => self.text = &self.text[first.len_utf8()..],
            }
        }
    }

    fn add(&mut self, key: &str, value: &str) {
        let value = clean_id(value, MAX_URL_BYTES);
        let is_new = find(&self.attributes, key).is_none();
        if !value.is_empty() && is_new && key.len() <= 64 && self.attributes.len() < MAX_ATTRIBUTES {
            self.attributes.push((key.to_owned(), value));
        }
    }
}

/// The value at the begin of this text, and what follows it.
fn value_of(text: &str) -> (&str, &str) {
    if let Some(inner) = text.trim_start().strip_prefix('"') {
        return inner.split_once('"').unwrap_or((inner, ""));
    }
    if let Some(inner) = text.strip_prefix('\'')
        && let Some((value, rest)) = inner.split_once('\'')
        && rest.chars().next().is_none_or(|next| next == ',' || next.is_whitespace())
    {
        return (value, rest);
    }
    let text = text.trim_start();
    text.split_at(
        text.find(|character: char| character == ',' || character.is_whitespace()).unwrap_or(text.len()),
    )
}

/// Writes one entry, so that every player reads the same: no value is empty, none has a quote or a comma in it, and the name
/// has none either, since players differ in where they take it to begin.
pub(super) fn write<'a>(
    out: &mut String,
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    name: &str,
    options: impl IntoIterator<Item = &'a str>,
    url: &str,
) {
    out.push_str("#EXTINF:-1");
    for (key, value) in attributes {
        if !value.is_empty() {
            out.extend([" ", key, "=\""]);
            out.push_str(&said(value));
            out.push('"');
        }
    }
    out.push(',');
    // A comma that looks like one and ends nothing.
    push_said(out, name, "\u{201a}");
    out.push('\n');
    for option in options {
        out.extend([option, "\n"]);
    }
    out.extend([url, "\n"]);
}

/// The value of an attribute as it is written; what is written once is not written otherwise again.
pub(super) fn said(value: &str) -> Cow<'_, str> {
    if !value.contains(['"', ',']) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 8);
    // A picture's address keeps its commas, for whoever decodes it; other values are read by people.
    push_said(&mut out, value, if value.contains("://") { "%2C" } else { "" });
    Cow::Owned(out)
}

/// The text, with what cannot be said in this format said otherwise.
fn push_said(out: &mut String, text: &str, comma: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push('\u{201d}'),
            ',' => out.push_str(comma),
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
pub(in crate::channels) mod tests;
