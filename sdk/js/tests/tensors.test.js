import assert from "node:assert/strict";
import test from "node:test";
import * as hostler from "../hostler.js";
import { fromBf16, fromFp16, toBf16, toFp16 } from "../lib/half.js";
import { thrown } from "./support.js";

const roundTrip = (datatype, elements) => {
  const tensor = hostler.tensor("x", datatype, [elements.length], elements);
  return [...hostler.elements(tensor)];
};

test("every datatype keeps its elements", () => {
  for (const datatype of ["UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32", "FP16", "BF16", "FP32", "FP64"]) {
    assert.deepEqual(roundTrip(datatype, [0, 1, 2, 100]), [0, 1, 2, 100], datatype);
  }
  for (const datatype of ["UINT64", "INT64"]) {
    assert.deepEqual(roundTrip(datatype, [0, 7n, 2 ** 53 - 1]), [0n, 7n, 2n ** 53n - 1n], datatype);
  }
  assert.deepEqual(roundTrip("BOOL", [true, false, 1, 0]), [1, 0, 1, 0]);
  const texts = roundTrip("BYTES", ["grüße", "", new Uint8Array([1, 2])]);
  assert.deepEqual([hostler.decoded(texts[0]), texts[1].length, [...texts[2]]], ["grüße", 0, [1, 2]]);
});

test("typed arrays and other iterables are elements too", () => {
  assert.deepEqual(roundTrip("FP32", new Float32Array([1.5, 2])), [1.5, 2]);
  assert.deepEqual(roundTrip("FP32", new Float64Array([1.5, 2])), [1.5, 2]);
  assert.deepEqual(roundTrip("INT32", new Float64Array([-1, 2])), [-1, 2]);
  const part = new Float32Array([0, 1, 2, 3]).subarray(1, 3);
  assert.deepEqual(roundTrip("FP32", part), [1, 2]);
  const tensor = hostler.tensor("x", "INT32", [2], new Set([4, 5]));
  assert.deepEqual([...hostler.elements(tensor)], [4, 5]);
});

test("a scalar and a tensor without elements", () => {
  assert.equal(hostler.described(hostler.tensor("x", "FP32", [], [3])), "FP32 []");
  assert.deepEqual(roundTrip("BYTES", []), []);
  assert.deepEqual(roundTrip("FP64", []), []);
});

test("infinity and NaN pass, and a number that would become infinite does not", () => {
  for (const datatype of ["FP16", "BF16", "FP32", "FP64"]) {
    assert.deepEqual(roundTrip(datatype, [Infinity, -Infinity, NaN, -0]), [Infinity, -Infinity, NaN, -0], datatype);
  }
  for (const [datatype, element] of [
    ["FP16", 65520],
    ["FP16", -1e9],
    ["BF16", 3.4e38],
    ["BF16", 1e300],
    ["FP32", 1e39],
  ]) {
    const error = thrown(() => roundTrip(datatype, [0, element]));
    assert.equal(error.name, "RangeError");
    assert.match(error.message, /element 1 is the number .*, expected a number from -/, datatype);
  }
  assert.deepEqual(roundTrip("FP16", [65519, 65504]), [65504, 65504]);
});

test("FP16 is rounded to the nearest, halves to even", () => {
  const cases = [
    [1, 0x3c00],
    [-2, 0xc000],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [1 + 2 ** -11 + 2 ** -40, 0x3c01],
    [65519.99, 0x7bff],
    [2 ** -24, 1],
    [2 ** -25, 0],
    [2 ** -25 * 1.0001, 1],
    [3 * 2 ** -25, 2],
    [2 ** -14, 0x0400],
    [2 ** -14 - 2 ** -26, 0x0400],
    [-0, 0x8000],
  ];
  for (const [value, bits] of cases) assert.equal(toFp16(value), bits, `${value}`);
  for (let bits = 0; bits < 0x10000; bits++) {
    const value = fromFp16(bits);
    if (!Number.isNaN(value)) assert.equal(toFp16(value), bits);
  }
});

test("BF16 is rounded to the nearest, halves to even", () => {
  const of = (value) => toBf16(new Float32Array([value]))[0];
  const cases = [
    [1, 0x3f80],
    [1 + 2 ** -8, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3f82],
    [1 + 2 ** -8 + 2 ** -20, 0x3f81],
    [-1 - 3 * 2 ** -8, 0xbf82],
    [3.3895313892515355e38, 0x7f7f],
    [2 ** -133, 1],
    [-0, 0x8000],
    [NaN, 0x7fc0],
  ];
  for (const [value, bits] of cases) assert.equal(of(value), bits, `${value}`);
  for (let bits = 0; bits < 0x10000; bits++) {
    const value = fromBf16(bits);
    if (!Number.isNaN(value)) assert.equal(of(value), bits);
  }
});

const REFUSED = [
  ["FLOAT32", [1], [1], /unknown datatype "FLOAT32" \(did you mean "FP32"\?\); the datatypes are BOOL, /],
  ["fp32", [1], [1], /\(did you mean "FP32"\?\)/],
  ["FP23", [1], [1], /\(did you mean "FP32"\?\)/],
  [undefined, [1], [1], /the datatype must be a string such as "FP32", and is undefined/],
  ["FP32", 3, [1, 2, 3], /the shape must be a list such as \[2, 3\], and is the number 3/],
  [
    "FP32",
    [-1],
    [1],
    /dimension 0 of the shape must be a whole number, at least 0, and is the number -1; -1 is only for the metadata/,
  ],
  ["FP32", [1.5], [1], /dimension 0 .* is the number 1.5/],
  ["FP32", Array(17).fill(1), [1], /17 dimensions; at most 16/],
  [
    "FP32",
    [2, 3],
    [1, 2, 3, 4, 5],
    /hostler.tensor\("x", "FP32", \[2,3\]\): the shape needs 6 elements, and there are 5$/,
  ],
  [
    "FP32",
    [4],
    [
      [1, 2],
      [3, 4],
    ],
    /needs 4 elements, and there are 2: give them as one flat list/,
  ],
  ["FP32", [2], [[1], [2]], /element 0 is an Array, expected a number; give the elements as one flat list/],
  ["FP32", [1], 5, /the elements must be a flat list or a typed array, and are the number 5: put it in brackets/],
  ["FP32", [2], [1, "2"], /element 1 is the string "2", expected a number/],
  ["FP32", [2], [1, undefined], /element 1 is undefined/],
  ["FP32", [1], [1n], /element 0 is the BigInt 1, expected a number/],
  ["INT8", [2], [1, 300], /element 1 is the number 300, expected a whole number from -128 to 127/],
  ["UINT8", [1], [-1], /from 0 to 255/],
  ["INT32", [1], [1.5], /element 0 is the number 1.5/],
  ["INT32", [1], [NaN], /element 0 is the number NaN/],
  ["INT32", [1], [true], /element 0 is the boolean true/],
  ["INT32", [1], [2n ** 40n], /element 0 is the BigInt 1099511627776/],
  ["INT64", [1], [2 ** 53], /element 0 is the number 9007199254740992, expected a BigInt such as 9007199254740993n/],
  ["INT64", [1], [2n ** 63n], /from -9223372036854775808 to 9223372036854775807/],
  ["UINT64", [1], [-1], /element 0 is the number -1/],
  ["INT64", [1], ["1"], /element 0 is the string "1"/],
  ["BOOL", [1], [2], /expected true, false, 1 or 0/],
  ["BYTES", [1], [5], /element 0 is the number 5, expected a string or a Uint8Array/],
];

test("errors of tensor() say what is wrong", () => {
  for (const [datatype, shape, elements, expected] of REFUSED) {
    assert.match(thrown(() => hostler.tensor("x", datatype, shape, elements)).message, expected);
  }
});

test("spec, named, elements and described refuse what they cannot use", () => {
  assert.deepEqual(hostler.spec("x", "FP32", [-1, 3]), { name: "x", datatype: "fp32", shape: [-1, 3] });
  assert.match(thrown(() => hostler.spec("x", "FP32", [-2])).message, /or -1 for a free dimension/);
  const y = hostler.tensor("score", "FP32", [1], [1]);
  assert.equal(hostler.named([y], "score"), y);
  const missing = thrown(() => hostler.named([y], "scores"));
  assert.deepEqual([missing.kind, missing.message], ["failed", 'there is no tensor "scores"']);
  assert.match(thrown(() => hostler.elements([y])).message, /expected a tensor, and got an Array: choose one/);
  assert.match(thrown(() => hostler.described(undefined)).message, /expected a tensor, and got undefined/);
});
