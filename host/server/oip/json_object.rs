//! JSON bodies of the protocol: parsed as elsewhere, with errors that its clients recognize.

use crate::error::{Error, Result};
use crate::server::http;

/// Parses a JSON object. If the text is not JSON, the message contains the words and the position
/// that clients of the protocol know.
pub(super) fn parse_object<'a, T: serde::Deserialize<'a>>(text: &'a [u8], otherwise: &str) -> Result<T> {
    parse_with(text, otherwise, std::marker::PhantomData)
}

/// Parses a JSON object, like `parse_object`, with a seed that reads it.
pub(super) fn parse_with<'a, S: serde::de::DeserializeSeed<'a>>(
    text: &'a [u8],
    otherwise: &str,
    seed: S,
) -> Result<S::Value> {
    http::parse_with(text, otherwise, seed).map_err(|error| match not_json(text) {
        Some(offset) => {
            let message = error.message();
            Error::invalid(format!(
                "{message}: failed to parse the request JSON buffer: Invalid value. at {offset}"
            ))
        }
        None => error,
    })
}

/// Returns the offset at which a text stops being JSON. `None` if it is JSON or empty.
fn not_json(text: &[u8]) -> Option<usize> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let text = http::without_bom(text);
    let error = serde_json::from_slice::<serde::de::IgnoredAny>(text).err()?;
    if error.is_eof() {
        return Some(text.len());
    }
    let lines = text.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1));
    Some(lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1))
}
