//! A text within a body, which shares the body's memory.

use bytes::Bytes;
use std::borrow::Cow;

/// A text of a body. It is copied only if the parser had to unescape it.
#[derive(Clone, Debug)]
pub(in crate::server) struct BodyText(Bytes);

impl BodyText {
    pub fn of(body: &Bytes, text: Cow<'_, str>) -> Self {
        BodyText(match text {
            Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        })
    }
}

impl std::ops::Deref for BodyText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("invariant: it was a text")
    }
}
