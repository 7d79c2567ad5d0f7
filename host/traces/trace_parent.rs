//! The headers of W3C Trace Context: `traceparent` and `tracestate`.

use super::ids::{SpanId, TraceId, append_hex, parse_hex};
use std::sync::Arc;

/// The longest `tracestate` that is passed on, as the specification asks for at least.
const STATE_BYTES_MAX: usize = 512;

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: TraceId,
    pub span: SpanId,
    pub is_sampled: bool,
}

impl TraceParent {
    /// Parses a header. `None` if it is not valid.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Later versions may have more parts.
        if version == "ff" || version.len() != 2 || version == "00" && parts.next().is_some() {
            return None;
        }
        let is_hex =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if flags.len() != 2 || !is_hex(flags) || !is_hex(version) {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(TraceParent { trace: parse_hex(trace)?, span: parse_hex(span)?, is_sampled: flags & 1 == 1 })
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        append_hex(&mut text, &self.trace);
        text.push('-');
        append_hex(&mut text, &self.span);
        text.push_str(if self.is_sampled { "-01" } else { "-00" });
        formatter.write_str(&text)
    }
}

/// `tracestate`, which is passed on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceState(pub Arc<str>);

impl TraceState {
    /// Returns a header that is short enough.
    pub fn of(header: &str) -> Option<Self> {
        (1..=STATE_BYTES_MAX).contains(&header.len()).then(|| TraceState(header.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed_strictly_and_written_back() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = TraceParent::parse(header).unwrap();
        assert!(parent.is_sampled);
        assert_eq!(parent.to_string(), header);
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more";
        assert!(!TraceParent::parse(later).unwrap().is_sampled);
        for header in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
            "00-0af7651916cd43dd8448eb211c80319ä-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(header), None, "{header}");
        }
    }
}
