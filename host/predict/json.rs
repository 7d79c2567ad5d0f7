//! Decodes JSON to tensors: nested arrays of numbers, booleans or strings. The reverse is `encode`.
//!
//! Elements are written directly into their final bytes, and an error names the index of the
//! element. Integers must fit the datatype; floating-point numbers are rounded once, to the nearest
//! value of the datatype.

use super::alignment::AlignedBuffer;
use super::budget::MemoryBudget;
use super::datatype::Datatype;
use super::elements::{Elements, Refusal};
use super::metadata::TensorSpec;
use super::shape::{MAX_RANK, Shape, element_count, format_shape};
use super::shape_spec::ShapeSpec;
use super::tensor::Tensor;
use crate::error::{Error, Result};
use std::borrow::Cow;

/// The deepest nesting if the shape is given separately, where extra lists around an element are
/// allowed.
const NESTING_MAX: usize = 100;

/// Texts of this size or more are counted before they are read, so that their elements take one
/// allocation of the right size.
const COUNTED_BYTES_MIN: usize = 64 << 10;

/// Reads the JSON text of one input. The shape is that of the nested arrays; where they end in
/// empty lists, the dimensions after those are the spec's, if they are fixed. With `flat_shape`,
/// the elements may also be one flat array of the right length (the Open Inference Protocol allows
/// both). The text must be well-formed JSON, such as that of a `RawValue`.
pub fn decode_tensor(
    spec: &TensorSpec,
    json: &str,
    flat_shape: Option<&[i64]>,
    budget: &mut MemoryBudget,
) -> Result<Tensor> {
    let elements = Elements {
        datatype: spec.datatype,
        data: AlignedBuffer::with_capacity(reserved_bytes(spec.datatype, json).min(budget.left())),
        data_bytes_max: budget.left(),
        is_over: false,
        shape: Shape::new(),
        leaf_depth: None,
        path: Shape::new(),
        depth_max: if flat_shape.is_some() { NESTING_MAX } else { MAX_RANK },
    };
    let mut reader = Reader { text: json, at: 0, elements };
    let read = reader.read();
    let elements = reader.elements;
    if elements.is_over {
        return Err(budget.exceeded(&format!("input \"{}\"", spec.name)).field(&*spec.name));
    }
    if let Err(refusal) = read {
        let place: String = elements.path.iter().take(MAX_RANK).map(|index| format!("[{index}]")).collect();
        let message = format!("input \"{}\"{place}: {refusal}", spec.name);
        return Err(Error::invalid(message).field(&*spec.name));
    }
    let (data, shape) = (elements.data.freeze(), elements.shape);
    budget.charge(TENSOR_BYTES + data.len(), "inputs")?;
    let shape = match flat_shape {
        Some(wanted) if shape.as_slice() != wanted => {
            let count = declared_count(spec, wanted)?;
            let flat = shape.len() == 1 && usize::try_from(shape[0]) == Ok(count);
            let deeper = shape.len() > wanted.len() && without_ones(&shape) == without_ones(wanted);
            let is_empty = ends_early(&shape, wanted) && wanted.starts_with(&shape);
            if !flat && !deeper && !is_empty {
                let message = format!(
                    "Unable to parse 'data': Shape does not match true shape of 'data' field: input \"{}\": shape says \
                     {}, but data has shape {}",
                    spec.name,
                    format_shape(wanted),
                    format_shape(&shape)
                );
                return Err(Error::invalid(message).field(&*spec.name));
            }
            wanted.into()
        }
        Some(_) => shape,
        None => with_dimensions_after_empty_lists(shape, &spec.shape),
    };
    Tensor::new(spec.name.clone(), spec.datatype, shape, data).map_err(|error| error.field(&*spec.name))
}

/// Bytes of a tensor besides its elements.
const TENSOR_BYTES: usize = 2 * size_of::<Tensor>();

/// Returns how many bytes to reserve for the elements: for a long text, the most that it can
/// contain.
fn reserved_bytes(datatype: Datatype, json: &str) -> usize {
    if json.len() < COUNTED_BYTES_MIN {
        return json.len().min(1024);
    }
    let elements = json.bytes().filter(|byte| *byte == b',').count() + 1;
    match datatype.size() {
        Some(size) => elements.saturating_mul(size),
        // A length replaces the quotes and the comma.
        None => json.len() + elements,
    }
}

/// Returns the number of elements of the shape that the sender declares. Fails if it is impossible.
fn declared_count(spec: &TensorSpec, wanted: &[i64]) -> Result<usize> {
    let count = element_count(wanted)
        .map_err(|error| error.context(format!("input \"{}\"", spec.name)).field(&*spec.name))?;
    let bytes = count.checked_mul(spec.datatype.size().unwrap_or(1));
    if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
        let (shape, datatype) = (format_shape(wanted), spec.datatype.as_str());
        let message = format!("byte size overflow for input '{}': {datatype} of shape {shape}", spec.name);
        return Err(Error::invalid(message).field(&*spec.name));
    }
    Ok(count)
}

/// Returns true for a shape that ends in empty lists before the last dimension. Nested lists show
/// no dimension after one of 0: those of `[1,0,64]` are `[[]]`.
fn ends_early(shape: &[i64], dimensions: &[i64]) -> bool {
    shape.last() == Some(&0) && shape.len() < dimensions.len()
}

fn with_dimensions_after_empty_lists(shape: Shape, spec: &ShapeSpec) -> Shape {
    let Some(dimensions) = spec.dimensions().filter(|dimensions| ends_early(&shape, dimensions)) else {
        return shape;
    };
    let (before, after) = dimensions.split_at(shape.len());
    let is_plain = ShapeSpec::from(before).accepts(&shape) && after.iter().all(|&dimension| dimension >= 0);
    if is_plain { shape.iter().chain(after).copied().collect() } else { shape }
}

/// Drops the dimensions of 1: lists around a single element do not matter.
fn without_ones(shape: &[i64]) -> Shape {
    shape.iter().copied().filter(|&dimension| dimension != 1).collect()
}

/// serde_json appends ` at line 1 column 7`, which is relative to the value and so misleads.
fn strip_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}

/// Reads one well-formed JSON value, element by element, without recursion.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    elements: Elements,
}

impl<'a> Reader<'a> {
    fn read(&mut self) -> std::result::Result<(), Refusal> {
        loop {
            match self.peek() {
                Some(b'[') => {
                    self.at += 1;
                    self.elements.open()?;
                    if self.peek() != Some(b']') {
                        continue;
                    }
                    self.at += 1;
                    self.elements.close(0)?;
                }
                Some(b'"') => {
                    let value = self.string()?;
                    self.elements.string(&value)?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    let token = self.word();
                    self.elements.number(token)?;
                }
                Some(b't' | b'f' | b'n') => match self.word() {
                    "true" => self.elements.boolean(true)?,
                    "false" => self.elements.boolean(false)?,
                    "null" => return Err(self.elements.mismatch("null")),
                    _ => return Err(self.malformed()),
                },
                Some(b'{') => return Err(self.elements.mismatch("an object")),
                _ => return Err(self.malformed()),
            }
            if self.ends()? {
                return Ok(());
            }
        }
    }

    /// Closes the lists that end here. Returns true at the end of the text, false if another
    /// element follows.
    fn ends(&mut self) -> std::result::Result<bool, Refusal> {
        loop {
            match (self.peek(), self.elements.path.last_mut()) {
                (None, None) => return Ok(true),
                (Some(b','), Some(index)) => {
                    self.at += 1;
                    *index += 1;
                    return Ok(false);
                }
                (Some(b']'), Some(index)) => {
                    self.at += 1;
                    let count = *index + 1;
                    self.elements.close(count)?;
                }
                _ => return Err(self.malformed()),
            }
        }
    }

    /// Returns the next byte that is not whitespace.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                next => return next.copied(),
            }
        }
    }

    /// Reads a number or a literal: letters, digits, signs and points.
    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+');
        let word = &rest[..rest.as_bytes().iter().take_while(|byte| inside(byte)).count()];
        self.at += word.len();
        word
    }

    /// Reads a string and returns it without its quotes.
    fn string(&mut self) -> std::result::Result<Cow<'a, str>, Refusal> {
        let rest = &self.text[self.at..];
        let (mut end, mut escaped) = (1, false);
        loop {
            match rest.as_bytes().get(end) {
                Some(b'"') => break,
                Some(b'\\') => (end, escaped) = (end + 2, true),
                Some(_) => end += 1,
                None => return Err(self.malformed()),
            }
        }
        self.at += end + 1;
        if escaped {
            let read = serde_json::from_str::<String>(&rest[..=end]);
            return read.map(Cow::from).map_err(|error| strip_position(&error));
        }
        Ok(rest[1..end].into())
    }

    /// Returns the error of a text that is not valid JSON.
    fn malformed(&self) -> Refusal {
        match serde_json::from_str::<serde::de::IgnoredAny>(self.text) {
            Err(error) => strip_position(&error),
            Ok(_) => "expected nested arrays of elements".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::predict::encode_tensor;

    fn decode(datatype: Datatype, json: &str) -> Result<Tensor> {
        let spec = TensorSpec { name: "x".into(), datatype, shape: ShapeSpec::AnyRank, optional: false };
        decode_tensor(&spec, json, None, &mut MemoryBudget::new(1 << 20))
    }

    fn encode(tensor: &Tensor) -> String {
        let mut out = Vec::new();
        encode_tensor(tensor, false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_round_trip() {
        for (datatype, json) in [
            (Datatype::Fp32, "[[1.5,-2.0],[0.1,3e-8]]"),
            (Datatype::Fp64, "[[[0.1],[2.0]]]"),
            (Datatype::Int64, "[9223372036854775807,-9223372036854775808]"),
            (Datatype::Uint64, "[18446744073709551615]"),
            (Datatype::Int8, "[-128,127]"),
            (Datatype::Bool, "[true,false]"),
            (Datatype::Bytes, r#"["a\"b","","ü"]"#),
            (Datatype::Fp16, "[0.5]"),
            (Datatype::Fp32, "7.0"),
            (Datatype::Fp32, "[]"),
            (Datatype::Fp32, "[[],[]]"),
        ] {
            assert_eq!(encode(&decode(datatype, json).unwrap()), json);
        }
    }

    #[test]
    fn wrong_values_are_refused_with_their_place() {
        for (datatype, json, expected) in [
            (
                Datatype::Fp32,
                "[[1,2],[3]]",
                "input \"x\"[1]: lists of unequal length: expected 2 elements, got 1",
            ),
            (
                Datatype::Fp32,
                "[[1,\"a\"]]",
                "input \"x\"[0][1]: expected a number for FP32, got the string \"a\"",
            ),
            (Datatype::Fp32, "[1,[2]]", "input \"x\"[1]: expected an element, got a list"),
            (Datatype::Fp32, "[[1],2]", "input \"x\"[1]: expected a list, got an element"),
            (Datatype::Fp32, "[[],2]", "input \"x\"[1]: expected a list, got an element"),
            (Datatype::Fp32, "[1e39]", "input \"x\"[0]: 1e39 is out of range for FP32"),
            (Datatype::Fp64, "[1e999]", "input \"x\"[0]: number out of range"),
            (Datatype::Int32, "[2147483648]", "out of range for INT32"),
            (Datatype::Int32, "[1.5]", "expected a whole number for INT32, got the number 1.5"),
            (
                Datatype::Int32,
                "[1208925819614629174706176]",
                "1.2089258196146292e24 is out of range for INT32 (-2147483648 to 2147483647)",
            ),
            (
                Datatype::Uint64,
                "[18446744073709551616]",
                "1.8446744073709552e19 is out of range for UINT64 (0 to 18446744073709551615)",
            ),
            (Datatype::Int64, "[-1e19]", "-1e19 is out of range for INT64"),
            (Datatype::Int32, "[1e3]", "expected a whole number for INT32, got the number 1000.0"),
            (Datatype::Bool, "[1e30]", "expected true or false for BOOL, got the number 1e30"),
            (Datatype::Uint8, "[-1]", "out of range for UINT8"),
            (Datatype::Bool, "[1]", "expected true or false for BOOL, got 1"),
            (Datatype::Bytes, "[1]", "expected a string for BYTES, got 1"),
            (Datatype::Fp32, "[null]", "got null"),
            (Datatype::Fp32, "[{\"a\":1}]", "got an object"),
            (Datatype::Fp32, "[NaN]", "expected value"),
        ] {
            let error = decode(datatype, json).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput);
            assert!(error.message().contains(expected), "{json}: {error}");
        }
        let long = format!("[\"{}\"]", "\u{7f}".repeat(1 << 20));
        assert!(decode(Datatype::Fp32, &long).unwrap_err().message().len() < 1_000);
        let deep = "[".repeat(100_000);
        assert!(decode(Datatype::Fp32, &deep).unwrap_err().message().contains("nested more than 16 deep"));
    }

    #[test]
    fn tensors_of_one_request_share_its_budget() {
        let spec =
            |datatype| TensorSpec { name: "x".into(), datatype, shape: ShapeSpec::AnyRank, optional: false };
        // Two bytes of JSON become eight of FP64.
        let zeros = format!("[{}0]", "0,".repeat(200_000));
        let mut budget = MemoryBudget::new(1 << 20);
        let tensor = decode_tensor(&spec(Datatype::Fp64), &zeros, None, &mut budget).unwrap();
        assert_eq!(tensor.count(), 200_001);
        assert!(budget.left() < (4 << 20) - 1_600_000);
        decode_tensor(&spec(Datatype::Fp64), &zeros, None, &mut budget).unwrap();
        let error = decode_tensor(&spec(Datatype::Fp64), &zeros, None, &mut budget).unwrap_err();
        assert_eq!((error.kind(), error.field_name()), (Kind::TooLarge, Some("x")));
        assert!(error.message().contains("input \"x\" would take over 4 MB"), "{error}");
        decode_tensor(&spec(Datatype::Int8), &zeros, None, &mut budget).unwrap();
        let texts = format!("[{}\"\"]", "\"\",".repeat(400_000));
        let error = decode_tensor(&spec(Datatype::Bytes), &texts, None, &mut budget).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        let lists = format!("[{}[]]", "[],".repeat(400_000));
        let empty =
            decode_tensor(&spec(Datatype::Fp64), &lists, None, &mut MemoryBudget::new(1 << 20)).unwrap();
        assert_eq!(empty.shape(), [400_001, 0]);
    }

    #[test]
    fn a_long_text_is_read_into_one_allocation() {
        let json = format!("[{}1.5]", "0,-2.5e-3,".repeat(20_000));
        let tensor = decode(Datatype::Fp32, &json).unwrap();
        let room = reserved_bytes(Datatype::Fp32, &json);
        assert_eq!((tensor.data().len(), room), (40_001 * 4, 40_001 * 4));
        let texts = format!("[{}\"\\u00e9\"]", "\"a\",".repeat(40_000));
        assert!(
            decode(Datatype::Bytes, &texts).unwrap().data().len()
                <= super::reserved_bytes(Datatype::Bytes, &texts)
        );
    }
}
