//! The guide as it is served now.
//!
//! Files that stay open: whoever is sent one goes on with it when a newer one has taken its name.

use std::fs::File;
use std::sync::Arc;

/// What there is for who asks for the guide.
#[derive(Debug, Default)]
pub enum Current {
    /// Nobody has named a guide.
    #[default]
    None,
    /// None has come yet.
    Awaited,
    /// This one.
    Here(Edition),
}

/// A whole guide.
#[derive(Clone, Debug)]
pub struct Edition {
    /// Of its contents.
    pub digest: u64,
    /// As it is.
    pub plain: Copy,
    /// Packed by gzip.
    pub packed: Copy,
}

/// A file and its length.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Open for reading.
    pub file: Arc<File>,
    /// Its bytes.
    pub length: u64,
}
