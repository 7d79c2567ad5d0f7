//! Parts of a URL, decoded.

use crate::error::{Error, Result};

/// Decodes one segment of a path, or one name or value of a query.
pub fn decode_segment(segment: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::invalid("the path is not UTF-8"))
}

/// Returns the names and values of a query, in order. `no_value` is the value of a name without
/// one.
pub fn query_pairs(query: Option<&str>, no_value: &str) -> impl Iterator<Item = Result<(String, String)>> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, no_value));
        Ok((decode_segment(name)?, decode_segment(&value.replace('+', " "))?))
    })
}
