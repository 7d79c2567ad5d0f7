package hostler

import "math"

func fromBF16(bits uint16) float32 {
	return math.Float32frombits(uint32(bits) << 16)
}

func toBF16(value float32) uint16 {
	bits := math.Float32bits(value)
	if value != value {
		// Keeps a NaN whose bits would be cut off.
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func fromFP16(bits uint16) float32 {
	sign := uint32(bits>>15) << 31
	exponent := uint32(bits>>10) & 0x1f
	fraction := uint32(bits) & 0x3ff
	switch exponent {
	case 0:
		value := float32(fraction) / (1 << 24)
		return math.Float32frombits(sign | math.Float32bits(value))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

func toFP16(value float32) uint16 {
	bits := math.Float32bits(value)
	sign := uint16(bits>>16) & 0x8000
	exponent := int(bits>>23&0xff) - 127
	fraction := bits & 0x7fffff
	switch {
	case exponent == 128 && fraction != 0:
		return sign | 0x7e00 | uint16(fraction>>13)
	case exponent > 15:
		return sign | 0x7c00
	case exponent >= -14:
		whole := uint32(exponent+15)<<10 | fraction>>13
		return sign | uint16(rounded(whole, fraction&0x1fff, 0x1000))
	case exponent >= -25:
		fraction |= 0x800000
		shift := uint32(-exponent - 1)
		return sign | uint16(rounded(fraction>>shift, fraction&(1<<shift-1), 1<<(shift-1)))
	}
	return sign
}

// rounded rounds to the nearest, halves to the even number. rest is what was cut off, half is one
// half of the last place.
func rounded(whole, rest, half uint32) uint32 {
	if rest > half || rest == half && whole&1 == 1 {
		return whole + 1
	}
	return whole
}
