//! Takes from a guide, event by event, what is wanted of it.
//!
//! Pure: bytes in, elements out. It holds one element at a time and nothing of the tree, so a guide of any length costs the
//! same; what is broken costs the element that it stands in, and only what makes everything behind it doubtful ends the
//! guide. It must not know where guides come from, nor what becomes of the elements.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};

use quick_xml::Reader;
use quick_xml::errors::Error;
use quick_xml::events::{BytesStart, Event};

use super::text::Text;
use super::time::{self, DAY};
use super::wanted::{Numbers, Wanted};
use super::xml;

/// An element that has more is no event of a guide that anybody reads.
const MAX_ELEMENT_BYTES: usize = 256 * 1024;

/// Elements of a guide lie four deep; more is a trap.
const MAX_DEPTH: usize = 64;

/// At this depth where there should be two, names of elements without an end have piled up in the reader; it begins anew.
const RESET_DEPTH: usize = 8;

/// A programme without an end is taken for one that lasts no longer.
const MAX_PROGRAMME: i64 = DAY;

/// The time of which programmes are wanted, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// What has ended by then is not.
    pub(super) from: i64,
    /// What begins later is not.
    pub(super) to: i64,
}

/// An element that is kept, under the id that the playlist writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept<'a> {
    pub(super) kind: Kind,
    pub(super) id: &'a str,
    /// When a programme ends.
    pub(super) stop: i64,
    /// The whole element, without what surrounds it.
    pub(super) xml: &'a str,
}

/// What elements of a guide are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Programme,
}

/// What was found in a guide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Channels and programmes, whosever they are.
    pub(super) elements: u64,
    /// Channels that are wanted.
    pub(super) channels: u64,
    /// Programmes that are wanted.
    pub(super) programmes: u64,
    /// Elements that were left out because they are broken.
    pub(super) broken: u64,
}

/// Why a guide is not read any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where, from 1.
    pub(super) line: u64,
    why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// Reads a guide to its end, or as far as it makes sense, and gives what is kept to `keep`, whose errors end it, too. `beat`
/// is called again and again.
pub(super) fn filter(
    input: impl Read,
    wanted: &Wanted,
    window: Window,
    keep: &mut dyn FnMut(Kept<'_>) -> io::Result<()>,
    beat: &dyn Fn(),
) -> (Found, Option<Fault>) {
    let mut filter = Filter {
        wanted,
        window,
        keep,
        found: Found::default(),
        element: None,
        by_id: Numbers::default(),
        named: Numbers::default(),
        names: HashMap::new(),
    };
    let mut reader = lenient(Text::new(input));
    let mut buffer = Vec::new();
    let mut depth = 0_usize;
    let fault = loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer);
        let outcome = match event {
            Ok(Event::Eof) => break None,
            Ok(event) => {
                match event {
                    Event::Start(_) => depth += 1,
                    Event::End(_) => depth = depth.saturating_sub(1),
                    _ => {}
                }
                filter.take(event).map_err(|error| format!("it cannot be kept: {error}"))
            }
            Err(Error::IllFormed(_)) => {
                filter.drop_broken();
                Ok(())
            }
            Err(Error::Io(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        reader.get_mut().end_event();
        let line = reader.get_ref().line();
        if let Err(why) = outcome {
            break Some(Fault { line, why });
        }
        if depth > MAX_DEPTH {
            break Some(Fault { line, why: "elements without end, one in the other".to_owned() });
        }
        if depth > RESET_DEPTH && filter.element.as_ref().is_some_and(|element| element.names.is_empty()) {
            // It keeps the names of all that was opened; nothing is held in it beside them.
            reader = lenient(reader.into_inner());
            depth = 2;
        }
        if filter.found.elements.is_multiple_of(256) {
            beat();
        }
    };
    let line = reader.get_ref().line();
    let is_cut = filter.element.is_some();
    let fault = fault.or_else(|| is_cut.then(|| Fault { line, why: "it ends in the middle".to_owned() }));
    let is_none = filter.found.elements == 0;
    let fault = fault.or_else(|| is_none.then(|| Fault { line, why: "there is no guide in it".to_owned() }));
    (filter.found, fault)
}

/// A reader that leaves it to us what is broken.
fn lenient<R: Read>(text: Text<R>) -> Reader<Text<R>> {
    let mut reader = Reader::from_reader(text);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    reader
}

struct Filter<'a> {
    wanted: &'a Wanted,
    window: Window,
    keep: &'a mut dyn FnMut(Kept<'_>) -> io::Result<()>,
    found: Found,
    /// What is being read, if it may be wanted.
    element: Option<Element>,
    /// Channels that this guide has by their id.
    by_id: Numbers,
    /// Channels that were found by their name.
    named: Numbers,
    /// Ids of this guide that mean channels by name.
    names: HashMap<String, Vec<u32>>,
}

/// An element as it will go out, but for its id.
struct Element {
    kind: Kind,
    /// The guide's own id of the channel.
    id: String,
    stop: i64,
    attributes: String,
    body: String,
    /// The elements that are open within it.
    names: Vec<String>,
    /// The names that a channel is shown by.
    shown: Vec<String>,
}

impl Filter<'_> {
    fn take(&mut self, event: Event<'_>) -> io::Result<()> {
        match &event {
            Event::Start(start) | Event::Empty(start) => {
                let kind = match start.name().0 {
                    "channel" => Some(Kind::Channel),
                    "programme" => Some(Kind::Programme),
                    _ => None,
                };
                if let Some(kind) = kind {
                    // The one before has no end.
                    self.drop_broken();
                    self.found.elements += 1;
                    // An empty one says nothing.
                    self.element =
                        if matches!(event, Event::Start(_)) { self.begin(kind, start) } else { None };
                    return Ok(());
                }
            }
            _ => {}
        }
        let Some(element) = &mut self.element else { return Ok(()) };
        let is_good = match event {
            Event::Start(start) => element.open(&start, true),
            Event::Empty(start) => element.open(&start, false),
            Event::End(end) => match element.names.pop() {
                Some(name) if name == end.name().0 => {
                    element.body.extend(["</", &name, ">"]);
                    true
                }
                Some(_) => false,
                None => return self.finish(end.name().0),
            },
            Event::Text(text) => element.text(&text),
            Event::GeneralRef(reference) => element.text(&format!("&{};", &*reference)),
            Event::CData(text) => {
                xml::push_plain(&mut element.body, &text);
                if let Some(shown) = element.shown_now() {
                    shown.push_str(&text);
                }
                true
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Eof => true,
        };
        if !is_good || element.body.len() > MAX_ELEMENT_BYTES {
            self.drop_broken();
        }
        Ok(())
    }

    fn drop_broken(&mut self) {
        if self.element.take().is_some() {
            self.found.broken += 1;
        }
    }

    /// Begins an element, if it may be wanted.
    fn begin(&mut self, kind: Kind, start: &BytesStart<'_>) -> Option<Element> {
        let id_name = match kind {
            Kind::Channel => "id",
            Kind::Programme => "channel",
        };
        let (mut id, mut begins, mut ends) = (None, None, None);
        let mut attributes = String::new();
        for (name, raw) in attributes_of(start) {
            match &*name {
                name if name == id_name => {
                    id = Some(xml::said(&raw));
                    continue;
                }
                "start" => begins = time::parse(&raw),
                "stop" => ends = time::parse(&raw),
                _ => {}
            }
            xml::push_attribute(&mut attributes, &name, &raw);
        }
        let Some(id) = id else {
            self.found.broken += 1;
            return None;
        };
        let mut stop = 0;
        if kind == Kind::Programme {
            self.meant(&id).next()?;
            let Some(begins) = begins else {
                self.found.broken += 1;
                return None;
            };
            stop = ends.unwrap_or_else(|| begins.saturating_add(MAX_PROGRAMME));
            if stop <= self.window.from || begins >= self.window.to {
                return None;
            }
        }
        let (body, names, shown) = (String::new(), Vec::new(), Vec::new());
        Some(Element { kind, id, stop, attributes, body, names, shown })
    }

    /// The channels that an id of this guide means.
    fn meant(&self, id: &str) -> impl Iterator<Item = u32> {
        let named = self.names.get(id).map_or(&[][..], Vec::as_slice);
        let named = named.iter().filter(|number| !self.by_id.contains(**number));
        self.wanted.by_id(id).iter().chain(named).copied()
    }

    /// An element has ended by this name.
    fn finish(&mut self, name: &str) -> io::Result<()> {
        let Some(element) = self.element.take() else { return Ok(()) };
        let tag = match element.kind {
            Kind::Channel => "channel",
            Kind::Programme => "programme",
        };
        let is_whole = name == tag && !element.body.trim().is_empty();
        if !is_whole {
            self.found.broken += 1;
            return Ok(());
        }
        if element.kind == Kind::Channel {
            self.note_channel(&element);
        }
        let numbers: Vec<_> = self.meant(&element.id).collect();
        let (attributes, body) = (&element.attributes, &element.body);
        for number in numbers {
            let id = self.wanted.id(number);
            let mut xml = format!("<{tag}{attributes}");
            xml::push_attribute(&mut xml, if tag == "channel" { "id" } else { "channel" }, &escaped(id));
            xml.extend([">", body, "</", tag, ">"]);
            (self.keep)(Kept { kind: element.kind, id, stop: element.stop, xml: &xml })?;
            match element.kind {
                Kind::Channel => self.found.channels += 1,
                Kind::Programme => self.found.programmes += 1,
            }
        }
        Ok(())
    }

    /// Notes what a channel of the guide means: by its id, else by the names it is shown by.
    fn note_channel(&mut self, element: &Element) {
        let by_id = self.wanted.by_id(&element.id);
        for number in by_id {
            self.by_id.insert(*number);
        }
        for name in &element.shown {
            for number in self.wanted.by_name(&xml::said(name)) {
                // The first of the guide that has the name, so that there are never more names than channels.
                if !by_id.contains(number) && !self.by_id.contains(*number) && self.named.insert(*number) {
                    self.names.entry(element.id.clone()).or_default().push(*number);
                }
            }
        }
    }
}

impl Element {
    fn open(&mut self, start: &BytesStart<'_>, has_end: bool) -> bool {
        let name = start.name().0;
        if !xml::is_name(name) || self.names.len() > MAX_DEPTH {
            return false;
        }
        self.body.extend(["<", name]);
        for (name, raw) in attributes_of(start) {
            xml::push_attribute(&mut self.body, &name, &raw);
        }
        self.body.push_str(if has_end { ">" } else { "/>" });
        if has_end {
            self.names.push(name.to_owned());
            if self.kind == Kind::Channel && self.names.len() == 1 && name == "display-name" {
                self.shown.push(String::new());
            }
        }
        true
    }

    fn text(&mut self, raw: &str) -> bool {
        xml::push_text(&mut self.body, raw);
        if let Some(shown) = self.shown_now() {
            shown.push_str(raw);
        }
        true
    }

    /// The name that is being read, if one is.
    fn shown_now(&mut self) -> Option<&mut String> {
        let is_name = self.names.len() == 1 && self.names[0] == "display-name" && self.kind == Kind::Channel;
        if is_name { self.shown.last_mut() } else { None }
    }
}

/// The attributes of a tag that can be said in ours, each once: name and raw value.
fn attributes_of(start: &BytesStart<'_>) -> Vec<(String, String)> {
    /// A programme of the DTD has seven.
    const MAX_ATTRIBUTES: usize = 32;
    let mut attributes: Vec<(String, String)> = Vec::new();
    for attribute in start.attributes().with_checks(false).take(MAX_ATTRIBUTES).flatten() {
        let name = attribute.key.0;
        if xml::is_name(name) && attributes.iter().all(|(other, _)| other != name) {
            attributes.push((name.to_owned(), attribute.value.into_owned()));
        }
    }
    attributes
}

/// A text of ours as a raw value: what looks like a reference in it is none.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
}

#[cfg(test)]
mod tests;
