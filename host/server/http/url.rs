//! Parts of a URL, decoded.

use crate::error::{Error, Result};
use serde_json::Value;

/// Decodes one segment of a path.
pub fn decode_segment(segment: &str) -> Result<String> {
    decode("path", segment)
}

/// Decodes a part of the path or the query.
fn decode(part: &str, text: &str) -> Result<String> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let fault = (0..bytes.len())
        .find(|&at| bytes[at] == b'%' && !(is_digit(bytes.get(at + 1)) && is_digit(bytes.get(at + 2))));
    if let Some(at) = fault {
        let shown: String = text[at..].chars().take(3).collect();
        return Err(Error::invalid(format!(
            "the {part} has \"{shown}\", which is not a percent-encoded byte; write a percent sign as %25"
        )));
    }
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::invalid(format!("the {part} is not UTF-8")))
}

/// Reads a value of a query: booleans and numbers are parsed, everything else is text.
pub fn query_value(value: String) -> Value {
    let parsed: Option<Value> = serde_json::from_str(&value).ok();
    parsed.filter(|parsed| parsed.is_boolean() || parsed.is_number()).unwrap_or(Value::String(value))
}

/// Returns the names and values of a query, in order. `no_value` is the value of a name without
/// one.
pub fn query_pairs(query: Option<&str>, no_value: &str) -> impl Iterator<Item = Result<(String, String)>> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, no_value));
        Ok((decode("query", name)?, decode("query", &value.replace('+', " "))?))
    })
}
