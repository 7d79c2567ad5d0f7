//! Converts JSON numbers to floating point, rounded once.
//!
//! A decimal that is read as FP64 and then narrowed is rounded twice. For about one number in a
//! hundred million the result is a neighbour of the right value, even for numbers that are the
//! shortest text of an FP32. The standard library rounds decimals to FP32 and FP64 correctly; this
//! adds FP16 and BF16.

use half::{bf16, f16};
use std::cmp::Ordering;

/// Returns the nearest FP16, ties to even; infinite if the number is too large. `text` is a JSON
/// number.
pub(super) fn to_f16(text: &str) -> Option<f16> {
    odd(text, |value| f32::from(f16::from_f32(value))).map(f16::from_f32)
}

/// Returns the nearest BF16, ties to even; infinite if the number is too large. `text` is a JSON
/// number.
pub(super) fn to_bf16(text: &str) -> Option<bf16> {
    odd(text, |value| f32::from(bf16::from_f32(value))).map(bf16::from_f32)
}

/// Returns an FP32 that rounds to the same narrower value as the number itself: truncated, and with
/// the lowest bit set if that was inexact ("rounding to odd"). FP32 has the two extra digits that
/// this needs, for subnormals too.
fn odd(text: &str, narrow: impl Fn(f32) -> f32) -> Option<f32> {
    let wide: f64 = text.parse().ok()?;
    let near = wide as f32;
    if !near.is_finite() {
        return Some(near);
    }
    let order = match wide.abs().total_cmp(&f64::from(near).abs()) {
        // The FP64 may be rounded itself. That matters only halfway between two narrow values.
        Ordering::Equal if narrow(near) != near => magnitude(text, wide),
        order => order,
    };
    let bits = near.to_bits();
    Some(match order {
        Ordering::Equal => near,
        Ordering::Greater => f32::from_bits(bits | 1),
        Ordering::Less => f32::from_bits((bits - 1) | 1),
    })
}

/// Compares the magnitude of a decimal with that of `value`, which is an FP32.
fn magnitude(text: &str, value: f64) -> Ordering {
    // An FP32 has at most 112 significant digits, so this is exact.
    let exact = format!("{:.120e}", value.abs());
    let (ours, theirs) = (Digits::of(text), Digits::of(&exact));
    ours.exponent.cmp(&theirs.exponent).then_with(|| ours.digits.cmp(&theirs.digits))
}

/// 0.DIGITS times ten to the `exponent`, without zeros at either end.
struct Digits {
    digits: Vec<u8>,
    exponent: i64,
}

impl Digits {
    fn of(text: &str) -> Self {
        let text = text.trim_start_matches('-');
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        digits.drain(..zeros);
        let kept = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
        digits.truncate(kept);
        // If the exponent exceeds 64 bits, the number is zero or infinite anyway.
        let exponent = exponent.parse().unwrap_or(0_i64);
        Digits { digits, exponent: exponent.saturating_add(whole.len() as i64 - zeros as i64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_once() {
        // Halfway between 1 and the next FP16, and slightly beside that, which FP64 and FP32 cannot
        // represent.
        for (text, expected) in [
            ("1.00048828125", 0x3c00),
            ("1.000488281250000000000000001", 0x3c01),
            ("-1.000488281250000000000000001", 0xbc01),
            ("1.00048828124999999999999999", 0x3c00),
            ("1.00146484375", 0x3c02),
            ("1.00146484374999999999999999", 0x3c01),
            ("1.0004882812509", 0x3c01),
            ("100048828125000000000000001e-26", 0x3c01),
            ("2.98023223876953125e-8", 0x0000),
            ("2.98023223876953125000000000001e-8", 0x0001),
            ("65519.99999999999999999999", 0x7bff),
            ("65520", 0x7c00),
            ("1e400", 0x7c00),
            ("1e-400", 0x0000),
            ("-0", 0x8000),
            ("0.1", 0x2e66),
        ] {
            assert_eq!(to_f16(text).unwrap().to_bits(), expected, "{text}");
        }
        for (text, expected) in [
            ("1.00390625", 0x3f80),
            ("1.003906250000000000000000001", 0x3f81),
            ("1.01171875", 0x3f82),
            ("1.01171874999999999999999999", 0x3f81),
            ("3.4e38", 0x7f80),
            ("3.39e38", 0x7f7f),
            ("1e-45", 0x0000),
            ("-1e39", 0xff80),
        ] {
            assert_eq!(to_bf16(text).unwrap().to_bits(), expected, "{text}");
        }
    }

    #[test]
    fn every_half_is_read_from_its_own_digits_and_the_middles_go_to_even() {
        for bits in 0..0x7c00_u16 {
            let (low, high) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
            assert_eq!(to_f16(&format!("{low:e}")).unwrap().to_bits(), bits);
            if bits + 1 < 0x7c00 {
                let middle = format!("{:.40}", f64::midpoint(low, high));
                let even = bits + (bits & 1);
                assert_eq!(to_f16(&middle).unwrap().to_bits(), even, "{middle}");
                assert_eq!(to_f16(&format!("{middle}1")).unwrap().to_bits(), bits + 1, "{middle}1");
            }
        }
    }
}
