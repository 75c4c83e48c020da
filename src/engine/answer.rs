//! Reads an engine's JSON leniently: two kinds of envelope, errors as text or object, numbers as text.
//!
//! It must not know which call an answer belongs to.

use serde_json::Value;

use super::error::EngineError;

/// Texts of an engine are kept and shown up to here: ids, versions and messages fit, floods do not.
const MAX_TEXT_CHARS: usize = 256;

/// The beginning of an answer's text, on one line, for an error message.
pub(super) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.split_whitespace()
        .flat_map(|word| [" ", word])
        .skip(1)
        .collect::<String>()
        .chars()
        .take(MAX_CHARS)
        .collect()
}

/// Takes the answer out of its envelope: `response` or `result`, beside an `error` that is absent, null, a text
/// or an object.
pub(super) fn envelope(status: u16, text: &str) -> Result<Value, EngineError> {
    let parsed = serde_json::from_str::<Value>(text);
    if let Ok(Value::Object(envelope)) = &parsed
        && let Some(error) = envelope.get("error").and_then(error_text)
    {
        return Err(EngineError::Said(error));
    }
    if !(200..300).contains(&status) {
        return Err(EngineError::Status(status, excerpt(text)));
    }
    match parsed {
        Ok(Value::Object(mut envelope)) => {
            let answer = ["response", "result"].iter().find_map(|name| envelope.remove(*name));
            match answer {
                None | Some(Value::Null) => Err(EngineError::NoAnswer("it is empty")),
                Some(answer) => Ok(answer),
            }
        }
        Ok(_) => Err(EngineError::NoAnswer("it is no JSON object")),
        Err(_) if text.trim_start().starts_with('<') => {
            Err(EngineError::NoAnswer("it is HTML where JSON was expected"))
        }
        Err(_) => Err(EngineError::NoAnswer("it is not JSON")),
    }
}

fn error_text(error: &Value) -> Option<String> {
    match error {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Object(fields) => match fields.get("message").and_then(text_of) {
            Some(message) => Some(message),
            None => Some(excerpt(&error.to_string())),
        },
        other => Some(text_of(other).unwrap_or_else(|| excerpt(&other.to_string()))),
    }
}

/// A text, cut where it is longer than anything an engine has to say.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.chars().take(MAX_TEXT_CHARS).collect()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn integer_of(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some(i64::from(*flag)),
        _ => None,
    }
}
