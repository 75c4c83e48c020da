//! FNV-1a (draft-eastlake-fnv), for names and tags that must be the same in every run and every version of the program, which
//! the standard library's hash does not promise.
//!
//! Whoever chooses the text can make two that have the same hash: nothing that matters may rest on that they differ.

use std::io::{self, Write};

/// FNV-1a of 64 bits over what is added.
#[derive(Debug)]
pub struct Fnv64(u64);

/// Of nothing as yet.
impl Default for Fnv64 {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv64 {
    /// Goes on with these bytes.
    pub fn add(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of all that was added.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0
    }
}

/// Takes what is written for nothing but its hash.
impl Write for Fnv64 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes.iter().copied());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// FNV-1a of 64 bits.
#[must_use]
pub fn fnv64(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut hash = Fnv64::default();
    hash.add(bytes);
    hash.hash()
}

/// FNV-1a of 32 bits.
#[must_use]
pub fn fnv32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the draft's appendix.
    #[test]
    fn hashes_are_those_of_the_draft() {
        for (text, short, long) in [
            ("", 0x811c_9dc5, 0xcbf2_9ce4_8422_2325),
            ("a", 0xe40c_292c, 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0xbf9c_f968, 0x8594_4171_f739_67e8),
        ] {
            assert_eq!((fnv32(text.bytes()), fnv64(text.bytes())), (short, long), "{text}");
            let mut written = Fnv64::default();
            let (head, tail) = text.split_at(text.len() / 2);
            written.write_all(head.as_bytes()).expect("it takes all");
            written.write_all(tail.as_bytes()).expect("it takes all");
            assert_eq!(written.hash(), long, "{text}");
        }
    }
}
