//! Of which channels a guide is wanted, and what each is to be called in ours.
//!
//! Pure. Players match a guide to a playlist by the id that the playlist writes, byte for byte; people's lists and guides
//! differ in it by upper and lower case, or have nothing but the name in common (playlist-facts.md section 4). So guides are
//! matched kindly here, and what comes out has the playlist's own id.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::fnv::Fnv64;

/// The channels of a list, by what guides may call them.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    ids: Vec<Box<str>>,
    by_id: HashMap<String, Vec<u32>>,
    by_name: HashMap<String, Vec<u32>>,
    digest: u64,
}

impl Wanted {
    /// Of channels with the id that the playlist writes, the one that they have where it could not be written so, and the
    /// names that the playlist gives them.
    pub(super) fn new<'a>(
        channels: impl Iterator<Item = (Cow<'a, str>, Option<&'a str>, Vec<&'a str>)>,
    ) -> Self {
        let mut wanted = Self::default();
        let mut known: HashMap<Cow<'a, str>, u32> = HashMap::new();
        let mut digest = Fnv64::default();
        // With an end behind each text.
        let mut note = |text: &str| digest.add(text.bytes().chain([0xff]));
        for (id, original, names) in channels {
            note(&id);
            let number = *known.entry(id.clone()).or_insert_with(|| {
                wanted.ids.push((*id).into());
                wanted.ids.len() as u32 - 1
            });
            add(&mut wanted.by_id, &id, number);
            if let Some(original) = original.filter(|original| **original != *id) {
                note(original);
                add(&mut wanted.by_id, original, number);
            }
            for name in names {
                note(name);
                add(&mut wanted.by_name, name, number);
            }
        }
        wanted.digest = digest.hash();
        wanted
    }

    /// How many ids there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The id that the playlist writes.
    pub(super) fn id(&self, number: u32) -> &str {
        &self.ids[number as usize]
    }

    /// Those that a guide's id means.
    pub(super) fn by_id(&self, id: &str) -> &[u32] {
        self.by_id.get(&folded(id)).map_or(&[], Vec::as_slice)
    }

    /// Those that a guide's name means.
    pub(super) fn by_name(&self, name: &str) -> &[u32] {
        self.by_name.get(&folded(name)).map_or(&[], Vec::as_slice)
    }

    /// The number of this id, exactly as the playlist writes it.
    pub(super) fn number(&self, id: &str) -> Option<u32> {
        self.by_id(id).iter().copied().find(|number| self.id(*number) == id)
    }

    /// Differs when other channels are wanted.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }
}

fn add(map: &mut HashMap<String, Vec<u32>>, text: &str, number: u32) {
    let folded = folded(text);
    if folded.is_empty() {
        return;
    }
    let numbers = map.entry(folded).or_default();
    if !numbers.contains(&number) {
        numbers.push(number);
    }
}

/// Without what people write differently: case and blanks.
fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
    out
}

/// A set of numbers of channels.
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<bool>);

impl Numbers {
    /// Whether it was not there before.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let at = number as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, false);
        }
        !std::mem::replace(&mut self.0[at], true)
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guide_is_matched_kindly_and_named_exactly() {
        let channels = [
            ("CanalFaro.xx".into(), None, vec!["Canal  Faro"]),
            ("canalfaro.XX".into(), None, vec![]),
            ("cine".into(), Some("cine"), vec!["Cine", ""]),
            ("a b".into(), Some("a, b"), vec![]),
        ];
        let wanted = Wanted::new(channels.into_iter());
        assert_eq!(
            (wanted.by_id("A, B"), wanted.number("a b")),
            (&[3][..], Some(3)),
            "an id that cannot be written"
        );
        assert_eq!(wanted.by_id("canalfaro.xx"), [0, 1]);
        assert_eq!(wanted.by_name(" CANAL faro"), [0]);
        assert_eq!((wanted.number("canalfaro.XX"), wanted.number("canalfaro.xx")), (Some(1), None));
        assert_eq!((wanted.by_name("").len(), wanted.by_id("x").len(), wanted.len()), (0, 0, 4));
        assert_ne!(wanted.digest(), Wanted::new([("cine".into(), None, vec!["Cine"])].into_iter()).digest());
    }
}
