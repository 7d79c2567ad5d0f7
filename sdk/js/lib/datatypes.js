// Datatypes of the Open Inference Protocol, and the conversion of their elements to and from bytes.

import { BF16_MAX, FP16_MAX, fromBf16, fromFp16, toBf16, toFp16 } from "./half.js";
import { didYouMean, quoted, shown } from "./names.js";
import { encoded } from "./text.js";

const INTEGERS = {
  BOOL: [Uint8Array, 0, 1],
  UINT8: [Uint8Array, 0, 0xff],
  UINT16: [Uint16Array, 0, 0xffff],
  UINT32: [Uint32Array, 0, 0xffffffff],
  INT8: [Int8Array, -0x80, 0x7f],
  INT16: [Int16Array, -0x8000, 0x7fff],
  INT32: [Int32Array, -0x80000000, 0x7fffffff],
};
const WIDE_INTEGERS = {
  UINT64: [BigUint64Array, 0n, 2n ** 64n - 1n],
  INT64: [BigInt64Array, -(2n ** 63n), 2n ** 63n - 1n],
};
const FLOATS = {
  FP32: [Float32Array, 3.4028234663852886e38],
  FP64: [Float64Array, Number.MAX_VALUE],
};
const HALVES = { FP16: fromFp16, BF16: fromBf16 };

// All datatypes, in the order of the contract.
export const DATATYPES = [
  ...["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"],
  ...["FP16", "BF16", "FP32", "FP64", "BYTES"],
];

// What authors may know datatypes as.
const ALIASES = {
  BOOLEAN: "BOOL",
  FLOAT16: "FP16",
  HALF: "FP16",
  BFLOAT16: "BF16",
  FLOAT32: "FP32",
  FLOAT: "FP32",
  FLOAT64: "FP64",
  DOUBLE: "FP64",
  STRING: "BYTES",
  TEXT: "BYTES",
};

// Returns the datatype, or throws a TypeError that names the ones there are.
export function knownDatatype(datatype, subject) {
  if (DATATYPES.includes(datatype)) return datatype;
  if (typeof datatype !== "string") {
    throw new TypeError(`${subject}: the datatype must be a string such as "FP32", and is ${shown(datatype)}`);
  }
  const upper = datatype.toUpperCase();
  const alias = DATATYPES.includes(upper) ? upper : ALIASES[upper];
  const hint = alias ? ` (did you mean "${alias}"?)` : didYouMean(datatype, DATATYPES);
  throw new TypeError(
    `${subject}: unknown datatype ${quoted(datatype)}${hint}; the datatypes are ${DATATYPES.join(", ")}`,
  );
}

// Converts elements to the bytes of a tensor. Throws a TypeError or RangeError that names the first
// element that does not fit. `subject` begins the message.
export function packed(datatype, elements, subject) {
  if (datatype === "BYTES") return packedBytes(elements, subject);
  if (datatype in INTEGERS) return packedIntegers(datatype, elements, subject);
  if (datatype in WIDE_INTEGERS) return packedWide(datatype, elements, subject);
  return datatype in FLOATS ? packedFloats(datatype, elements, subject) : packedHalves(datatype, elements, subject);
}

// Converts the bytes of a tensor to its elements.
export function unpacked(datatype, data) {
  if (datatype === "BYTES") return unpackedBytes(data);
  // A copy is aligned.
  const { buffer } = data.slice();
  if (datatype in HALVES) return Float32Array.from(new Uint16Array(buffer), HALVES[datatype]);
  const [TypedArray] = INTEGERS[datatype] ?? WIDE_INTEGERS[datatype] ?? FLOATS[datatype];
  return new TypedArray(buffer);
}

const bytesOf = ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength);

function wrongElement(subject, index, element, expected) {
  const nested = Array.isArray(element) ? "; give the elements as one flat list, as elements.flat() returns it" : "";
  const ErrorType = typeof element === "number" || typeof element === "bigint" ? RangeError : TypeError;
  return new ErrorType(`${subject}: element ${index} is ${shown(element)}, expected ${expected}${nested}`);
}

// Converts without checks; null if that throws. The runtime's own conversion is several times
// faster than a loop, so elements are converted first and compared afterwards.
function converted(TypedArray, elements) {
  try {
    return new TypedArray(elements);
  } catch {
    return null;
  }
}

function packedIntegers(datatype, elements, subject) {
  const [TypedArray, low, high] = INTEGERS[datatype];
  if (elements instanceof TypedArray && datatype !== "BOOL") return bytesOf(elements);
  const list =
    datatype === "BOOL" ? Array.from(elements, (one) => (typeof one === "boolean" ? Number(one) : one)) : elements;
  const packed = converted(TypedArray, list) ?? new TypedArray(list.length);
  for (let i = 0; i < list.length; i++) {
    // A number that does not fit is wrapped, and differs then.
    if (packed[i] === list[i] && packed[i] <= high) continue;
    const element = typeof list[i] === "bigint" ? Number(list[i]) : list[i];
    if (!Number.isInteger(element) || element < low || element > high) {
      const expected = datatype === "BOOL" ? "true, false, 1 or 0" : `a whole number from ${low} to ${high}`;
      throw wrongElement(subject, i, elements[i], expected);
    }
    packed[i] = element;
  }
  return bytesOf(packed);
}

function packedWide(datatype, elements, subject) {
  const [TypedArray, low, high] = WIDE_INTEGERS[datatype];
  if (elements instanceof TypedArray) return bytesOf(elements);
  const packed = new TypedArray(elements.length);
  for (let i = 0; i < elements.length; i++) {
    const element = elements[i];
    if (Number.isInteger(element) && !Number.isSafeInteger(element)) {
      const expected = "a BigInt such as 9007199254740993n: a number is exact only up to 2^53 - 1";
      throw wrongElement(subject, i, element, expected);
    }
    const wide = Number.isSafeInteger(element) ? BigInt(element) : element;
    if (typeof wide !== "bigint" || wide < low || wide > high) {
      throw wrongElement(subject, i, element, `a whole number or BigInt from ${low} to ${high}`);
    }
    packed[i] = wide;
  }
  return bytesOf(packed);
}

function packedFloats(datatype, elements, subject) {
  const [TypedArray, max] = FLOATS[datatype];
  return bytesOf(floats(TypedArray, max, elements, subject, datatype));
}

function packedHalves(datatype, elements, subject) {
  const { Float16Array } = globalThis;
  if (datatype === "BF16") {
    const singles = floats(Float32Array, FLOATS.FP32[1], elements, subject, datatype);
    const packed = toBf16(singles);
    checkFinite((i) => fromBf16(packed[i]), elements, subject, datatype, BF16_MAX);
    return bytesOf(packed);
  }
  if (Float16Array) return bytesOf(floats(Float16Array, FP16_MAX, elements, subject, datatype));
  const packed = Uint16Array.from(floats(Float64Array, Number.MAX_VALUE, elements, subject, datatype), toFp16);
  checkFinite((i) => fromFp16(packed[i]), elements, subject, datatype, FP16_MAX);
  return bytesOf(packed);
}

// Converts numbers. Throws if an element is no number, or is finite and infinite once it is
// converted.
function floats(TypedArray, max, elements, subject, datatype) {
  if (elements instanceof TypedArray) return elements;
  const packed = converted(TypedArray, elements) ?? new TypedArray(elements.length);
  for (let i = 0; i < elements.length; i++) {
    if (typeof elements[i] !== "number") throw wrongElement(subject, i, elements[i], "a number");
  }
  if (packed.includes(Infinity) || packed.includes(-Infinity)) {
    checkFinite((i) => packed[i], elements, subject, datatype, max);
  }
  return packed;
}

function checkFinite(result, elements, subject, datatype, max) {
  for (let i = 0; i < elements.length; i++) {
    if (!Number.isFinite(elements[i]) || Number.isFinite(result(i))) continue;
    throw wrongElement(subject, i, elements[i], `a number from -${max} to ${max}`);
  }
}

// Encodes BYTES elements: each is preceded by its length, 4 bytes little-endian.
function packedBytes(elements, subject) {
  const parts = Array.from(elements, (element, i) => {
    if (typeof element === "string") return encoded(element);
    if (element instanceof Uint8Array) return element;
    throw wrongElement(subject, i, element, "a string or a Uint8Array");
  });
  const data = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = new DataView(data.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    data.set(part, at + 4);
    at += 4 + part.length;
  }
  return data;
}

function unpackedBytes(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const elements = [];
  for (let at = 0; at + 4 <= data.length; ) {
    const end = at + 4 + view.getUint32(at, true);
    elements.push(data.slice(at + 4, end));
    at = end;
  }
  return elements;
}
