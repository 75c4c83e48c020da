//! What can be wrong with a configuration, as sentences for the person who wrote it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::{fmt, io};

/// More than this is no list to work through but a wrong file.
const MAX_TOLD: usize = 20;

/// Why a value is not taken: a sentence for a person, no code branches on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    wrong: String,
    allowed: Cow<'static, str>,
}

impl Refused {
    pub(super) fn new(wrong: impl Into<String>, allowed: impl Into<Cow<'static, str>>) -> Self {
        Self { wrong: wrong.into(), allowed: allowed.into() }
    }
}

impl fmt::Display for Refused {
    /// `what is wrong; what is allowed`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.wrong, self.allowed)
    }
}

impl std::error::Error for Refused {}

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line it stands in, from 1.
    pub line: usize,
    /// The key with its section, as `stream.linger_s`; `None` when the text is no TOML at all.
    pub key: Option<String>,
    /// What is wrong and what is allowed.
    pub refused: Refused,
}

/// All the mistakes found in a file, in the order of its lines; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    file: String,
    pub(super) list: Vec<Mistake>,
}

impl Mistakes {
    pub(super) fn new(file: &str, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| mistake.line);
        Self { file: file.to_owned(), list }
    }
}

impl fmt::Display for Mistakes {
    /// A line `FILE:LINE: key: what is wrong; what is allowed` for each mistake, below a heading if there
    /// are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        let count = self.list.len();
        if count > 1 {
            writeln!(f, "{file}: {count} mistakes")?;
        }
        for (index, Mistake { line, key, refused }) in self.list.iter().take(MAX_TOLD).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match key {
                Some(key) => write!(f, "{file}:{line}: {key}: {refused}")?,
                None => write!(f, "{file}:{line}: {refused}")?,
            }
        }
        if count > MAX_TOLD {
            write!(f, "\n{file}: and {} more", count - MAX_TOLD)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that is not allowed.
    Invalid(Mistakes),
}

impl ConfigError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Invalid(mistakes) => mistakes.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Invalid(mistakes) => Some(mistakes),
        }
    }
}
