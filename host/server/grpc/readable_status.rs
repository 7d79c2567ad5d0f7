//! The header `grpc-message` in a form that people can read.

use hyper::HeaderMap;
use hyper::header::HeaderValue;

/// Decodes the printable characters of `grpc-message`. tonic encodes spaces and quotes as well,
/// which the protocol does not require; without that, the header itself can be read.
pub(super) fn make_readable(headers: &mut HeaderMap) {
    let Some(value) = headers.get_mut("grpc-message") else { return };
    let readable = readable(value.as_bytes());
    if let Ok(readable) = HeaderValue::from_bytes(&readable) {
        *value = readable;
    }
}

fn readable(encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&first, tail)) = rest.split_first() {
        let decoded = tail.first_chunk::<2>().filter(|_| first == b'%').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        // A header must not begin or end with a space.
        let at_edge = out.is_empty() || tail.len() == 2;
        match decoded {
            Some(byte) if byte.is_ascii_graphic() && byte != b'%' || byte == b' ' && !at_edge => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn only_what_a_header_cannot_hold_stays_encoded() {
        for (encoded, expected) in [
            ("Deadline%20Exceeded:%20%22a%22", "Deadline Exceeded: \"a\""),
            ("100%25%20of%20it", "100%25 of it"),
            ("gr%C3%BC%C3%9Fe%0A", "gr%C3%BC%C3%9Fe%0A"),
            ("%20a%20%20b%20", "%20a  b%20"),
            ("%2", "%2"),
            ("%zz%", "%zz%"),
            ("%7f%7E", "%7f~"),
            ("", ""),
        ] {
            assert_eq!(readable(encoded.as_bytes()), expected.as_bytes(), "{encoded}");
        }
    }
}
