//! JSON to tensors: nested arrays of numbers, booleans or strings. The way back is `encode`.
//!
//! Elements are written straight into their final bytes, and a wrong one is named with its place. Taken is
//! what the datatype can hold exactly or by rounding (FP types), everything else is refused.

use super::MemoryBudget;
use super::metadata::TensorSpec;
use super::tensor::{Datatype, MAX_RANK, Shape, Tensor, append_element, format_shape};
use crate::error::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use std::fmt;

/// Lists in lists, where the shape is said beside them and extra ones around an element do no harm. Below what the
/// JSON reader itself recurses.
const NESTING_MAX: usize = 100;

/// Texts from this size on are counted before they are read, so that their elements need one allocation and no more
/// than they take.
const COUNTED_BYTES_MIN: usize = 64 << 10;

/// Reads the JSON text of one input. The shape is that of the nested arrays; with `flat_shape` given, the
/// elements may also come as one flat array of as many elements (the Open Inference Protocol allows both).
pub fn decode_tensor(
    spec: &TensorSpec,
    json: &str,
    flat_shape: Option<&[i64]>,
    budget: &mut MemoryBudget,
) -> Result<Tensor> {
    let mut elements = Elements {
        datatype: spec.datatype,
        data: Vec::with_capacity(room(spec.datatype, json).min(budget.left())),
        data_bytes_max: budget.left(),
        is_over: false,
        shape: Shape::new(),
        leaf_depth: None,
        path: Shape::new(),
        depth_max: if flat_shape.is_some() { NESTING_MAX } else { MAX_RANK },
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = Node { elements: &mut elements, depth: 0 }.deserialize(&mut deserializer);
    if elements.is_over {
        return Err(budget.exceeded(&format!("input \"{}\"", spec.name)).field(&*spec.name));
    }
    if let Err(error) = read.and_then(|()| deserializer.end()) {
        let place: String = elements.path.iter().take(MAX_RANK).map(|index| format!("[{index}]")).collect();
        let message = format!("input \"{}\"{place}: {}", spec.name, strip_position(&error));
        return Err(Error::invalid(message).field(&*spec.name));
    }
    let (data, shape) = (elements.data, elements.shape);
    budget.charge(TENSOR_BYTES + data.len(), "inputs")?;
    let shape = match flat_shape {
        Some(wanted) if shape.as_slice() != wanted => {
            let count = said_count(spec, wanted)?;
            let flat = shape.len() == 1 && usize::try_from(shape[0]) == Ok(count);
            let deeper = shape.len() > wanted.len() && without_ones(&shape) == without_ones(wanted);
            if !flat && !deeper {
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
        _ => shape,
    };
    Tensor::new(spec.name.clone(), spec.datatype, shape, data.into())
        .map_err(|error| error.field(&*spec.name))
}

/// Bytes of a tensor besides its elements.
const TENSOR_BYTES: usize = 2 * size_of::<Tensor>();

/// Bytes for the elements of a text: for those of a long one as many as there can be.
fn room(datatype: Datatype, json: &str) -> usize {
    if json.len() < COUNTED_BYTES_MIN {
        return json.len().min(1024);
    }
    let elements = json.bytes().filter(|byte| *byte == b',').count() + 1;
    match datatype.size() {
        Some(size) => elements.saturating_mul(size),
        // A length stands in place of quotes and a comma.
        None => json.len() + elements,
    }
}

/// How many elements the sender says that there are, if so many can be.
fn said_count(spec: &TensorSpec, wanted: &[i64]) -> Result<usize> {
    let count = super::tensor::element_count(wanted)
        .map_err(|error| error.context(format!("input \"{}\"", spec.name)).field(&*spec.name))?;
    let bytes = count.checked_mul(spec.datatype.size().unwrap_or(1));
    if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
        let (shape, datatype) = (format_shape(wanted), spec.datatype.as_str());
        let message = format!("byte size overflow for input '{}': {datatype} of shape {shape}", spec.name);
        return Err(Error::invalid(message).field(&*spec.name));
    }
    Ok(count)
}

/// Lists around one element say nothing about a shape.
fn without_ones(shape: &[i64]) -> Shape {
    shape.iter().copied().filter(|&dimension| dimension != 1).collect()
}

/// serde_json appends ` at line 1 column 7`, which is a place inside the value and so misleads.
fn strip_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}

struct Elements {
    datatype: Datatype,
    data: Vec<u8>,
    data_bytes_max: usize,
    /// There are more bytes than that.
    is_over: bool,
    shape: Shape,
    /// The depth at which elements stand, once the first was seen.
    leaf_depth: Option<usize>,
    /// Where the reader is, for errors.
    path: Shape,
    depth_max: usize,
}

struct Node<'a> {
    elements: &'a mut Elements,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_> {
    fn leaf<E: serde::de::Error>(&mut self) -> std::result::Result<(), E> {
        match self.elements.leaf_depth {
            None if self.elements.shape.len() > self.depth => {
                Err(E::custom("expected a list, got an element"))
            }
            None => {
                self.elements.leaf_depth = Some(self.depth);
                Ok(())
            }
            Some(depth) if depth == self.depth => Ok(()),
            Some(_) => Err(E::custom("expected a list, got an element")),
        }?;
        // Said in other words than these.
        if self.elements.is_over { Err(E::custom("over the budget")) } else { Ok(()) }
    }

    /// Appends an element of this size, if there is room for it.
    fn put(&mut self, bytes: &[u8]) {
        let Elements { data, data_bytes_max, is_over, .. } = &mut *self.elements;
        if bytes.len() > *data_bytes_max - data.len() {
            *is_over = true;
        } else {
            data.extend_from_slice(bytes);
        }
    }

    fn mismatch<E: serde::de::Error>(&self, got: impl fmt::Display) -> E {
        let wanted = match self.elements.datatype {
            Datatype::Bool => "true or false for BOOL".to_owned(),
            Datatype::Bytes => "a string for BYTES".to_owned(),
            datatype if is_float(datatype) => format!("a number for {}", datatype.as_str()),
            datatype => format!("a whole number for {}", datatype.as_str()),
        };
        // What clients of the Open Inference Protocol know.
        let known = match self.elements.datatype {
            Datatype::Bool => ": attempt to access JSON non-boolean as boolean",
            Datatype::Bytes => ": attempt to access JSON non-string as string",
            _ => "",
        };
        E::custom(format_args!("expected {wanted}, got {got}{known}"))
    }

    fn integer<E: serde::de::Error>(&mut self, value: i128) -> std::result::Result<(), E> {
        macro_rules! put {
            ($($datatype:ident: $rust:ty),*) => {
                match self.elements.datatype {
                    $(Datatype::$datatype => <$rust>::try_from(value).map(|value| self.put(&value.to_le_bytes())),)*
                    _ => return Err(self.mismatch(value)),
                }
            };
        }
        let put = put!(
            Uint8: u8, Uint16: u16, Uint32: u32, Uint64: u64, Int8: i8, Int16: i16, Int32: i32, Int64: i64
        );
        put.map_err(|_| {
            let (name, range) = (self.elements.datatype.as_str(), range(self.elements.datatype));
            E::custom(format_args!("{value} is out of range for {name} ({})", range.unwrap_or_default()))
        })
    }

    fn float<E: serde::de::Error>(&mut self, value: f64) -> std::result::Result<(), E> {
        let finite = match self.elements.datatype {
            Datatype::Fp64 => {
                self.put(&value.to_le_bytes());
                true
            }
            Datatype::Fp32 => {
                self.put(&(value as f32).to_le_bytes());
                (value as f32).is_finite()
            }
            Datatype::Fp16 => {
                self.put(&half::f16::from_f64(value).to_le_bytes());
                half::f16::from_f64(value).is_finite()
            }
            Datatype::Bf16 => {
                self.put(&half::bf16::from_f64(value).to_le_bytes());
                half::bf16::from_f64(value).is_finite()
            }
            datatype => {
                // Larger whole numbers than 64 bits hold are read as this.
                return Err(match range(datatype).filter(|_| value.abs() >= i64::MAX as f64) {
                    Some(range) => E::custom(format_args!(
                        "{value:e} is out of range for {} ({range})",
                        datatype.as_str()
                    )),
                    None => self.mismatch(format_args!("the number {value:?}")),
                });
            }
        };
        if finite {
            return Ok(());
        }
        let name = self.elements.datatype.as_str();
        Err(E::custom(format_args!("{value:e} is out of range for {name}")))
    }
}

/// What a datatype of whole numbers holds.
fn range(datatype: Datatype) -> Option<String> {
    macro_rules! range {
        ($($datatype:ident: $rust:ty),*) => {
            match datatype {
                $(Datatype::$datatype => Some(format!("{} to {}", <$rust>::MIN, <$rust>::MAX)),)*
                _ => None,
            }
        };
    }
    range!(Uint8: u8, Uint16: u16, Uint32: u32, Uint64: u64, Int8: i8, Int16: i16, Int32: i32, Int64: i64)
}

fn is_float(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64)
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nested arrays of elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let Node { elements, depth } = self;
        if depth >= elements.depth_max {
            let limit = elements.depth_max;
            return Err(A::Error::custom(format_args!(
                "lists are nested more than {limit} deep: JSON nesting depth exceeds maximum allowed limit ({limit})"
            )));
        }
        if elements.leaf_depth.is_some_and(|leaf| depth >= leaf) {
            return Err(A::Error::custom("expected an element, got a list"));
        }
        let known = elements.shape.get(depth).copied();
        if known.is_none() {
            elements.shape.push(-1);
        }
        elements.path.push(0);
        let mut count = 0_i64;
        while seq.next_element_seed(Node { elements, depth: depth + 1 })?.is_some() {
            count += 1;
            elements.path[depth] = count;
        }
        elements.path.pop();
        match known.filter(|&known| known >= 0) {
            Some(known) if known != count => Err(A::Error::custom(format_args!(
                "lists of unequal length: expected {known} elements, got {count}"
            ))),
            _ => {
                elements.shape[depth] = count;
                Ok(())
            }
        }
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> std::result::Result<(), E> {
        self.leaf()?;
        if self.elements.datatype != Datatype::Bool {
            return Err(self.mismatch(value));
        }
        self.put(&[u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(mut self, value: u64) -> std::result::Result<(), E> {
        self.leaf()?;
        if is_float(self.elements.datatype) { self.float(value as f64) } else { self.integer(value.into()) }
    }

    fn visit_i64<E: serde::de::Error>(mut self, value: i64) -> std::result::Result<(), E> {
        self.leaf()?;
        if is_float(self.elements.datatype) { self.float(value as f64) } else { self.integer(value.into()) }
    }

    fn visit_f64<E: serde::de::Error>(mut self, value: f64) -> std::result::Result<(), E> {
        self.leaf()?;
        self.float(value)
    }

    fn visit_str<E: serde::de::Error>(mut self, value: &str) -> std::result::Result<(), E> {
        self.leaf()?;
        if self.elements.datatype != Datatype::Bytes {
            let start: String = value.chars().take(20).collect();
            return Err(self.mismatch(format_args!("the string {start:?}")));
        }
        if 4 + value.len() > self.elements.data_bytes_max - self.elements.data.len() {
            self.elements.is_over = true;
            return Ok(());
        }
        append_element(&mut self.elements.data, value.as_bytes()).map_err(E::custom)
    }

    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<(), E> {
        Err(self.mismatch("null"))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _map: A) -> std::result::Result<(), A::Error> {
        Err(self.mismatch("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::predict::encode_tensor;

    fn decode(datatype: Datatype, json: &str) -> Result<Tensor> {
        let spec = TensorSpec { name: "x".into(), datatype, shape: Shape::new(), optional: false };
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
        let spec = |datatype| TensorSpec { name: "x".into(), datatype, shape: Shape::new(), optional: false };
        // Two bytes of JSON are eight of FP64.
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
        let room = room(Datatype::Fp32, &json);
        assert_eq!((tensor.data().len(), room), (40_001 * 4, 40_001 * 4));
        let texts = format!("[{}\"\\u00e9\"]", "\"a\",".repeat(40_000));
        assert!(
            decode(Datatype::Bytes, &texts).unwrap().data().len() <= super::room(Datatype::Bytes, &texts)
        );
    }
}
