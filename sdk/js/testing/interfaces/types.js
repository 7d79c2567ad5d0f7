// The stand-in for `hostler:plugin/types`.

import { encoded } from "../../lib/text.js";
import { abort, argument, arity, hostError, memory } from "../memory.js";

const SIZES = {
  ...{ bool: 1, uint8: 1, uint16: 2, uint32: 4, uint64: 8, int8: 1, int16: 2, int32: 4, int64: 8 },
  ...{ fp16: 2, bf16: 2, fp32: 4, fp64: 8, bytes: null },
};
const RANK_MAX = 16;
const NOTE_BYTES_MAX = 1 << 20;

// The resources behind handles, and why a handle has none any more.
const resources = new WeakMap();
const gone = new WeakMap();

export class Tensor {
  static create(...args) {
    arity(args, 4, "[static]tensor.create");
    const [name, datatype, shape, data] = args;
    argument(name, "string", "tensor.create: name");
    if (!(datatype in SIZES)) throw abort(`unknown enum case: ${datatype}`);
    return handle(
      newTensor(name, datatype, dimensions(shape), Uint8Array.from(argument(data, "bytes", "tensor.create: data"))),
    );
  }
  name() {
    return borrow(this).name;
  }
  datatype() {
    return borrow(this).datatype;
  }
  shape() {
    return [...borrow(this).shape];
  }
  byteLength() {
    return borrow(this).data.length;
  }
  read(...args) {
    arity(args, 2, "[method]tensor.read");
    const [offset, length] = args.map((value) => argument(value, "u64", "tensor.read"));
    return borrow(this).data.slice(offset, offset + length);
  }
  renamed(...args) {
    arity(args, 1, "[method]tensor.renamed");
    return handle({ ...borrow(this), name: argument(args[0], "string", "tensor.renamed") });
  }
  reshaped(...args) {
    arity(args, 1, "[method]tensor.reshaped");
    const tensor = borrow(this);
    const shape = dimensions(args[0]);
    const isSame = `${shape}` === `${tensor.shape}`;
    return handle(isSame ? { ...tensor } : newTensor(tensor.name, tensor.datatype, shape, tensor.data));
  }
  [Symbol.dispose]() {
    borrow(this);
    gone.set(this, "resource has been disposed");
  }
}

// Returns a handle of a tensor `{ name, datatype, shape, data, origin }`.
export function handle(tensor) {
  const made = Object.create(Tensor.prototype);
  resources.set(made, tensor);
  return made;
}

// Returns the tensor behind a handle, with the runtime's messages.
export function borrow(made) {
  if (!resources.has(made)) throw new TypeError("expected an imported resource wrapper");
  if (gone.has(made)) throw new TypeError(gone.get(made));
  return resources.get(made);
}

// Returns the tensor behind a handle, and takes the handle from the plugin.
export function take(made) {
  const tensor = borrow(made);
  gone.set(made, "resource ownership has already been transferred");
  return tensor;
}

export function newTensor(name, datatype, shape, data) {
  const label = `tensor "${name}"`;
  const count = elementCount(shape, label);
  const size = SIZES[datatype];
  if (size !== null && data.length !== count * size) {
    throw hostError(
      "invalid-input",
      `${label}: ${datatype.toUpperCase()} of shape [${shape}] needs ${count * size} bytes, got ${data.length}`,
    );
  }
  if (datatype === "bool" && data.some((byte) => byte > 1)) {
    throw hostError("invalid-input", `${label}: BOOL elements are bytes 0 or 1`);
  }
  if (size === null) {
    const found = bytesElements(data, label);
    if (found !== count) {
      throw hostError("invalid-input", `${label}: BYTES of shape [${shape}] needs ${count} elements, got ${found}`);
    }
  }
  return { name, datatype, shape, data, origin: "plugin" };
}

const dimensions = (shape) =>
  Array.from(argument(shape, "list", "shape"), (one) => Math.trunc(argument(one, "number", "shape")));

function elementCount(shape, label) {
  if (shape.length > RANK_MAX) {
    throw hostError("invalid-input", `${label}: ${shape.length} dimensions; at most ${RANK_MAX} are supported`);
  }
  if (shape.some((one) => one < 0)) {
    throw hostError("invalid-input", `${label}: shape [${shape}] has a negative dimension`);
  }
  return shape.reduce((product, one) => product * one, 1);
}

function bytesElements(data, label) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let count = 0;
  for (let at = 0; at < data.length; count++) {
    const end = at + 4 <= data.length ? at + 4 + view.getUint32(at, true) : Infinity;
    if (end > data.length) throw hostError("invalid-input", `${label}: BYTES element ${count} is cut off`);
    at = end;
  }
  return count;
}

export class Request {
  id() {
    return requestOf(this).id;
  }
  model() {
    return requestOf(this).model;
  }
  version() {
    return requestOf(this).version;
  }
  timeLeft() {
    const { deadline } = requestOf(this);
    return deadline === null ? null : Math.max(0, Math.floor(deadline - memory.now));
  }
  cancelled() {
    return requestOf(this).cancelled;
  }
  parameter(...args) {
    arity(args, 1, "[method]request.parameter");
    const { parameters } = requestOf(this);
    const name = argument(args[0], "string", "request.parameter");
    return Object.hasOwn(parameters, name) ? { ...parameters[name] } : null;
  }
  parameterNames() {
    return Object.keys(requestOf(this).parameters);
  }
  note() {
    return requestOf(this).note.slice();
  }
  setNote(...args) {
    arity(args, 1, "[method]request.set-note");
    const note = Uint8Array.from(argument(args[0], "bytes", "request.set-note"));
    if (note.length > NOTE_BYTES_MAX) {
      throw abort(`set a note of ${note.length} bytes; at most ${NOTE_BYTES_MAX} are allowed`);
    }
    requestOf(this).note = note;
  }
}

// Returns a handle of a request; `newRequest` makes the request.
export function requestHandle(request) {
  const made = Object.create(Request.prototype);
  resources.set(made, request);
  return made;
}

export function requestOf(made) {
  if (!resources.has(made)) throw new TypeError("expected an imported resource wrapper");
  if (gone.has(made)) throw new TypeError("the request was used after the call that received it");
  return resources.get(made);
}

// Ends the use of a request, as the end of its call does.
export const closeRequest = (made) => gone.set(made, "closed");

export function newRequest({
  id = "test",
  model = "model",
  version = "1",
  timeLeft = null,
  cancelled = false,
  parameters = {},
  note = new Uint8Array(),
} = {}) {
  const tagged = ([name, value]) => [name, parameter(name, value)];
  return {
    id,
    model,
    version,
    deadline: timeLeft === null ? null : memory.now + timeLeft,
    cancelled,
    parameters: Object.fromEntries(Object.entries(parameters).map(tagged)),
    note: typeof note === "string" ? encoded(note) : note,
  };
}

function parameter(name, value) {
  if (typeof value === "boolean") return { tag: "boolean", val: value };
  if (Number.isSafeInteger(value)) return { tag: "integer", val: value };
  if (typeof value === "number") return { tag: "number", val: value };
  if (typeof value === "string") return { tag: "text", val: value };
  if (["boolean", "integer", "number", "text"].includes(value?.tag)) return value;
  throw new TypeError(`parameter "${name}" of the request must be a boolean, a number or a string`);
}

export default { Tensor, Request };
