//! How a record's JSON is read and how an error names what it found. All of it is the same in the
//! three languages, which their own parsers are not: of a name that is there twice the last counts,
//! `5.0` is a whole number, and half a surrogate pair makes the text no JSON.

use hostler_plugin::Error;
use hostler_plugin::json::{self, Value};

use crate::answer::millionths;

/// Characters of a text that an error shows.
const EXCERPT: usize = 40;
/// More brackets than this are no record. Refused here, before a parser recurses into them.
const BRACKETS: usize = 64;

/// The object that `text` is.
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

/// How an error names the value that it got.
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

/// At most six decimals: the languages do not agree on where an exponent begins.
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

/// The text in quotes, cut if it is long.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

/// The text, cut if it is long.
pub fn cut(text: &str) -> String {
    let mut letters = text.chars();
    let start: String = letters.by_ref().take(EXCERPT).collect();
    if letters.next().is_none() { start } else { format!("{start}…") }
}
