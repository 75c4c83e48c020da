//! How the end of a stream looks to its clients.

/// How the end of a stream looks to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The end of the content, or somebody's wish: the client's body ends properly.
    Complete,
    /// The source is lost: the connection ends without an end of the body, so that players which can reconnect do.
    Broken,
}
