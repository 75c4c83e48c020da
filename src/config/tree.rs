//! TOML as a tree with line numbers, taken apart key by key.
//!
//! A [`Section`] gives out the values of its keys; what nobody asked for is an unknown key. So the list of
//! allowed keys is the list of keys that are read, and every mistake is collected rather than the first.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::Keys;
use super::mistake::{Mistake, Refused};
use super::rules::Rule;
use crate::escape::Escaped;

/// What was found wrong so far, and what turns offsets into lines.
pub(super) struct Findings {
    /// Where each line ends. Looked up rather than counted: a wrong file can have a mistake in every line.
    line_ends: Vec<usize>,
    list: Vec<Mistake>,
}

impl Findings {
    pub(super) fn new(text: &str) -> Self {
        Self { line_ends: text.match_indices('\n').map(|(end, _)| end).collect(), list: Vec::new() }
    }

    pub(super) fn add(&mut self, offset: usize, key: Option<String>, refused: Refused) {
        let line = 1 + self.line_ends.partition_point(|&end| end < offset);
        self.list.push(Mistake { line, key, refused });
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// `good`, unless something was found.
    pub(super) fn or<T>(self, good: T) -> Result<T, Vec<Mistake>> {
        if self.list.is_empty() { Ok(good) } else { Err(self.list) }
    }
}

/// The whole document, or what makes it no TOML.
pub(super) fn parse<'i>(text: &'i str, findings: &mut Findings) -> DeTable<'i> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        let refused = Refused::new(
            format!("not TOML: {}", error.message().replace(char::is_control, " ")),
            "a line is [section], key = value or # comment, with text in quotes",
        );
        findings.add(offset, key_at(text, offset), refused);
    }
    table.into_inner()
}

/// The key of the line at `offset`, if it has one. Its value is not told: it may be the admin token.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let (before, after) = text.split_at_checked(offset)?;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = &text[start..offset + after.find('\n').unwrap_or(after.len())];
    let key = line.split_once('=')?.0.trim();
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!key.is_empty() && key.bytes().all(is_bare)).then(|| Escaped(key).to_string())
}

/// One table of the file while it is read.
pub(super) struct Section<'i, 'f> {
    /// As in the file, without brackets.
    name: &'static str,
    table: DeTable<'i>,
    taken: Vec<&'static str>,
    findings: &'f mut Findings,
}

impl<'i, 'f> Section<'i, 'f> {
    pub(super) fn new(name: &'static str, table: DeTable<'i>, findings: &'f mut Findings) -> Self {
        Self { name, table, taken: Vec::new(), findings }
    }

    /// Reads the values of these `keys` into `target`, and tells what is left as unknown.
    pub(super) fn read<T>(mut self, target: &mut T, keys: fn(&mut Self, &mut T)) {
        keys(&mut self, target);
        let allowed = format!("[{}] takes {}", self.name, self.taken.join(", "));
        for key in self.table.keys() {
            let name = format!("{}.{}", self.name, Escaped(key.get_ref()));
            let refused = Refused::new("unknown key", allowed.clone());
            self.findings.add(key.span().start, Some(name), refused);
        }
    }
}

impl Keys for Section<'_, '_> {
    /// `place` stays as it is when the file is silent.
    fn key<T>(&mut self, name: &'static str, place: &mut T, rule: Rule<T>) {
        self.taken.push(name);
        let Some(value) = self.table.remove(name) else {
            return;
        };
        match (rule.read)(value.get_ref()) {
            Ok(read) => *place = read,
            Err(refused) => {
                self.findings.add(value.span().start, Some(format!("{}.{name}", self.name)), refused);
            }
        }
    }
}

/// Takes the entry `name` out of the document, with the place of its value.
pub(super) fn take<'i>(document: &mut DeTable<'i>, name: &str) -> Option<(Range<usize>, DeValue<'i>)> {
    document.remove(name).map(|value| (value.span(), Spanned::into_inner(value)))
}
