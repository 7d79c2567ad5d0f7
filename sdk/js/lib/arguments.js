// Checks of arguments. The runtime stops the whole instance if an argument of a host call has the
// wrong type, so the SDK checks it first and throws a TypeError or RangeError, which names the
// call.

import types from "hostler:plugin/types@0.1.0";
import { hostCall } from "./errors.js";
import { shown } from "./names.js";

// The most dimensions that a tensor may have.
const RANK_MAX = 16;
const NOTE_BYTES_MAX = 1 << 20;

export function string(value, subject, what) {
  if (typeof value === "string") return value;
  throw new TypeError(`${subject}: ${what} must be a string, and is ${shown(value)}`);
}

// A whole number that is not negative.
export function whole(value, subject, what) {
  const number = typeof value === "bigint" ? Number(value) : value;
  if (Number.isSafeInteger(number) && number >= 0) return number;
  throw argumentError(value, `${subject}: ${what} must be a whole number, at least 0, and is ${shown(value)}`);
}

// A whole number within 2^53, in either direction.
export function integer(value, subject, what) {
  const number = typeof value === "bigint" ? Number(value) : value;
  if (Number.isSafeInteger(number)) return number;
  throw argumentError(value, `${subject}: ${what} must be a whole number within 2^53, and is ${shown(value)}`);
}

export function number(value, subject, what) {
  if (typeof value === "number") return value;
  throw new TypeError(`${subject}: ${what} must be a number, and is ${shown(value)}`);
}

export function strings(list, subject, what) {
  if (!Array.isArray(list)) throw new TypeError(`${subject}: ${what} must be a list of strings, and is ${shown(list)}`);
  list.forEach((item, i) => string(item, subject, `item ${i} of ${what}`));
  return list;
}

export function bytes(data, subject, what = "the data") {
  if (data instanceof Uint8Array) return data;
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  const hint = typeof data === "string" ? "; hostler.encoded(text) returns the bytes of a text" : "";
  throw new TypeError(`${subject}: ${what} must be a Uint8Array, and is ${shown(data)}${hint}`);
}

// Checks a shape. `least` is -1 in metadata, where it is a free dimension, and 0 in tensors.
export function shape(list, subject, least) {
  if (!Array.isArray(list) && !ArrayBuffer.isView(list)) {
    throw new TypeError(`${subject}: the shape must be a list such as [2, 3], and is ${shown(list)}`);
  }
  const dimensions = Array.from(list, (dimension) => (typeof dimension === "bigint" ? Number(dimension) : dimension));
  if (dimensions.length > RANK_MAX) {
    throw new RangeError(
      `${subject}: the shape has ${dimensions.length} dimensions; at most ${RANK_MAX} are supported`,
    );
  }
  dimensions.forEach((dimension, i) => {
    if (Number.isSafeInteger(dimension) && dimension >= least) return;
    const free = dimension === -1 ? "; -1 is only for the metadata, in hostler.spec()" : "";
    const expected = least < 0 ? "a whole number, or -1 for a free dimension" : "a whole number, at least 0";
    throw argumentError(
      dimension,
      `${subject}: dimension ${i} of the shape must be ${expected}, and is ${shown(dimension)}${free}`,
    );
  });
  return dimensions;
}

const argumentError = (value, message) =>
  new (typeof value === "number" || typeof value === "bigint" ? RangeError : TypeError)(message);

// Handles that the plugin no longer has, with the reason.
const gone = new WeakMap();

export const isTensor = (value) => value instanceof types.Tensor;

// The runtime's class of tensors has no name.
const described = (value) => (isTensor(value) ? "a tensor" : shown(value));

// Checks a list of tensors. `subject` begins the messages; `returned` says that the host takes the
// tensors, each at most once.
export function tensorList(list, subject, { returned = false, ErrorType = TypeError } = {}) {
  const expected = `${subject} a list of tensors made by hostler.tensor()`;
  const got = returned ? "returned" : "got";
  if (list === undefined && returned) {
    throw new ErrorType(`${expected}, and returned nothing: is a "return" missing?`);
  }
  if (typeof list?.then === "function") {
    throw new ErrorType(
      `${expected}, and ${got} a Promise: a plugin cannot wait for Promises; remove "async" and "await", because host calls return their results directly`,
    );
  }
  if (!Array.isArray(list)) {
    const hint = isTensor(list) ? ": put it in brackets" : "";
    throw new ErrorType(`${expected}, and ${got} ${described(list)}${hint}`);
  }
  for (let i = 0; i < list.length; i++) {
    const tensor = list[i];
    if (!isTensor(tensor)) throw new ErrorType(`${expected}; item ${i} is ${described(tensor)}`);
    const reason = gone.get(tensor);
    if (reason !== undefined) throw new ErrorType(`${expected}; item ${i} ${reason}`);
    if (!returned) continue;
    const first = list.indexOf(tensor);
    if (first < i) {
      throw new ErrorType(
        `${expected}; items ${first} and ${i} are the same tensor: return it once, or use tensor.renamed(name) for a second one`,
      );
    }
  }
  return list;
}

// Records that the host has taken these tensors.
export function taken(list, where) {
  const reason = `is a tensor that ${where} returned before, so it belongs to the host: create it again`;
  for (const tensor of list) gone.set(tensor, reason);
}

// Replaces a method of a class of handles by one that checks its arguments.
export function checked(Handle, method, check) {
  const call = Handle.prototype[method];
  Object.defineProperty(Handle.prototype, method, {
    value(...args) {
      const checked = check(...args);
      return hostCall(() => call.apply(this, checked));
    },
    writable: true,
    configurable: true,
  });
}

checked(types.Tensor, "read", (offset, length) => [
  whole(offset, "tensor.read()", "the offset"),
  whole(length, "tensor.read()", "the length"),
]);
checked(types.Tensor, "renamed", (name) => [string(name, "tensor.renamed()", "the name")]);
checked(types.Tensor, "reshaped", (list) => [shape(list, "tensor.reshaped()", 0)]);
checked(types.Request, "parameter", (name) => [string(name, "request.parameter()", "the name")]);
checked(types.Request, "setNote", (data) => {
  const note = bytes(data, "request.setNote()", "the note");
  if (note.length <= NOTE_BYTES_MAX) return [note];
  throw new RangeError(`request.setNote(): the note has ${note.length} bytes; at most ${NOTE_BYTES_MAX} are allowed`);
});

const dispose = types.Tensor.prototype[Symbol.dispose];
if (dispose) {
  types.Tensor.prototype[Symbol.dispose] = function () {
    gone.set(this, "was disposed of: use a tensor before its [Symbol.dispose]()");
    return dispose.call(this);
  };
}
