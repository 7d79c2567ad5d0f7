// Conversion of FP16 and BF16. Numbers are rounded to the nearest value, halves to even. Plugins
// have a Float16Array; Node 20 has none.

const FLOAT64 = new Float64Array(1);
const WORDS = new Uint32Array(FLOAT64.buffer);
const FLOAT32 = new Float32Array(1);
const BITS32 = new Uint32Array(FLOAT32.buffer);

// The largest finite values.
export const FP16_MAX = 65504;
export const BF16_MAX = 3.3895313892515355e38;

const exponent = (value) => {
  FLOAT64[0] = value;
  return ((WORDS[1] >>> 20) & 0x7ff) - 1023;
};

// Rounds to 11 bits, and to a multiple of 2^-24.
function rounded(value) {
  if (value === 0 || !Number.isFinite(value)) return value;
  const unit = 2 ** Math.max(exponent(value) - 10, -24);
  const scaled = value / unit;
  let whole = Math.floor(scaled);
  const rest = scaled - whole;
  if (rest > 0.5 || (rest === 0.5 && whole % 2 !== 0)) whole += 1;
  // Zero keeps its sign.
  return whole === 0 && value < 0 ? -0 : whole * unit;
}

// Returns the 16 bits of the nearest FP16 value. A number beyond the largest one is infinite.
export function toFp16(value) {
  const near = rounded(value);
  const sign = near < 0 || Object.is(near, -0) ? 0x8000 : 0;
  const size = Math.abs(near);
  if (Number.isNaN(size)) return 0x7e00;
  if (size > FP16_MAX) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | (size * 2 ** 24);
  const power = exponent(size);
  return sign | ((power + 15) << 10) | ((size / 2 ** power - 1) * 1024);
}

export function fromFp16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const power = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (power === 0) return sign * fraction * 2 ** -24;
  if (power === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (power - 15);
}

// Returns the bits of the nearest BF16 values of a Float32Array. A number beyond the largest one is
// infinite.
export function toBf16(singles) {
  const bits = new Uint32Array(singles.buffer, singles.byteOffset, singles.length);
  const halves = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const isNaN = (bits[i] & 0x7fffffff) > 0x7f800000;
    halves[i] = isNaN ? 0x7fc0 : (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16;
  }
  return halves;
}

export function fromBf16(bits) {
  BITS32[0] = (bits << 16) >>> 0;
  return FLOAT32[0];
}
