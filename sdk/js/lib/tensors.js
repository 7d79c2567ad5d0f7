// Tensors.

import types from "hostler:plugin/types@0.1.0";
import { isTensor, shape as checkedShape, string } from "./arguments.js";
import { knownDatatype, packed, unpacked } from "./datatypes.js";
import { error, hostCall } from "./errors.js";
import { quoted, shown } from "./names.js";

export function tensor(name, datatype, shape, elements) {
  string(name, "hostler.tensor()", "the name");
  let subject = `hostler.tensor(${quoted(name)})`;
  knownDatatype(datatype, subject);
  const dimensions = checkedShape(shape, subject, 0);
  subject = `hostler.tensor(${quoted(name)}, "${datatype}", [${dimensions.join(",")}])`;
  const list = flatList(elements, subject);
  const count = dimensions.reduce((product, dimension) => product * dimension, 1);
  if (list.length !== count) {
    const nested = Array.isArray(list[0]) ? ": give them as one flat list, as elements.flat() returns it" : "";
    throw new RangeError(`${subject}: the shape needs ${count} elements, and there are ${list.length}${nested}`);
  }
  const data = packed(datatype, list, subject);
  return hostCall(() => types.Tensor.create(name, datatype.toLowerCase(), dimensions, data));
}

function flatList(elements, subject) {
  if (Array.isArray(elements)) return elements;
  if (ArrayBuffer.isView(elements) && !(elements instanceof DataView)) return elements;
  if (elements !== null && typeof elements === "object" && Symbol.iterator in elements) return Array.from(elements);
  const hint = typeof elements === "object" || elements === undefined ? "" : ": put it in brackets";
  throw new TypeError(
    `${subject}: the elements must be a flat list or a typed array, and are ${shown(elements)}${hint}`,
  );
}

export function elements(tensor) {
  ensureTensor(tensor, "hostler.elements()");
  return unpacked(tensor.datatype().toUpperCase(), tensor.read(0, tensor.byteLength()));
}

export function spec(name, datatype, shape) {
  string(name, "hostler.spec()", "the name");
  const subject = `hostler.spec(${quoted(name)})`;
  knownDatatype(datatype, subject);
  return { name, datatype: datatype.toLowerCase(), shape: checkedShape(shape, subject, -1) };
}

export function named(tensors, name) {
  if (!Array.isArray(tensors)) {
    throw new TypeError(`hostler.named(): expected a list of tensors, and got ${shown(tensors)}`);
  }
  const found = tensors.find((tensor) => tensor.name() === name);
  if (found) return found;
  // The SDKs in other languages have the same message.
  throw error("failed", `there is no tensor ${quoted(name)}`);
}

export function described(tensor) {
  ensureTensor(tensor, "hostler.described()");
  return `${tensor.datatype().toUpperCase()} [${[...tensor.shape()].join(",")}]`;
}

function ensureTensor(value, subject) {
  if (isTensor(value)) return;
  const hint = Array.isArray(value) ? ": choose one, as hostler.named(tensors, name) does" : "";
  throw new TypeError(`${subject}: expected a tensor, and got ${shown(value)}${hint}`);
}
