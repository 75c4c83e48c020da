//! Rust source as the layering rules see it: without comments and strings, and with its imports found.

/// Source text with comments and the contents of strings blanked, every byte at its old place.
pub(super) struct Code {
    pub(super) text: String,
    /// Where the unit tests of the file begin: its last `#[cfg(test)]` before a `mod`.
    pub(super) tests_start: usize,
}

impl Code {
    pub(super) fn new(source: &str) -> Self {
        let text = blank(source);
        let tests_start = ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub mod "]
            .iter()
            .filter_map(|start| text.find(start))
            .min();
        Self { tests_start: tests_start.unwrap_or(text.len()), text }
    }

    /// The line, from 1, of the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }

    pub(super) fn find(&self, needle: &str) -> Vec<usize> {
        self.text.match_indices(needle).map(|(offset, _)| offset).collect()
    }

    /// Where `word` stands as a whole identifier.
    pub(super) fn words(&self, word: &str) -> Vec<usize> {
        let bytes = self.text.as_bytes();
        let is_part =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let mut found = self.find(word);
        found.retain(|&offset| {
            let before = offset.checked_sub(1).and_then(|before| bytes.get(before));
            !is_part(before) && !is_part(bytes.get(offset + word.len()))
        });
        found
    }

    /// Every path from the crate's root, as `engine::api::Call`, with its place. Groups in braces are taken
    /// apart.
    pub(super) fn imports(&self, own: &str, depth: usize) -> Vec<(usize, String)> {
        let mut roots = vec!["crate::".to_owned(), "super::".repeat(depth)];
        if own == "main" {
            roots.push("acerelay::".to_owned());
        }
        let mut found = Vec::new();
        for root in roots {
            for offset in self.words(root.trim_end_matches(':')) {
                // `super::super::x` has a `super::x` in it, from its second word on.
                if self.text[offset..].starts_with(&root) && !self.text[..offset].ends_with("::") {
                    self.paths(offset + root.len(), "", &mut found);
                }
            }
        }
        found
    }

    /// Every path that begins with `crate`, `super` or `self`, as it is written, with its place.
    pub(super) fn relative_imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for root in ["crate", "super", "self"] {
            for offset in self.words(root) {
                let is_path = self.text[offset + root.len()..].starts_with("::");
                if is_path && !self.text[..offset].ends_with("::") {
                    self.paths(offset, "", &mut found);
                }
            }
        }
        found
    }

    /// Reads the path, or the group of paths, at `offset`; returns where it ends.
    fn paths(&self, mut offset: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
        let rest = |offset: usize| &self.text[offset..];
        let skip_blanks = |offset: usize| offset + rest(offset).len() - rest(offset).trim_start().len();
        if rest(offset).starts_with('{') {
            offset += 1;
            loop {
                offset = skip_blanks(offset);
                match rest(offset).chars().next() {
                    None => return offset,
                    Some('}') => return offset + 1,
                    Some(',') => offset += 1,
                    Some(_) => {
                        let end = self.paths(offset, prefix, found);
                        // `a as b`, and anything else that is no path: on to the next entry.
                        let next = rest(end).find([',', '}']).unwrap_or(rest(end).len());
                        offset = end + next;
                    }
                }
            }
        }
        let is_path =
            |character: char| character.is_alphanumeric() || matches!(character, '_' | ':' | '*' | '#');
        let length = rest(offset).find(|character| !is_path(character)).unwrap_or(rest(offset).len());
        let path = format!("{prefix}{}", &rest(offset)[..length]);
        let end = offset + length;
        if path.ends_with("::") && rest(end).starts_with('{') {
            return self.paths(end, &path, found);
        }
        found.push((offset, path));
        end
    }
}

/// Blanks comments and the contents of string and character literals; line breaks stay.
fn blank(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let (length, keep) = token(rest, after_word);
        let (piece, tail) = rest.split_at(length);
        for character in piece.chars() {
            if keep || character == '\n' {
                out.push(character);
            } else {
                out.extend(std::iter::repeat_n(' ', character.len_utf8()));
            }
        }
        after_word = first.is_alphanumeric() || first == '_';
        rest = tail;
    }
    out
}

/// The length of what starts here, and whether it is code. `after_word`: a letter stands before it, so that
/// an `r` does not begin a raw string.
fn token(rest: &str, after_word: bool) -> (usize, bool) {
    let until =
        |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (until(2, "*/"), false);
    }
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'));
    if let Some(raw) = raw.filter(|_| !after_word) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let start = rest.len() - raw.len() + hashes + 1;
            return (until(start, &format!("\"{}", "#".repeat(hashes))), false);
        }
    }
    if rest.starts_with('"') {
        return (quoted(rest, '"'), false);
    }
    if rest.starts_with('\'') {
        let mut characters = rest.chars().skip(1);
        let is_escape = characters.next() == Some('\\');
        // Without a second quote right behind, it is a lifetime.
        if is_escape || characters.next() == Some('\'') {
            return (quoted(rest, '\''), false);
        }
    }
    (rest.chars().next().map_or(0, char::len_utf8), true)
}

/// The length of the literal that starts here, with its quotes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (offset, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return offset + character.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}
