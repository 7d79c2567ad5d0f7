//! `FP16` and `BF16`, for which Rust has no stable types: conversions from and to `f32`.

/// Converts to `BF16`, the upper half of an `f32`. Rounds to the nearest value, and halves to the
/// even one. What is too large becomes infinite; NaN stays NaN.
///
/// ```
/// use hostler_plugin::tensor::f32_to_bf16;
///
/// assert_eq!(f32_to_bf16(1.0), 0x3f80);
/// // Halfway between 0x3f80 and 0x3f81: to the even one.
/// assert_eq!(f32_to_bf16(1.00390625), 0x3f80);
/// ```
pub fn f32_to_bf16(number: f32) -> u16 {
    let bits = number.to_bits();
    if number.is_nan() {
        // The bit keeps it a NaN whose upper half would be that of infinity.
        return (bits >> 16) as u16 | 0x40;
    }
    let is_odd = bits >> 16 & 1;
    ((bits + 0x7fff + is_odd) >> 16) as u16
}

/// Converts from `BF16`, exactly.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Converts to `FP16`, IEEE 754 binary16. Rounds to the nearest value, and halves to the even one.
/// From 65520 the result is infinite; NaN stays NaN.
///
/// ```
/// use hostler_plugin::tensor::{f32_to_fp16, fp16_to_f32};
///
/// assert_eq!(f32_to_fp16(-2.0), 0xc000);
/// assert_eq!(fp16_to_f32(f32_to_fp16(65504.0)), 65504.0);
/// ```
pub fn f32_to_fp16(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let unsigned = match magnitude {
        0x7f80_0001.. => 0x7e00 | (magnitude >> 13) as u16 & 0x1ff,
        // 65520 is halfway between the largest number and what would be the next one.
        0x477f_f000.. => 0x7c00,
        // From 2^-14, the smallest number with a full fraction.
        0x3880_0000.. => {
            let is_odd = magnitude >> 13 & 1;
            // The exponents of the two formats are 127 and 15 too large.
            ((magnitude - ((127 - 15) << 23) + 0xfff + is_odd) >> 13) as u16
        }
        // A multiple of 2^-24.
        _ => (f32::from_bits(magnitude) * 16_777_216.0).round_ties_even() as u16,
    };
    sign | unsigned
}

/// Converts from `FP16`, exactly.
pub fn fp16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    let unsigned = match magnitude {
        0x7c00.. => f32::from_bits(0x7f80_0000 | (magnitude & 0x3ff) << 13),
        0x0400.. => f32::from_bits((magnitude << 13) + ((127 - 15) << 23)),
        _ => magnitude as f32 / 16_777_216.0,
    };
    if bits & 0x8000 == 0 { unsigned } else { -unsigned }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks each number of 16 bits, and the numbers halfway between it and the next one.
    fn rounds(to: fn(f32) -> u16, from: fn(u16) -> f32, infinity: u16) {
        for bits in 0..infinity {
            let (number, next) = (from(bits), from(bits + 1));
            assert_eq!((to(number), to(-number)), (bits, bits | 0x8000), "{number}");
            if bits + 1 == infinity {
                continue;
            }
            let half = f64::midpoint(number.into(), next.into()) as f32;
            assert_eq!(to(half), bits + (bits & 1), "{half}: halves go to the even one");
            assert_eq!((to(half.next_down()), to(half.next_up())), (bits, bits + 1), "{half}");
        }
        assert_eq!((to(f32::INFINITY), to(f32::NEG_INFINITY)), (infinity, infinity | 0x8000));
        assert_eq!((from(infinity), from(infinity | 0x8000)), (f32::INFINITY, f32::NEG_INFINITY));
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0x7fff_ffff)] {
            assert!(from(to(nan)).is_nan());
        }
        assert_eq!(to(f32::MAX), infinity);
    }

    #[test]
    fn bf16_rounds_to_the_nearest_and_halves_to_even() {
        rounds(f32_to_bf16, bf16_to_f32, 0x7f80);
    }

    #[test]
    fn fp16_rounds_to_the_nearest_and_halves_to_even() {
        rounds(f32_to_fp16, fp16_to_f32, 0x7c00);
        assert_eq!((f32_to_fp16(65_519.0), f32_to_fp16(65_520.0)), (0x7bff, 0x7c00));
    }
}
