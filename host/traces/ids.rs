//! Ids of traces and spans: random, and never 0.

use std::fmt::Write;

pub type TraceId = [u8; 16];
pub type SpanId = [u8; 8];

pub fn trace_id() -> TraceId {
    fastrand::u128(1..).to_be_bytes()
}

pub fn span_id() -> SpanId {
    fastrand::u64(1..).to_be_bytes()
}

/// Appends an id in lower-case hex.
pub fn append_hex(text: &mut String, id: &[u8]) {
    for byte in id {
        let _ = write!(text, "{byte:02x}");
    }
}

/// Parses an id in lower-case hex. `None` for other text and for 0.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    id.iter().any(|byte| *byte != 0).then_some(id)
}
