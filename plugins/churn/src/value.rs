//! Reads a record's JSON, and describes values in errors. Both are identical in the three
//! languages, although their own parsers differ: if a name occurs twice, the last one counts, `5.0`
//! is a whole number, and half a surrogate pair is invalid JSON.

use hostler_plugin::Error;
use hostler_plugin::json::{self, Value};

use crate::answer::millionths;

/// The number of characters of a text that an error shows.
const EXCERPT: usize = 40;
/// A text with more brackets is refused as not a record, before a parser recurses into it.
const BRACKETS: usize = 64;

/// Parses the text as an object.
pub fn object(text: &str) -> Result<Value<'_>, Error> {
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > BRACKETS {
        return Err(Error::invalid_input("expected a flat object, got too many brackets"));
    }
    let value = json::parse(text).map_err(|_| not_json())?;
    let kind = match value {
        Value::Object(_) => return Ok(value),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::Text(_) => "a text",
        Value::Array(_) => "an array",
    };
    Err(Error::invalid_input(format!("expected an object with the fields of a record, got {kind}")))
}

pub fn not_json() -> Error {
    Error::invalid_input("the input is not valid JSON")
}

/// Describes a value in an error.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => number(*value),
        Value::Text(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// At most six decimals, because the languages disagree on when to use an exponent.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e9 {
        return "a huge number".into();
    }
    let millionths = millionths(size);
    if millionths == 0 && size > 0.0 {
        return "a tiny number".into();
    }
    let about = if millionths as f64 / 1e6 == size { "" } else { "about " };
    let sign = if value < 0.0 { "-" } else { "" };
    let decimals = format!("{:06}", millionths % 1_000_000);
    let decimals = decimals.trim_end_matches('0');
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{about}{sign}{}{point}{decimals}", millionths / 1_000_000)
}

/// Returns the text in quotes, truncated if it is long.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

/// Returns the text, truncated if it is long.
pub fn cut(text: &str) -> String {
    let mut letters = text.chars();
    let start: String = letters.by_ref().take(EXCERPT).collect();
    if letters.next().is_none() { start } else { format!("{start}…") }
}
