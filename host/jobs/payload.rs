//! Inputs and results as bytes, for stores that outlive the process.
//!
//! The first byte is the form: JSON text, bytes with a content type, or tensors. Numbers are
//! little-endian.

use crate::error::{Error, Result};
use crate::predict::{Datatype, JsonText, Payload, Shape, Tensor};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const JSON: u8 = 0;
const BYTES: u8 = 1;
const TENSORS: u8 = 2;

/// Returns the bytes that a payload takes in a store.
pub(super) fn stored_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Json(text) => text.as_bytes().len(),
        Payload::Bytes { content_type, data } => content_type.len() + data.len(),
        Payload::Tensors(tensors) => tensors
            .iter()
            .map(|tensor| tensor.data().len() + tensor.name().len() + 8 * tensor.shape().len())
            .sum(),
    }
}

/// Returns the payload as bytes behind a prefix.
pub(super) fn encode(payload: &Payload, prefix: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(prefix.len() + stored_bytes(payload) + 64);
    out.put_slice(prefix);
    match payload {
        Payload::Json(text) => {
            out.put_u8(JSON);
            out.put_slice(text.as_bytes());
        }
        Payload::Bytes { content_type, data } => {
            out.put_u8(BYTES);
            put_text(&mut out, content_type);
            out.put_slice(data);
        }
        Payload::Tensors(tensors) => {
            out.put_u8(TENSORS);
            out.put_u32_le(u32::try_from(tensors.len()).expect("invariant: a request bounds its tensors"));
            for tensor in tensors {
                put_text(&mut out, tensor.name());
                put_text(&mut out, tensor.datatype().as_str());
                out.put_u8(u8::try_from(tensor.shape().len()).expect("invariant: ranks are small"));
                tensor.shape().iter().for_each(|size| out.put_i64_le(*size));
                out.put_u64_le(tensor.data().len() as u64);
                out.put_slice(tensor.data());
            }
        }
    }
    out.freeze()
}

/// # Errors
/// `failed` if these bytes were not made by `encode`.
pub(super) fn decode(mut bytes: Bytes) -> Result<Payload> {
    let bytes = &mut bytes;
    match take(bytes, 1)?[0] {
        JSON => JsonText::parse(std::mem::take(bytes)).map(Payload::Json).map_err(|_| damaged()),
        BYTES => Ok(Payload::Bytes { content_type: text(bytes)?, data: std::mem::take(bytes) }),
        TENSORS => {
            let count = take(bytes, 4)?.get_u32_le();
            (0..count).map(|_| tensor(bytes)).collect::<Result<Vec<_>>>().map(Payload::Tensors)
        }
        _ => Err(damaged()),
    }
}

fn tensor(bytes: &mut Bytes) -> Result<Tensor> {
    let (name, datatype) = (text(bytes)?, text(bytes)?);
    let datatype = Datatype::parse(&datatype).ok_or_else(damaged)?;
    let rank = take(bytes, 1)?[0];
    let shape: Shape = (0..rank).map(|_| Ok(take(bytes, 8)?.get_i64_le())).collect::<Result<_>>()?;
    let length = usize::try_from(take(bytes, 8)?.get_u64_le()).map_err(|_| damaged())?;
    Tensor::new(name, datatype, shape, take(bytes, length)?).map_err(|_| damaged())
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32_le(u32::try_from(text.len()).expect("invariant: names and types are short"));
    out.put_slice(text.as_bytes());
}

fn text(bytes: &mut Bytes) -> Result<String> {
    let length = take(bytes, 4)?.get_u32_le() as usize;
    String::from_utf8(take(bytes, length)?.to_vec()).map_err(|_| damaged())
}

fn take(bytes: &mut Bytes, length: usize) -> Result<Bytes> {
    if bytes.len() < length {
        return Err(damaged());
    }
    Ok(bytes.split_to(length))
}

fn damaged() -> Error {
    Error::failed("the stored data are damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Payload {
        Payload::Json(JsonText::parse(Bytes::from_static(text.as_bytes())).unwrap())
    }

    fn examples() -> Vec<Payload> {
        let tensor = |name: &str, datatype, shape: &[i64], data: &'static [u8]| {
            Tensor::new(name, datatype, shape.iter().copied().collect(), Bytes::from_static(data)).unwrap()
        };
        vec![
            text("{\"a\":[1,2.5]}"),
            Payload::Bytes { content_type: "image/jpeg".into(), data: Bytes::from_static(b"\xff\xd8\x00") },
            Payload::Bytes { content_type: String::new(), data: Bytes::new() },
            Payload::Tensors(vec![
                tensor("x", Datatype::Fp32, &[1, 2], &[0, 0, 128, 63, 0, 0, 0, 64]),
                tensor("s", Datatype::Bytes, &[1], &[2, 0, 0, 0, b'o', b'k']),
                tensor("none", Datatype::Int64, &[0, 3], &[]),
            ]),
            Payload::Tensors(Vec::new()),
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for payload in examples() {
            let decoded = decode(encode(&payload, &[])).unwrap();
            assert_eq!(std::mem::discriminant(&decoded), std::mem::discriminant(&payload));
            assert_eq!(encode(&decoded, &[]), encode(&payload, &[]));
        }
    }

    #[test]
    fn no_truncated_or_changed_bytes_cause_a_panic() {
        for payload in examples() {
            let bytes = encode(&payload, &[]);
            for length in 0..bytes.len() {
                let _ = decode(bytes.slice(..length));
            }
            for place in 0..bytes.len() {
                for bit in 0..8 {
                    let mut changed = bytes.to_vec();
                    changed[place] ^= 1 << bit;
                    let _ = decode(changed.into());
                }
            }
        }
        assert!(decode(Bytes::from_static(&[9, 1])).is_err());
        assert!(decode(Bytes::new()).is_err());
    }
}
