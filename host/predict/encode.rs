//! Encodes tensors as JSON: nested arrays of numbers, booleans or strings, or one flat array.
//!
//! A value that JSON cannot represent is an error with its index. It is the caller's error: the
//! answer exists, and the caller can request it in another form.

use super::datatype::Datatype;
use super::shape::{Shape, format_shape};
use super::tensor::Tensor;
use crate::error::{Error, Result};
use std::fmt::{self, Write as _};
use std::io::Write as _;

/// The most empty lists that one tensor may become.
const EMPTY_LISTS_MAX: i64 = 1_000_000;

/// Appends the elements of a tensor as nested arrays of its shape, or as one array if `flat`.
/// Refuses what JSON cannot represent: NaN, infinities, BYTES that are not UTF-8.
pub fn encode_tensor(tensor: &Tensor, flat: bool, out: &mut Vec<u8>) -> Result<()> {
    let count = tensor.count();
    let flat_shape = [count as i64];
    if count == 0 {
        return encode_empty(tensor.name(), if flat { &flat_shape } else { tensor.shape() }, out);
    }
    let mut nesting = Nesting::new(if flat { &flat_shape } else { tensor.shape() }, out);
    let data = tensor.data();
    macro_rules! each {
        ($size:literal, $value:ident => $write:expr) => {
            for (index, chunk) in data.chunks_exact($size).enumerate() {
                let $value = chunk.try_into().expect("invariant: chunks have this size");
                let out = nesting.element();
                let written: std::result::Result<(), String> = $write(out);
                written.map_err(|what| unsayable(tensor, index, &what))?;
            }
        };
    }
    macro_rules! numbers {
        ($size:literal, $rust:ty) => {
            each!($size, bytes => |out: &mut Vec<u8>| number(<$rust>::from_le_bytes(bytes), out))
        };
    }
    macro_rules! floats {
        ($size:literal, $rust:ty) => {
            each!($size, bytes => |out: &mut Vec<u8>| float(<$rust>::from_le_bytes(bytes), out))
        };
    }
    match tensor.datatype() {
        Datatype::Bool => each!(1, bytes => |out: &mut Vec<u8>| {
            let [byte]: [u8; 1] = bytes;
            out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
            Ok(())
        }),
        Datatype::Uint8 => numbers!(1, u8),
        Datatype::Uint16 => numbers!(2, u16),
        Datatype::Uint32 => numbers!(4, u32),
        Datatype::Uint64 => numbers!(8, u64),
        Datatype::Int8 => numbers!(1, i8),
        Datatype::Int16 => numbers!(2, i16),
        Datatype::Int32 => numbers!(4, i32),
        Datatype::Int64 => numbers!(8, i64),
        Datatype::Fp32 => floats!(4, f32),
        Datatype::Fp64 => floats!(8, f64),
        Datatype::Fp16 => {
            each!(2, bytes => |out: &mut Vec<u8>| float(half::f16::from_le_bytes(bytes).to_f32(), out));
        }
        Datatype::Bf16 => {
            each!(2, bytes => |out: &mut Vec<u8>| float(half::bf16::from_le_bytes(bytes).to_f32(), out));
        }
        Datatype::Bytes => {
            for (index, element) in tensor.elements().enumerate() {
                let text =
                    std::str::from_utf8(element).map_err(|_| unsayable(tensor, index, "is not UTF-8"))?;
                serde_json::to_writer(nesting.element(), text).expect("invariant: writing to memory");
            }
        }
    }
    nesting.finish();
    Ok(())
}

fn unsayable(tensor: &Tensor, index: usize, what: &str) -> Error {
    let mut place = String::new();
    let mut rest = index as i64;
    for &dimension in tensor.shape().iter().rev() {
        let mut outer = String::new();
        write!(outer, "[{}]", rest % dimension).expect("invariant: writing to memory");
        place.insert_str(0, &outer);
        rest /= dimension;
    }
    Error::invalid(format!("output \"{}\"{place} {what}, which JSON cannot carry", tensor.name()))
}

fn number(value: impl fmt::Display, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    write!(out, "{value}").expect("invariant: writing to memory");
    Ok(())
}

trait Float: serde::Serialize + fmt::Display + Copy {
    fn finite(self) -> bool;
}

impl Float for f32 {
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Float for f64 {
    fn finite(self) -> bool {
        self.is_finite()
    }
}

/// Writes the shortest digits that read back as the same value.
fn float(value: impl Float, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    if !value.finite() {
        return Err(format!("is {value}"));
    }
    serde_json::to_writer(out, &value).expect("invariant: writing to memory");
    Ok(())
}

/// Writes the brackets and commas between elements.
struct Nesting<'a> {
    out: &'a mut Vec<u8>,
    shape: &'a [i64],
    /// The number of elements below one item of each dimension.
    strides: Shape,
    index: i64,
}

impl<'a> Nesting<'a> {
    fn new(shape: &'a [i64], out: &'a mut Vec<u8>) -> Self {
        let mut strides: Shape = shape.iter().map(|_| 1).collect();
        for dimension in (1..shape.len()).rev() {
            strides[dimension - 1] = strides[dimension] * shape[dimension];
        }
        Nesting { out, shape, strides, index: 0 }
    }

    fn element(&mut self) -> &mut Vec<u8> {
        let starting = if self.index == 0 {
            self.shape.len()
        } else {
            let ended = (0..self.shape.len())
                .filter(|&d| self.index % (self.strides[d] * self.shape[d]) == 0)
                .count();
            self.out.extend(std::iter::repeat_n(b']', ended));
            self.out.push(b',');
            ended
        };
        self.out.extend(std::iter::repeat_n(b'[', starting));
        self.index += 1;
        self.out
    }

    fn finish(self) {
        self.out.extend(std::iter::repeat_n(b']', self.shape.len()));
    }
}

/// The shape of a tensor without elements may describe more lists than fit into memory.
fn encode_empty(name: &str, shape: &[i64], out: &mut Vec<u8>) -> Result<()> {
    let empty = shape.iter().position(|&dimension| dimension == 0).expect("invariant: there are no elements");
    let lists = shape[..empty].iter().try_fold(1_i64, |lists, &dimension| lists.checked_mul(dimension));
    if lists.is_none_or(|lists| lists > EMPTY_LISTS_MAX) {
        let shape = format_shape(shape);
        let message = format!(
            "output \"{name}\" of shape {shape} has no elements but more than {EMPTY_LISTS_MAX} lists"
        );
        return Err(Error::invalid(message));
    }
    write_empty(&shape[..=empty], out);
    Ok(())
}

fn write_empty(shape: &[i64], out: &mut Vec<u8>) {
    out.push(b'[');
    if let [count, inner @ ..] = shape {
        for index in 0..if inner.is_empty() { 0 } else { *count } {
            if index > 0 {
                out.push(b',');
            }
            write_empty(inner, out);
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_say_is_an_error_with_its_place() {
        let data = [1.0_f32, f32::NAN].into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>();
        let tensor = Tensor::new("y", Datatype::Fp32, Shape::from_slice(&[1, 2]), data.into()).unwrap();
        let error = encode_tensor(&tensor, false, &mut Vec::new()).unwrap_err();
        assert_eq!(error.message(), "output \"y\"[0][1] is NaN, which JSON cannot carry");
    }

    #[test]
    fn an_empty_tensor_cannot_make_a_huge_text() {
        let empty =
            |shape: &[i64]| Tensor::new("y", Datatype::Fp32, shape.into(), Vec::new().into()).unwrap();
        let mut out = Vec::new();
        encode_tensor(&empty(&[2, 0, 1 << 40, 1 << 40]), false, &mut out).unwrap();
        assert_eq!(out, b"[[],[]]");
        for shape in [&[20_000_000, 0][..], &[5_000, 4_000, 0], &[1 << 40, 1 << 20, 0]] {
            let error = encode_tensor(&empty(shape), false, &mut Vec::new()).unwrap_err();
            let start = format!("output \"y\" of shape {} has no elements but ", format_shape(shape));
            assert!(error.message().starts_with(&start), "{error}");
        }
    }
}
