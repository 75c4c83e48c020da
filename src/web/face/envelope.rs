//! How an engine writes its answers: JSON with a blank behind each comma and colon, in one of three envelopes
//! (engine-contract.md section 2: some clients look for the very bytes).
//!
//! It must not know what is answered.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::engine::api::Liveness;
use crate::http::response::Response;

/// Which envelope an answer is given in (engine-contract.md sections 4 and 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web) enum Envelope {
    /// `response` and `error`.
    Response,
    /// `result` and `error`.
    Result,
    /// `result` alone, or an object for `error` alone.
    ResultAlone,
}

/// The blanks of Python's `json.dumps`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, is_first: bool) -> io::Result<()> {
        if is_first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `is_live` as an engine writes it.
pub(super) fn is_live(liveness: Liveness) -> i8 {
    match liveness {
        Liveness::Live => 1,
        Liveness::Vod => 0,
        Liveness::Unknown => -1,
    }
}

/// JSON as an engine writes it.
///
/// # Panics
///
/// Never: our own plain structures always have a JSON form.
pub(super) fn text_of(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, Spaced);
    value.serialize(&mut serializer).expect("plain structures have a JSON form");
    text
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Named<T> {
    Response(T),
    Result(T),
}

#[derive(Serialize)]
struct WithError<T> {
    #[serde(flatten)]
    answer: Named<Option<T>>,
    error: Option<String>,
}

#[derive(Serialize)]
struct ErrorAlone {
    error: ErrorObject,
}

#[derive(Serialize)]
struct ErrorObject {
    message: String,
    code: i32,
}

/// A good answer in its envelope.
pub(super) fn good(envelope: Envelope, answer: impl Serialize) -> Vec<u8> {
    match envelope {
        Envelope::Response => text_of(&WithError { answer: Named::Response(Some(answer)), error: None }),
        Envelope::Result => text_of(&WithError { answer: Named::Result(Some(answer)), error: None }),
        Envelope::ResultAlone => text_of(&Named::Result(answer)),
    }
}

/// An error in its envelope.
pub(super) fn bad(envelope: Envelope, text: impl Into<String>) -> Vec<u8> {
    let text = text.into();
    match envelope {
        Envelope::Response => text_of(&WithError { answer: Named::Response(None::<()>), error: Some(text) }),
        Envelope::Result => text_of(&WithError { answer: Named::Result(None::<()>), error: Some(text) }),
        Envelope::ResultAlone => text_of(&ErrorAlone { error: ErrorObject { message: text, code: 0 } }),
    }
}

/// The answer with this text: an engine says its errors with a status of 200, too.
pub(super) fn answer(text: Vec<u8>) -> Response {
    Response::empty(200)
        .with("Content-Type", "application/json")
        .with("Cache-Control", "no-store")
        .for_every_page()
        .with_body(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Two {
        one: i32,
        list: [bool; 2],
    }

    #[test]
    fn answers_have_the_bytes_of_an_engine() {
        let check =
            |text: Vec<u8>, expected: &str| assert_eq!(String::from_utf8(text).as_deref(), Ok(expected));
        let two = || Two { one: 1, list: [true, false] };
        check(
            good(Envelope::Response, two()),
            r#"{"response": {"one": 1, "list": [true, false]}, "error": null}"#,
        );
        check(good(Envelope::Response, "ok"), r#"{"response": "ok", "error": null}"#);
        check(good(Envelope::Result, 3), r#"{"result": 3, "error": null}"#);
        check(good(Envelope::ResultAlone, two()), r#"{"result": {"one": 1, "list": [true, false]}}"#);
        check(bad(Envelope::Response, "a: b"), r#"{"response": null, "error": "a: b"}"#);
        check(bad(Envelope::Result, "x"), r#"{"result": null, "error": "x"}"#);
        check(bad(Envelope::ResultAlone, "x"), r#"{"error": {"message": "x", "code": 0}}"#);
    }
}
