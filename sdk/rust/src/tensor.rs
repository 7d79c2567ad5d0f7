//! Tensors from slices and back: `tensor::fp32("input", &[1, 18], &features)`, `tensor.to_f32()`.
//!
//! Each datatype has a function that creates a tensor and one that copies its elements. Rust has no
//! stable types for `FP16` and `BF16`; their elements are `f32` here, and are rounded.
//!
//! | datatype | create | read | element |
//! |---|---|---|---|
//! | `BOOL` | [`boolean`] | [`Tensor::to_bool`] | `bool` |
//! | `UINT8`, `UINT16`, `UINT32`, `UINT64` | [`uint8`], [`uint16`], [`uint32`], [`uint64`] | [`Tensor::to_u8`], … | `u8`, … |
//! | `INT8`, `INT16`, `INT32`, `INT64` | [`int8`], [`int16`], [`int32`], [`int64`] | [`Tensor::to_i8`], … | `i8`, … |
//! | `FP16`, `BF16` | [`fp16`], [`bf16`] | [`Tensor::to_fp16`], [`Tensor::to_bf16`] | `f32` |
//! | `FP32`, `FP64` | [`fp32`], [`fp64`] | [`Tensor::to_f32`], [`Tensor::to_f64`] | `f32`, `f64` |
//! | `BYTES` | [`bytes`] | [`Tensor::to_bytes`] | strings or slices of bytes |
//!
//! ```
//! use hostler_plugin::tensor;
//!
//! let x = tensor::fp32("x", &[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
//! assert_eq!(x.to_f32().unwrap(), [1.0, 2.0, 3.0, 4.0]);
//!
//! let error = x.to_i64().unwrap_err();
//! let expected = r#"tensor "x": to_i64: expected INT64, got FP32; read it with to_f32"#;
//! assert_eq!(error.message, expected);
//!
//! let error = tensor::fp32("x", &[2, 2], &[1.0]).unwrap_err();
//! assert!(error.message.ends_with("the shape has 4 elements, and 1 was given"));
//! ```

use crate::{Datatype, Error, Tensor, TensorSpec, faults};
use std::panic::Location;

pub use crate::float16::{bf16_to_f32, f32_to_bf16, f32_to_fp16, fp16_to_f32};

/// The functions for one datatype: `make` creates a tensor, `read` copies its elements.
macro_rules! numbers {
    ($($make:ident, $read:ident: $element:ty = $datatype:ident $name:literal;)*) => {
        $(
            #[doc = concat!("Creates a tensor of datatype `", $name, "`, and copies its elements to the host.")]
            ///
            /// The host's error is `invalid-input` if the shape does not have as many elements or
            /// has a negative dimension. Returned to a client, it becomes `failed`.
            #[track_caller]
            pub fn $make(name: &str, shape: &[i64], elements: &[$element]) -> Result<Tensor, Error> {
                let mut data = vec![0; size_of_val(elements)];
                for (slot, element) in data.chunks_exact_mut(size_of::<$element>()).zip(elements) {
                    slot.copy_from_slice(&element.to_le_bytes());
                }
                create(name, Datatype::$datatype, shape, &data, elements.len())
            }
        )*

        impl Tensor {
            $(
                #[doc = concat!("Copies the elements of a tensor of datatype `", $name, "`.")]
                ///
                /// The error is `failed` for another datatype, and names the function to use.
                pub fn $read(&self) -> Result<Vec<$element>, Error> {
                    self.expect_for(stringify!($read), Datatype::$datatype)?;
                    Ok(self
                        .data()
                        .chunks_exact(size_of::<$element>())
                        .map(|chunk| <$element>::from_le_bytes(chunk.try_into().expect("invariant: exact chunks")))
                        .collect())
                }
            )*
        }
    };
}

numbers! {
    uint8, to_u8: u8 = Uint8 "UINT8";
    uint16, to_u16: u16 = Uint16 "UINT16";
    uint32, to_u32: u32 = Uint32 "UINT32";
    uint64, to_u64: u64 = Uint64 "UINT64";
    int8, to_i8: i8 = Int8 "INT8";
    int16, to_i16: i16 = Int16 "INT16";
    int32, to_i32: i32 = Int32 "INT32";
    int64, to_i64: i64 = Int64 "INT64";
    fp32, to_f32: f32 = Fp32 "FP32";
    fp64, to_f64: f64 = Fp64 "FP64";
}

/// Creates a tensor. If the number of elements is wrong, adds both numbers to the host's message:
/// it counts bytes.
#[track_caller]
fn create(
    name: &str,
    datatype: Datatype,
    shape: &[i64],
    data: &[u8],
    elements: usize,
) -> Result<Tensor, Error> {
    let place = Location::caller();
    Tensor::create(name, datatype, shape, data).map_err(|mut error| {
        let expected: Option<i64> =
            shape.iter().try_fold(
                1_i64,
                |count, &dimension| {
                    if dimension < 0 { None } else { count.checked_mul(dimension) }
                },
            );
        if let Some(expected) = expected.filter(|&expected| expected != elements as i64) {
            let noun = if expected == 1 { "element" } else { "elements" };
            let verb = if elements == 1 { "was" } else { "were" };
            error.message += &format!(": the shape has {expected} {noun}, and {elements} {verb} given");
        }
        faults::at(place, error)
    })
}

/// Creates a tensor of datatype `FP16`. Rounds as [`f32_to_fp16`] does. Errors are those of
/// [`fp32`].
#[track_caller]
pub fn fp16(name: &str, shape: &[i64], elements: &[f32]) -> Result<Tensor, Error> {
    let data: Vec<u8> = elements.iter().flat_map(|&element| f32_to_fp16(element).to_le_bytes()).collect();
    create(name, Datatype::Fp16, shape, &data, elements.len())
}

/// Creates a tensor of datatype `BF16`. Rounds as [`f32_to_bf16`] does. Errors are those of
/// [`fp32`].
///
/// ```
/// let x = hostler_plugin::tensor::bf16("x", &[2], &[0.1, 1e38]).unwrap();
/// assert_eq!(x.data(), [0xcd, 0x3d, 0x96, 0x7e]);
/// assert_eq!(x.to_bf16().unwrap()[0], 0.100097656);
/// ```
#[track_caller]
pub fn bf16(name: &str, shape: &[i64], elements: &[f32]) -> Result<Tensor, Error> {
    let data: Vec<u8> = elements.iter().flat_map(|&element| f32_to_bf16(element).to_le_bytes()).collect();
    create(name, Datatype::Bf16, shape, &data, elements.len())
}

/// Creates a tensor of datatype `BOOL`. Errors are those of [`fp32`].
#[track_caller]
pub fn boolean(name: &str, shape: &[i64], elements: &[bool]) -> Result<Tensor, Error> {
    let data: Vec<u8> = elements.iter().map(|&element| element.into()).collect();
    create(name, Datatype::Bool, shape, &data, elements.len())
}

/// Creates a tensor of datatype `BYTES`. Elements may be strings or slices of bytes. Errors are
/// those of [`fp32`], and `too-large` for an element of 4 GiB.
#[track_caller]
pub fn bytes(name: &str, shape: &[i64], elements: &[impl AsRef<[u8]>]) -> Result<Tensor, Error> {
    create(name, Datatype::Bytes, shape, &join(elements)?, elements.len())
}

/// Describes an input or output. In `shape`, -1 is a free dimension.
pub fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.into() }
}

/// Formats datatype and shape for an error message: `FP32 [1,18]`.
pub fn described(datatype: Datatype, shape: &[i64]) -> String {
    format!("{} {}", datatype.name(), dimensions(shape))
}

/// Formats a shape: `[1,18]`.
pub(crate) fn dimensions(shape: &[i64]) -> String {
    let dimensions: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", dimensions.join(","))
}

/// Returns the tensor with this name. If it is missing, the error is `failed`: a missing output of
/// a model is not the caller's fault. The message is the same in the SDKs of all languages.
#[track_caller]
pub fn named<'a>(tensors: &'a [Tensor], name: &str) -> Result<&'a Tensor, Error> {
    let place = Location::caller();
    let found = tensors.iter().find(|tensor| tensor.name() == name);
    found.ok_or_else(|| faults::at(place, Error::failed(format!("there is no tensor \"{name}\""))))
}

impl Tensor {
    /// Copies all bytes: little-endian, row-major.
    pub fn data(&self) -> Vec<u8> {
        self.read(0, self.byte_length())
    }

    /// Copies the elements of a tensor of datatype `BOOL`. Errors are those of
    /// [`to_f32`](Self::to_f32).
    pub fn to_bool(&self) -> Result<Vec<bool>, Error> {
        self.expect_for("to_bool", Datatype::Bool)?;
        Ok(self.data().into_iter().map(|byte| byte != 0).collect())
    }

    /// Copies the elements of a tensor of datatype `BYTES`. Errors are those of
    /// [`to_f32`](Self::to_f32).
    pub fn to_bytes(&self) -> Result<Vec<Vec<u8>>, Error> {
        self.expect_for("to_bytes", Datatype::Bytes)?;
        Ok(split(&self.data()))
    }

    /// Copies the elements of a tensor of datatype `FP16`, which an `f32` holds exactly. Errors are
    /// those of [`to_f32`](Self::to_f32).
    pub fn to_fp16(&self) -> Result<Vec<f32>, Error> {
        self.expect_for("to_fp16", Datatype::Fp16)?;
        Ok(self.halves(fp16_to_f32))
    }

    /// Copies the elements of a tensor of datatype `BF16`, which an `f32` holds exactly. Errors are
    /// those of [`to_f32`](Self::to_f32).
    pub fn to_bf16(&self) -> Result<Vec<f32>, Error> {
        self.expect_for("to_bf16", Datatype::Bf16)?;
        Ok(self.halves(bf16_to_f32))
    }

    /// Copies the elements of a tensor of datatype `FP16`, `BF16` or `FP32`, for a plugin that
    /// takes all of them. The error is `failed` for another datatype.
    ///
    /// ```
    /// use hostler_plugin::tensor;
    ///
    /// let x = tensor::bf16("x", &[1], &[0.5]).unwrap();
    /// assert_eq!(x.to_floats().unwrap(), [0.5]);
    /// ```
    pub fn to_floats(&self) -> Result<Vec<f32>, Error> {
        match self.datatype() {
            Datatype::Fp16 => self.to_fp16(),
            Datatype::Bf16 => self.to_bf16(),
            Datatype::Fp32 => self.to_f32(),
            other => Err(self.wrong_datatype("to_floats", "FP16, BF16 or FP32", other)),
        }
    }

    fn halves(&self, convert: fn(u16) -> f32) -> Vec<f32> {
        self.data().as_chunks().0.iter().map(|half| convert(u16::from_le_bytes(*half))).collect()
    }

    /// Formats datatype and shape for an error message: `FP32 [1,18]`.
    pub fn described(&self) -> String {
        described(self.datatype(), &self.shape())
    }

    /// Returns the error `failed` unless the tensor has this datatype. If the tensor comes from the
    /// caller, check it first and return `Error::invalid`.
    pub fn expect(&self, datatype: Datatype) -> Result<(), Error> {
        let (got, expected) = (self.datatype(), datatype.name());
        if got == datatype {
            return Ok(());
        }
        let (name, got) = (self.name(), got.name());
        Err(Error::failed(format!("tensor \"{name}\": expected {expected}, got {got}")))
    }

    fn expect_for(&self, function: &str, datatype: Datatype) -> Result<(), Error> {
        match self.datatype() {
            got if got == datatype => Ok(()),
            got => Err(self.wrong_datatype(function, datatype.name(), got)),
        }
    }

    fn wrong_datatype(&self, function: &str, expected: &str, got: Datatype) -> Error {
        let (name, reader, got) = (self.name(), got.reader(), got.name());
        Error::failed(format!(
            "tensor \"{name}\": {function}: expected {expected}, got {got}; read it with {reader}"
        ))
    }
}

impl Datatype {
    /// Returns the name in the Open Inference Protocol.
    pub fn name(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::Uint8 => "UINT8",
            Datatype::Uint16 => "UINT16",
            Datatype::Uint32 => "UINT32",
            Datatype::Uint64 => "UINT64",
            Datatype::Int8 => "INT8",
            Datatype::Int16 => "INT16",
            Datatype::Int32 => "INT32",
            Datatype::Int64 => "INT64",
            Datatype::Fp16 => "FP16",
            Datatype::Bf16 => "BF16",
            Datatype::Fp32 => "FP32",
            Datatype::Fp64 => "FP64",
            Datatype::Bytes => "BYTES",
        }
    }

    /// Returns the bytes of one element. `None` for `BYTES`, whose elements have a length each.
    pub fn element_bytes(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => Some(1),
            Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
            Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
            Datatype::Bytes => None,
        }
    }

    /// Returns the function of a tensor that reads this datatype.
    fn reader(self) -> &'static str {
        match self {
            Datatype::Bool => "to_bool",
            Datatype::Uint8 => "to_u8",
            Datatype::Uint16 => "to_u16",
            Datatype::Uint32 => "to_u32",
            Datatype::Uint64 => "to_u64",
            Datatype::Int8 => "to_i8",
            Datatype::Int16 => "to_i16",
            Datatype::Int32 => "to_i32",
            Datatype::Int64 => "to_i64",
            Datatype::Fp16 => "to_fp16",
            Datatype::Bf16 => "to_bf16",
            Datatype::Fp32 => "to_f32",
            Datatype::Fp64 => "to_f64",
            Datatype::Bytes => "to_bytes",
        }
    }
}

/// Encodes `BYTES` elements: each is preceded by its length, 4 bytes little-endian.
fn join(elements: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, Error> {
    let mut data = Vec::with_capacity(elements.iter().map(|e| 4 + e.as_ref().len()).sum());
    for element in elements {
        let element = element.as_ref();
        let length = u32::try_from(element.len())
            .map_err(|_| Error::too_large("an element of a BYTES tensor is over 4 GiB"))?;
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(element);
    }
    Ok(data)
}

/// The inverse of `join`. The host has checked the encoding; a truncated element at the end is
/// ignored.
fn split(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut elements = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let Some((element, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else {
            break;
        };
        elements.push(element.to_vec());
        data = rest;
    }
    elements
}

/// Returns the number of elements in the encoding of `join`, or why it is not well-formed.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn count_elements(mut data: &[u8]) -> Result<usize, String> {
    let mut count = 0;
    while !data.is_empty() {
        let rest = data
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| rest.get(u32::from_le_bytes(*length) as usize..));
        data = rest.ok_or_else(|| format!("BYTES data ends in the middle of element {count}"))?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_their_wire_form() {
        let elements: [&[u8]; 3] = [b"hello", b"", "\u{1F600}".as_bytes()];
        let data = join(&elements).unwrap();
        assert_eq!(&data[..9], b"\x05\0\0\0hello");
        assert_eq!(split(&data), elements);
    }

    #[test]
    fn a_cut_element_is_left_out() {
        assert_eq!(split(b"\x01\0\0\0a\x05\0\0\0he"), [b"a"]);
    }
}
