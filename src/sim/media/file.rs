//! Files, for films: a real one, or one of any length whose every byte follows from its place.
//!
//! It must not know how a file is asked for, nor who looks at it.

/// Three minutes of H.264 and AAC (`scripts/make-film.sh`).
static FILM: &[u8] = include_bytes!("../film.mp4");

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileBytes {
    /// The real film; any player shows it.
    Film,
    /// So many bytes: the places of their groups of eight, in big-endian order.
    Places(u64),
}

impl FileBytes {
    /// How many there are.
    #[must_use]
    pub fn length(self) -> u64 {
        match self {
            Self::Film => FILM.len() as u64,
            Self::Places(length) => length,
        }
    }

    /// These bytes of it, as far as they are there.
    #[must_use]
    pub fn part(self, from: u64, to: u64) -> Vec<u8> {
        let (from, to) = (from.min(self.length()), to.min(self.length()));
        match self {
            Self::Film => FILM.get(from as usize..to as usize).unwrap_or_default().to_vec(),
            Self::Places(_) => {
                let (first, last) = (from / 8, to.div_ceil(8));
                let mut bytes: Vec<u8> = (first..last).flat_map(|group| (group * 8).to_be_bytes()).collect();
                bytes.truncate((to.saturating_sub(first * 8)) as usize);
                bytes.drain(..((from % 8) as usize).min(bytes.len()));
                bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_stands_there_in_the_whole() {
        for file in [FileBytes::Film, FileBytes::Places(1001)] {
            let whole = file.part(0, u64::MAX);
            assert_eq!(whole.len() as u64, file.length());
            for (from, to) in [(0, 0), (0, 1), (3, 5), (7, 9), (8, 16), (13, 999), (999, 5000), (6000, 5)] {
                let expected = whole.get(from as usize..(to as usize).min(whole.len())).unwrap_or_default();
                assert_eq!(file.part(from, to.max(from)), expected, "{from}..{to}");
            }
        }
    }
}
