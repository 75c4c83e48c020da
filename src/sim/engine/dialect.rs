//! How an engine words its answers, where engines differ without one of them being wrong. Values only.

use super::content::Content;
use crate::id::Digest;

/// What an engine's answers look like, and which of a request's parameters it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// What is said of a session that is not there (engine-contract.md 2).
    pub session_words: String,
    /// Hex digits of the token in a session's URLs; at least 16.
    pub token_digits: usize,
    /// The content is named `cid:<content id>` in the paths of its URLs, with a colon.
    pub has_colon_in_paths: bool,
    /// What is given as `infohash` is the content id, in answers and in paths.
    pub infohash_is_content_id: bool,
    /// stat is `dl` from the first moment, with 0 peers and 0 bytes until bytes flow, and has no speeds ever.
    pub has_hollow_stat: bool,
    /// getstream succeeds for any id; only the playback URL says that there is nothing, by 404 and an empty body.
    pub tells_unknown_late: bool,
    /// It knows `pid`. Engines before 3.1.29 know `sid` alone.
    pub knows_pid: bool,
}

impl Default for Dialect {
    /// The official engine, 3.1.75.
    fn default() -> Self {
        Self {
            session_words: "unknown playback session id".to_owned(),
            token_digits: 32,
            has_colon_in_paths: false,
            infohash_is_content_id: false,
            has_hollow_stat: false,
            tells_unknown_late: false,
            knows_pid: true,
        }
    }
}

impl Dialect {
    /// An independent engine, as one was seen (engine-contract.md 13): everything here is different but `pid`.
    #[must_use]
    pub fn independent() -> Self {
        Self {
            session_words: "invalid or expired playback session".to_owned(),
            token_digits: 64,
            has_colon_in_paths: true,
            infohash_is_content_id: true,
            has_hollow_stat: true,
            tells_unknown_late: true,
            knows_pid: true,
        }
    }

    /// An official engine before 3.1.29, which has never heard of `pid`.
    #[must_use]
    pub fn before_pid() -> Self {
        Self { knows_pid: false, ..Self::default() }
    }

    /// What is given as the content's infohash.
    pub(super) fn infohash_of(&self, content: &Content) -> Digest {
        if self.infohash_is_content_id { content.id } else { content.infohash }
    }

    /// What stands for the content in paths.
    pub(super) fn path_name_of(&self, content: &Content) -> String {
        if self.has_colon_in_paths {
            format!("cid:{}", content.id)
        } else {
            self.infohash_of(content).to_string()
        }
    }
}
