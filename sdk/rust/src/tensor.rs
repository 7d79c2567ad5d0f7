//! Tensors from slices and back: `tensor::fp32("input", &[1, 18], &features)`, `tensor.to_f32()`.
//!
//! Rust has no stable type for `FP16` and `BF16`: use [`Tensor::create`] and [`Tensor::data`] for
//! them.

use crate::{Datatype, Error, Tensor, TensorSpec};

/// The functions for one datatype: `make` creates a tensor, `read` copies its elements.
macro_rules! numbers {
    ($($make:ident, $read:ident: $element:ty = $datatype:ident;)*) => {
        $(
            pub fn $make(name: &str, shape: &[i64], elements: &[$element]) -> Result<Tensor, Error> {
                let mut data = vec![0; size_of_val(elements)];
                for (slot, element) in data.chunks_exact_mut(size_of::<$element>()).zip(elements) {
                    slot.copy_from_slice(&element.to_le_bytes());
                }
                Tensor::create(name, Datatype::$datatype, shape, &data)
            }
        )*

        impl Tensor {
            $(
                pub fn $read(&self) -> Result<Vec<$element>, Error> {
                    self.expect(Datatype::$datatype)?;
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
    uint8, to_u8: u8 = Uint8;
    uint16, to_u16: u16 = Uint16;
    uint32, to_u32: u32 = Uint32;
    uint64, to_u64: u64 = Uint64;
    int8, to_i8: i8 = Int8;
    int16, to_i16: i16 = Int16;
    int32, to_i32: i32 = Int32;
    int64, to_i64: i64 = Int64;
    fp32, to_f32: f32 = Fp32;
    fp64, to_f64: f64 = Fp64;
}

pub fn boolean(name: &str, shape: &[i64], elements: &[bool]) -> Result<Tensor, Error> {
    let data: Vec<u8> = elements.iter().map(|&element| element.into()).collect();
    Tensor::create(name, Datatype::Bool, shape, &data)
}

/// Creates a tensor of datatype `BYTES`. Elements may be strings or slices of bytes.
pub fn bytes(name: &str, shape: &[i64], elements: &[impl AsRef<[u8]>]) -> Result<Tensor, Error> {
    Tensor::create(name, Datatype::Bytes, shape, &join(elements)?)
}

/// Describes an input or output. In `shape`, -1 is a free dimension.
pub fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.into() }
}

/// Formats datatype and shape for an error message: `FP32 [1,18]`.
pub fn described(datatype: Datatype, shape: &[i64]) -> String {
    let dimensions: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("{} [{}]", datatype.name(), dimensions.join(","))
}

/// Returns the tensor with this name. If it is missing, the error is `failed`: a missing output of
/// a model is not the caller's fault.
pub fn named<'a>(tensors: &'a [Tensor], name: &str) -> Result<&'a Tensor, Error> {
    tensors
        .iter()
        .find(|tensor| tensor.name() == name)
        .ok_or_else(|| Error::failed(format!("there is no tensor \"{name}\"")))
}

impl Tensor {
    /// Returns all bytes: little-endian, row-major.
    pub fn data(&self) -> Vec<u8> {
        self.read(0, self.byte_length())
    }

    pub fn to_bool(&self) -> Result<Vec<bool>, Error> {
        self.expect(Datatype::Bool)?;
        Ok(self.data().into_iter().map(|byte| byte != 0).collect())
    }

    /// Returns the elements of a tensor of datatype `BYTES`.
    pub fn to_bytes(&self) -> Result<Vec<Vec<u8>>, Error> {
        self.expect(Datatype::Bytes)?;
        Ok(split(&self.data()))
    }

    /// Formats datatype and shape for an error message: `FP32 [1,18]`.
    pub fn described(&self) -> String {
        described(self.datatype(), &self.shape())
    }

    /// Returns the error `failed` unless the tensor has this datatype. If the tensor comes from the
    /// caller, check it first and return `Error::invalid`.
    pub fn expect(&self, datatype: Datatype) -> Result<(), Error> {
        let got = self.datatype();
        if got == datatype {
            return Ok(());
        }
        let (name, expected, got) = (self.name(), datatype.name(), got.name());
        Err(Error::failed(format!("tensor \"{name}\": expected {expected}, got {got}")))
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
