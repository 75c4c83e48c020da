//! The files that a film consists of, and how playback treats them. Values only.

use std::time::Duration;

use super::super::media::FileBytes;

/// One file of a content.
#[derive(Clone, Debug)]
pub struct FilmFile {
    /// Its name, as `get_media_files` gives it.
    pub name: String,
    /// What is in it.
    pub bytes: FileBytes,
    /// The Content-Type of its playback.
    pub content_type: Option<String>,
    /// Its entity tag.
    pub etag: Option<String>,
    /// What playback says of its length and its parts.
    pub parts: Parts,
    /// So many of its first bytes are downloaded from the beginning.
    pub downloaded: u64,
    /// How long each other piece of 16 KiB takes, once a reader waits for it.
    pub piece: Duration,
}

/// What playback says of a file's length and its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// It has a length, and any part of it is given.
    Ranges,
    /// It has a length; `Range` is ignored.
    Length,
    /// Neither; the end of the connection is the end.
    Neither,
}

impl FilmFile {
    /// A file in good health that is downloaded already.
    #[must_use]
    pub fn new(name: &str, bytes: FileBytes) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
            content_type: Some("video/mp4".to_owned()),
            etag: None,
            parts: Parts::Ranges,
            downloaded: u64::MAX,
            piece: Duration::ZERO,
        }
    }
}
