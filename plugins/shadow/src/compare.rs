//! Compares two answers: names, datatypes, shapes and elements, with numbers equal within a
//! tolerance.

use hostler_plugin::{Datatype, Tensor};

/// Describes the first difference, or returns `None`. Outputs may be in any order.
pub fn difference(outputs: &[Tensor], others: &[Tensor], tolerance: f64) -> Option<String> {
    if outputs.len() != others.len() {
        return Some(format!("{} outputs and {}", outputs.len(), others.len()));
    }
    outputs.iter().find_map(|output| {
        let name = output.name();
        let Some(other) = others.iter().find(|other| other.name() == name) else {
            return Some(format!("output \"{name}\" is missing"));
        };
        let (described, other_described) = (output.described(), other.described());
        if described != other_described {
            return Some(format!("output \"{name}\": {described} and {other_described}"));
        }
        let place = first_difference(output.datatype(), &output.data(), &other.data(), tolerance)?;
        Some(format!("output \"{name}\": element {place} differs"))
    })
}

/// Returns the index of the first element that differs, or of the first byte if the elements are
/// not numbers. Two numbers are equal if they differ by no more than `tolerance`, or by that share
/// of the larger one if it is above 1. NaN equals NaN.
fn first_difference(datatype: Datatype, a: &[u8], b: &[u8], tolerance: f64) -> Option<usize> {
    if a == b {
        return None;
    }
    let Some((size, read)) = number(datatype) else {
        return Some(a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len())));
    };
    let mut pairs = a.chunks_exact(size).zip(b.chunks_exact(size));
    pairs.position(|(a, b)| a != b && !near(read(a), read(b), tolerance))
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    let scale = a.abs().max(b.abs()).max(1.0);
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * scale
}

type Read = fn(&[u8]) -> f64;

/// Returns the size of an element and a function that reads it; `None` if elements are not numbers.
fn number(datatype: Datatype) -> Option<(usize, Read)> {
    macro_rules! reader {
        ($type:ty) => {
            (size_of::<$type>(), |bytes| {
                <$type>::from_le_bytes(bytes.try_into().expect("invariant: exact chunks")) as f64
            })
        };
    }
    Some(match datatype {
        Datatype::Bool | Datatype::Bytes => return None,
        Datatype::Uint8 => reader!(u8),
        Datatype::Uint16 => reader!(u16),
        Datatype::Uint32 => reader!(u32),
        Datatype::Uint64 => reader!(u64),
        Datatype::Int8 => reader!(i8),
        Datatype::Int16 => reader!(i16),
        Datatype::Int32 => reader!(i32),
        Datatype::Int64 => reader!(i64),
        Datatype::Fp32 => reader!(f32),
        Datatype::Fp64 => reader!(f64),
        Datatype::Fp16 => (2, |bytes| half(u16::from_le_bytes([bytes[0], bytes[1]]))),
        Datatype::Bf16 => (2, |bytes| f32::from_le_bytes([0, 0, bytes[0], bytes[1]]).into()),
    })
}

/// Converts a 16-bit float: 1 bit for the sign, 5 for the exponent, 10 for the fraction.
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let size = match i32::from(bits >> 10 & 0x1f) {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fp32(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn differs(a: &[f32], b: &[f32], tolerance: f64) -> Option<usize> {
        first_difference(Datatype::Fp32, &fp32(a), &fp32(b), tolerance)
    }

    #[test]
    fn numbers_are_compared_within_the_tolerance() {
        assert_eq!(differs(&[1.0, 2.0], &[1.0, 2.0], 0.0), None);
        assert_eq!(differs(&[1.0, 2.0], &[1.0, 2.001], 0.0), Some(1));
        assert_eq!(differs(&[1.0, 2.0], &[1.0, 2.001], 0.001), None);
        assert_eq!(differs(&[0.5], &[0.502], 0.001), Some(0));
        assert_eq!(differs(&[1e6], &[1_000_500.0], 0.001), None, "a share of large numbers");
        assert_eq!(differs(&[0.0, f32::INFINITY], &[-0.0, f32::INFINITY], 0.0), None);
        assert_eq!(differs(&[f32::NAN], &[-f32::NAN], 0.0), None);
        assert_eq!(differs(&[f32::NAN], &[1.0], 1.0), Some(0));
    }

    #[test]
    fn what_is_no_number_is_compared_byte_by_byte() {
        assert_eq!(first_difference(Datatype::Bytes, b"\x01\0\0\0a", b"\x01\0\0\0a", 1.0), None);
        assert_eq!(first_difference(Datatype::Bytes, b"\x01\0\0\0a", b"\x01\0\0\0b", 1.0), Some(4));
        assert_eq!(first_difference(Datatype::Bytes, b"\x01\0\0\0a", b"\x02\0\0\0ab", 1.0), Some(0));
        assert_eq!(first_difference(Datatype::Bool, &[0, 1], &[0, 0], 1.0), Some(1));
    }

    #[test]
    fn halves_have_their_values() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 5.960464477539063e-8)]
        {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
        let bf16 = |value: f32| value.to_le_bytes()[2..].to_vec();
        assert_eq!(first_difference(Datatype::Bf16, &bf16(1.0), &bf16(1.5), 0.4), None);
        assert_eq!(first_difference(Datatype::Bf16, &bf16(1.0), &bf16(1.5), 0.1), Some(0));
    }
}
