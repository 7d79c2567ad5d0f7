//! Texts of messages. An empty text means that the field was not sent.

/// Returns `None` for an empty text.
pub(super) fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
