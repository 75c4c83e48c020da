//! The session that a path names: one rule, whether it is to be shown or stopped.
//!
//! It must not know who may do which.

use std::sync::Arc;

use serde::Serialize;

use crate::http::response::{Code, Response};
use crate::id::Digest;
use crate::stream::state::State;
use crate::stream::stream::Stream;

use super::context::Context;

/// Which of its names a stream is meant by; the first is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    StreamId,
    AceId,
    Infohash,
}

/// A name as it stands in a path.
struct Name {
    text: String,
    digest: Option<Digest>,
}

impl Name {
    fn new(id: &str) -> Self {
        Self { text: id.to_ascii_lowercase(), digest: id.parse().ok() }
    }

    fn of(&self, stream_id: &str, ace_id: Digest, infohash: Option<Digest>) -> Option<Named> {
        if stream_id == self.text {
            return Some(Named::StreamId);
        }
        let digest = self.digest?;
        if ace_id == digest {
            return Some(Named::AceId);
        }
        (infohash == Some(digest)).then_some(Named::Infohash)
    }
}

/// The streams of this name: those that live before those that ended, then by the name, then the newest first. An id and an
/// infohash may have the same digits, and two variants of a content share its digits, so there can be several.
fn named(context: &Context, id: &str) -> Vec<Arc<Stream>> {
    let name = Name::new(id);
    let rank = |stream: Arc<Stream>| {
        let named = name.of(stream.stream_id(), stream.content().name.digest(), stream.infohash())?;
        Some(((has_ended(&stream), named), stream))
    };
    // The list has the newest first, and the sort keeps that among equals.
    let mut found: Vec<_> = context.streams.list().into_iter().filter_map(rank).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, stream)| stream).collect()
}

fn has_ended(stream: &Stream) -> bool {
    matches!(stream.state(), State::Stopped(_))
}

/// Those of this name that live, what a GET shows first.
pub(super) fn live(context: &Context, id: &str) -> Vec<Arc<Stream>> {
    let mut found = named(context, id);
    found.retain(|stream| !has_ended(stream));
    found
}

/// `/proxy/sessions/{id}`.
pub(super) fn session(context: &Context, id: &str) -> Response {
    match named(context, id).first() {
        Some(stream) => Response::json(200, &stream.view()),
        None => Response::error(Code::NotFound, &"there is no such session"),
    }
}

/// `/ace/status?id=`, in the shape that acexy gives it.
pub(super) fn ace_status(context: &Context, id: &str) -> Response {
    #[derive(Serialize)]
    struct One<'a> {
        clients: usize,
        stream_id: &'a str,
        stat_url: String,
    }
    match live(context, id).first().map(|stream| stream.view()) {
        Some(view) => {
            let stat_url = format!("/proxy/sessions/{}", view.stream_id);
            let body = One { clients: view.clients.len(), stream_id: &view.stream_id, stat_url };
            Response::json(200, &body)
        }
        None => Response::error(Code::NotFound, &"there is no such stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_stream_id_else_an_id_else_an_infohash() {
        let [one, two, three] = [1, 2, 3].map(|byte| Digest::new([byte; 20]));
        let check = |id: &str, expected| {
            let variant = format!("{one}-0a1b2c3d");
            assert_eq!(Name::new(id).of(&variant, one, Some(two)), expected, "{id}");
        };
        check(&format!("{one}-0A1B2C3D"), Some(Named::StreamId));
        check(&one.to_string(), Some(Named::AceId));
        check(&two.to_string().to_uppercase(), Some(Named::Infohash));
        for other in [three.to_string(), format!("{one}-"), format!("{two}-0a1b2c3d"), String::new()] {
            check(&other, None);
        }
        assert_eq!(Name::new(&one.to_string()).of(&one.to_string(), one, Some(one)), Some(Named::StreamId));
    }
}
