//! Single values as TOML has them: read as a tree, shown in a message, written back.
//!
//! It must not know keys, sections or rules.

use std::fmt::Write;
use std::time::Duration;

use toml::de::DeValue;

use crate::escape::Escaped;

/// A value of the file, as yet unchecked.
pub(super) type Value<'i> = DeValue<'i>;

/// The value as the file has it, for a message about it.
pub(super) fn shown(value: &Value<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", Escaped(text)),
        DeValue::Integer(number) => Escaped(number.as_str()).to_string(),
        DeValue::Float(number) => Escaped(number.as_str()).to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Whole seconds, or with as many decimals as they need.
pub(super) fn seconds(value: Duration) -> String {
    let decimals = format!("{}.{:09}", value.as_secs(), value.subsec_nanos());
    decimals.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A basic string of TOML: quotes, backslashes and control characters escaped.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
            text.push(character);
        } else if character.is_control() {
            let _: std::fmt::Result = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text.push('"');
    text
}
