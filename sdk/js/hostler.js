// The module for plugin authors: constructors for payloads, errors and tensors, and helpers for
// parameters, assets, config, state, metrics and the log. Plugins that call models also import
// `executor.js`.
//
//     import * as hostler from "../../sdk/js/hostler.js";
//
//     export const model = hostler.model({
//       metadata() {
//         const message = hostler.spec("message", "BYTES", [-1]);
//         return { inputs: [message], outputs: [message] };
//       },
//       predict: (request, inputs) => inputs,
//     });

import assets from "hostler:plugin/assets@0.1.0";
import metrics from "hostler:plugin/metrics@0.1.0";
import state from "hostler:plugin/state@0.1.0";
import types from "hostler:plugin/types@0.1.0";
import store from "wasi:config/store@0.2.0-rc.1";
import logging from "wasi:logging/logging@0.1.0-draft";

// Roles. An exception that is not an error of the contract is a fault in the plugin: its stack goes
// to the log, and the caller receives `failed` with its message.

// Turns what an application sends into a model's inputs, and the model's outputs into an answer:
// `preprocess(request, payload)` returns tensors, `postprocess(request, tensors)` returns a
// payload. Each call may run in an instance of its own, so pass data from preprocess to postprocess
// with `request.setNote(bytes)`. A payload is `{ tag: "json" | "bytes" | "tensors", val }`.
export function transformer({ metadata, preprocess, postprocess }) {
  return {
    metadata: () => metadata?.() ?? null,
    preprocess: guarded(preprocess),
    postprocess: guarded(postprocess),
  };
}

// A plugin that is itself a model: `metadata()` returns `{ inputs, outputs }` of `spec`,
// `predict(request, tensors)` returns tensors. The inputs match the metadata.
export function model({ metadata, predict }) {
  return { metadata, predict: guarded(predict) };
}

// A model's inputs that a request may omit. Without it, `predict` always receives all inputs.
//
//     export const optionalInputs = hostler.optionalInputs("b");
export const optionalInputs = (...names) => ({ names: () => names });

// Exported for `executor.js`. That is a separate module because only plugins that call models can
// import the interfaces that it imports.
export function guarded(call) {
  return (...args) => {
    try {
      return call(...args);
    } catch (thrown) {
      throw contractError(thrown);
    }
  };
}

function contractError(thrown) {
  // Errors of the host, such as those of `Tensor.create`, are wrapped.
  const error = thrown?.payload ?? thrown;
  if (typeof error?.kind === "string") return error;
  log(`${thrown}\n${thrown?.stack ?? ""}`, "error");
  return failed(`${thrown}`);
}

// Payloads

export const json = (text) => ({ tag: "json", val: text });
export const bytes = (contentType, data) => ({ tag: "bytes", val: { contentType, data } });
export const tensors = (list) => ({ tag: "tensors", val: list });

// Errors, to be thrown: `throw hostler.invalid("age", "expected a number")`

// An error of any kind of the contract, such as `overloaded`.
export const error = (kind, message, field = null) => ({ kind, message, field });
// The caller's input is wrong at `field`, a path such as `items[3].name`; null for all of it.
export const invalid = (field, message) => error("invalid-input", message, field);
// Something that the caller named does not exist.
export const notFound = (message) => error("not-found", message);
// A valid request for something that is not offered.
export const unsupported = (message) => error("unsupported", message);
// An error that is not the caller's fault.
export const failed = (message) => error("failed", message);

// Tensors. Datatypes have the names of the Open Inference Protocol.

const ARRAYS = {
  BOOL: Uint8Array,
  UINT8: Uint8Array,
  UINT16: Uint16Array,
  UINT32: Uint32Array,
  UINT64: BigUint64Array,
  INT8: Int8Array,
  INT16: Int16Array,
  INT32: Int32Array,
  INT64: BigInt64Array,
  FP16: Float16Array,
  FP32: Float32Array,
  FP64: Float64Array,
};

// Creates a tensor from a flat list of numbers (64-bit integers may be BigInt), or, for BYTES, of
// strings and Uint8Arrays.
export function tensor(name, datatype, shape, elements) {
  const data = datatype === "BYTES" ? joined(elements) : packed(ARRAYS[datatype], elements);
  return types.Tensor.create(name, datatype.toLowerCase(), shape, data);
}

// Returns the elements of a tensor as a typed array (BigInt for 64-bit integers); for BYTES, as a
// list of Uint8Arrays.
export function elements(tensor) {
  const data = tensor.read(0, tensor.byteLength());
  const datatype = tensor.datatype().toUpperCase();
  return datatype === "BYTES" ? split(data) : new ARRAYS[datatype](data.slice().buffer);
}

// Describes an input or output: name, datatype and shape, with -1 for a free dimension.
export function spec(name, datatype, shape) {
  return { name, datatype: datatype.toLowerCase(), shape };
}

// Returns the tensor with this name. A missing one is not the caller's fault: the error is
// `failed`.
export function named(tensors, name) {
  const found = tensors.find((tensor) => tensor.name() === name);
  if (!found) throw failed(`there is no tensor "${name}"`);
  return found;
}

// Formats datatype and shape for an error message: `FP32 [1,18]`.
export function described(tensor) {
  return `${tensor.datatype().toUpperCase()} [${[...tensor.shape()].join(",")}]`;
}

function packed(TypedArray, elements) {
  const wide = TypedArray === BigInt64Array || TypedArray === BigUint64Array;
  return new Uint8Array(TypedArray.from(elements, wide ? BigInt : Number).buffer);
}

// Encodes BYTES elements: each is preceded by its length, 4 bytes little-endian.
function joined(elements) {
  const parts = elements.map((element) => (typeof element === "string" ? encoded(element) : element));
  const data = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  let at = 0;
  for (const part of parts) {
    new DataView(data.buffer).setUint32(at, part.length, true);
    data.set(part, at + 4);
    at += 4 + part.length;
  }
  return data;
}

function split(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const elements = [];
  for (let at = 0; at + 4 <= data.length; ) {
    const end = at + 4 + view.getUint32(at, true);
    elements.push(data.slice(at + 4, end));
    at = end;
  }
  return elements;
}

// Text. A plugin has no TextDecoder.

// Encodes a string as UTF-8.
export function encoded(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (letter) => letter.charCodeAt(0));
}

// Decodes UTF-8; throws a URIError if the bytes are not UTF-8.
export function decoded(data) {
  let escapes = "";
  for (const byte of data) escapes += "%" + byte.toString(16).padStart(2, "0");
  return decodeURIComponent(escapes);
}

// Request parameters. A parameter of another type is the caller's fault: the error is
// `invalid-input` with the field `parameters.<name>`.

// Returns a boolean parameter, or false if the request has none with this name.
export const flag = (request, name) => parameter(request, name, "true or false", ["boolean"]) ?? false;
// Returns a string parameter, or null.
export const text = (request, name) => parameter(request, name, "a text", ["text"]);
// Returns an integer parameter, or null.
export const integer = (request, name) => parameter(request, name, "a whole number", ["integer"]);
// Returns a number parameter, integer or not, or null.
export const number = (request, name) => parameter(request, name, "a number", ["number", "integer"]);

function parameter(request, name, expected, kinds) {
  const found = request.parameter(name);
  if (found === null) return null;
  if (!kinds.includes(found.tag)) {
    throw invalid(`parameters.${name}`, `parameter "${name}": expected ${expected}`);
  }
  return found.val;
}

// Assets and config of the manifest, and the log.

// Returns the bytes of an asset. A missing asset is the operator's fault, not the caller's.
export function asset(name) {
  try {
    return assets.read(name, 0, assets.size(name));
  } catch (thrown) {
    throw failed(`asset "${name}": ${thrown.payload?.message ?? thrown}`);
  }
}

// Returns the value of a key, or null if the manifest does not set it.
export function config(key) {
  return store.get(key);
}

// Data that the plugin keeps across requests, instances and swaps: `state.get(key)`, `.set(key,
// bytes, ttlMs)`, `.delete(key)`, `.getTensors(key)`, `.setTensors(key, tensors, ttlMs)`,
// `.add(counter, delta)`, `.compareExchange(counter, expected, value)`, which throws the current
// value as `payload`.
export { state };

// Metrics for the operator: `count` adds to `hostler_plugin_events_total{plugin, name}`, `gauge`
// sets `hostler_plugin_value{plugin, name}`.
export const count = (name, by = 1) => metrics.count(name, by);
export const gauge = (name, value) => metrics.set(name, value);

// Metrics with a help text and labels; exceeding a limit is an error. They belong to the plugin:
// creating one that exists returns the same metric. `values` are the values of the labels, in their
// order. Create metrics in a call, not at the top of the module, which runs when the plugin is
// built.

// A value that only increases, `hostler_plugin_counter_<name>_total{plugin, …}`: `.add(values,
// by)`.
export const counter = (name, help, labels = []) => metrics.Counter.create(name, help, labels);
// A value that can increase and decrease, `hostler_plugin_gauge_<name>{plugin, …}`: `.set(values,
// value)`, `.add(values, by)`.
export const gaugeOf = (name, help, labels = []) => metrics.Gauge.create(name, help, labels);
// A distribution of values, `hostler_plugin_histogram_<name>_bucket{plugin, le, …}`, `…_sum`,
// `…_count`: `.observe(values, value)`. Buckets are upper bounds in ascending order.
export const histogram = (name, help, buckets, labels = []) =>
  metrics.Histogram.create(name, help, labels, Float64Array.from(buckets));

// Writes a line to the host's log, at level debug, info, warn or error.
export function log(message, level = "info") {
  logging.log(level, "", message);
}
