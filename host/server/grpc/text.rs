//! Texts of messages, in which an empty text means that there is none.

/// Returns `None` for an empty text.
pub(super) fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
