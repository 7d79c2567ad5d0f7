// Types of the module for plugin authors. Errors that are called a fault are TypeErrors and
// RangeErrors: the mistake is the plugin's. If a function of the role does not catch one, the
// caller receives `failed` with one line about it, and the stack goes to the host's log.

/** A datatype of the Open Inference Protocol. */
export type Datatype =
  | "BOOL"
  | "UINT8"
  | "UINT16"
  | "UINT32"
  | "UINT64"
  | "INT8"
  | "INT16"
  | "INT32"
  | "INT64"
  | "FP16"
  | "BF16"
  | "FP32"
  | "FP64"
  | "BYTES";

/** A datatype as the host's own functions name it. */
export type HostDatatype = Lowercase<Datatype>;

/**
 * A handle of an immutable tensor that the host owns. A function of a role owns the tensors that it
 * receives or creates, until it returns them; then they belong to the host, and using such a handle
 * is a fault. Handles that are not returned are freed by garbage collection.
 */
export interface Tensor {
  name(): string;
  datatype(): HostDatatype;
  /** The dimensions, outermost first. */
  shape(): number[];
  /** The number of bytes that `read` can return in total. */
  byteLength(): number;
  /** Copies at most `length` bytes from `offset` on. Little-endian, row-major, without padding. */
  read(offset: number, length: number): Uint8Array;
  /** Returns the same data under another name. Copies nothing. */
  renamed(name: string): Tensor;
  /**
   * Returns the same data in another shape. Copies nothing. Throws `invalid-input` if the number of
   * elements differs.
   */
  reshaped(shape: readonly number[]): Tensor;
  /** Frees the handle now. Using it afterwards is a fault. */
  [Symbol.dispose](): void;
}

/** The value of a request parameter. Integers are exact up to 2^53. */
export type Parameter =
  | { tag: "boolean"; val: boolean }
  | { tag: "integer"; val: number }
  | { tag: "number"; val: number }
  | { tag: "text"; val: string };

/** The request that a call belongs to. It must not be used after the call that received it. */
export interface Request {
  /** The caller's id, or one that the host generated. */
  id(): string;
  model(): string;
  version(): string;
  /** Milliseconds until this call is stopped; null if there is no limit. */
  timeLeft(): number | null;
  /** Whether the client has disconnected or the call was cancelled. */
  cancelled(): boolean;
  /** A parameter of any type, or null. `flag`, `text`, `integer` and `number` check the type. */
  parameter(name: string): Parameter | null;
  parameterNames(): string[];
  /** The bytes that an earlier call for the same request stored; empty at first. */
  note(): Uint8Array;
  /** Stores bytes for a later call of the same request. More than 1 MiB is a fault. */
  setNote(data: Uint8Array): void;
}

/** What an application sent, or the answer that it receives. */
export type Payload = JsonPayload | BytesPayload | TensorsPayload;
export interface JsonPayload {
  tag: "json";
  /** The text of one JSON value. */
  val: string;
}
export interface BytesPayload {
  tag: "bytes";
  val: { contentType: string; data: Uint8Array };
}
export interface TensorsPayload {
  tag: "tensors";
  val: Tensor[];
}

/** An input or output of a model; made by `spec`. */
export interface TensorSpec {
  name: string;
  datatype: HostDatatype;
  /** -1 where a dimension is free. */
  shape: number[];
}

export interface Metadata {
  inputs: TensorSpec[];
  outputs: TensorSpec[];
}

// Roles

export interface TransformerFunctions {
  /**
   * The inputs and outputs that clients see; null, or no function, if they are the model's own.
   * Called once, at load.
   */
  metadata?(): Metadata | null | undefined;
  /** Converts what the client sent to the model's inputs. */
  preprocess(request: Request, input: Payload): Tensor[];
  /** Converts a response of the model to the answer. */
  postprocess(request: Request, outputs: Tensor[]): Payload;
}
export interface Transformer {
  metadata(): Metadata | null;
  preprocess(request: Request, input: Payload): Tensor[];
  postprocess(request: Request, outputs: Tensor[]): Payload;
}

/**
 * Makes a transformer, to be exported as `transformer`. Preprocess and postprocess of a request may
 * run in different instances; pass data from one to the other with `request.setNote(bytes)`.
 *
 * @throws TypeError when the module is evaluated, if a function is missing, misspelt or async.
 */
export function transformer(functions: TransformerFunctions): Transformer;

export interface ModelFunctions {
  /** The inputs and outputs. Called once, at load. An exception makes the load fail. */
  metadata(): Metadata;
  /** Computes outputs. The inputs match the metadata. */
  predict(request: Request, inputs: Tensor[]): Tensor[];
}
export interface Model {
  metadata(): Metadata;
  predict(request: Request, inputs: Tensor[]): Tensor[];
}

/**
 * Makes a model, to be exported as `model`.
 *
 * @throws TypeError when the module is evaluated, if a function is missing, misspelt or async.
 */
export function model(functions: ModelFunctions): Model;

export interface OptionalInputs {
  names(): string[];
}

/**
 * Names the inputs of a model that a request may omit, to be exported as `optionalInputs` beside
 * `model`. Without it, `predict` always receives all inputs.
 */
export function optionalInputs(...names: string[]): OptionalInputs;

// Payloads

/** An answer of one JSON value, given as text: `json(JSON.stringify(value))`. */
export function json(text: string): JsonPayload;
/** An answer of any other content type. */
export function bytes(contentType: string, data: Uint8Array): BytesPayload;
/** An answer of tensors. They belong to the host once the payload is returned. */
export function tensors(list: Tensor[]): TensorsPayload;

// Errors

export type ErrorKind =
  | "invalid-input"
  | "not-found"
  | "unsupported"
  | "too-large"
  | "overloaded"
  | "unavailable"
  | "deadline"
  | "cancelled"
  | "failed";

/** The parts of an error that the caller receives. */
export interface ContractError {
  kind: ErrorKind;
  message: string;
  /** The input field at fault, such as `items[3].name`; null if it is not one field. */
  field: string | null;
}

/** An error of the contract. The functions of this module throw the host's errors as this class. */
export class PluginError extends Error implements ContractError {
  constructor(kind: ErrorKind, message: string, field?: string | null);
  readonly kind: ErrorKind;
  readonly field: string | null;
}

/** An error of any kind, to be thrown. */
export function error(kind: ErrorKind, message: string, field?: string | null): PluginError;
/** The caller's input is wrong at `field`, a path such as `items[3].name`; null for all of it. */
export function invalid(field: string | null, message: string): PluginError;
/** Something that the caller named does not exist. */
export function notFound(message: string): PluginError;
/** A valid request for something that is not offered. */
export function unsupported(message: string): PluginError;
/** An error that is not the caller's fault. */
export function failed(message: string): PluginError;
/**
 * Returns kind, message and field of a caught error of the contract; null for any other exception.
 */
export function errorOf(thrown: unknown): ContractError | null;

// Tensors

/** Numbers, or a typed array of them. */
export type Numbers = Iterable<number>;
export type Elements = Iterable<number> | Iterable<bigint> | Iterable<number | bigint>;

/**
 * Creates a tensor from a flat list of elements. A typed array of the datatype's own type is taken
 * as it is, which is fastest: `Float32Array` for FP32, `BigInt64Array` for INT64.
 *
 * Numbers are rounded to FP32, FP16 and BF16 to the nearest value, halves to even. FP16 and BF16
 * have no typed array of their own here; give numbers or a `Float32Array`. Integers are never
 * wrapped.
 *
 * @throws TypeError or RangeError if the datatype is unknown, if the number of elements is not that
 * of the shape, or if an element has the wrong type or is out of range; the message names its
 * index.
 */
export function tensor(
  name: string,
  datatype: "BYTES",
  shape: readonly number[],
  elements: Iterable<string | Uint8Array>,
): Tensor;
export function tensor(
  name: string,
  datatype: "BOOL",
  shape: readonly number[],
  elements: Iterable<boolean | number>,
): Tensor;
export function tensor(
  name: string,
  datatype: "FP16" | "BF16" | "FP32" | "FP64",
  shape: readonly number[],
  elements: Numbers,
): Tensor;
export function tensor(
  name: string,
  datatype: Exclude<Datatype, "BYTES" | "BOOL">,
  shape: readonly number[],
  elements: Elements,
): Tensor;

/** What `elements` returns; it depends on the datatype of the tensor. */
export type TensorElements =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Float32Array
  | Float64Array
  | Uint8Array[];

/** The typed array of each datatype. BOOL is 1 and 0; FP16 and BF16 are converted to FP32. */
export interface ElementsOf {
  BOOL: Uint8Array;
  UINT8: Uint8Array;
  UINT16: Uint16Array;
  UINT32: Uint32Array;
  UINT64: BigUint64Array;
  INT8: Int8Array;
  INT16: Int16Array;
  INT32: Int32Array;
  INT64: BigInt64Array;
  FP16: Float32Array;
  BF16: Float32Array;
  FP32: Float32Array;
  FP64: Float64Array;
  BYTES: Uint8Array[];
}

/**
 * Copies the elements of a tensor, in row-major order. The type of the result depends on the
 * tensor's datatype. TypeScript does not know it: name it, as in `elements<"FP32">(tensor)`.
 *
 * @throws TypeError if the value is not a tensor, or is one that was returned before.
 */
export function elements<D extends Datatype = never>(
  tensor: Tensor,
): [D] extends [never] ? TensorElements : ElementsOf[D];

/**
 * Describes an input or output for the metadata; -1 is a free dimension.
 *
 * @throws TypeError or RangeError if the datatype is unknown or the shape is not one.
 */
export function spec(name: string, datatype: Datatype, shape: readonly number[]): TensorSpec;

/**
 * Returns the tensor with this name.
 *
 * @throws PluginError `failed`: a missing tensor is not the caller's fault.
 */
export function named(tensors: readonly Tensor[], name: string): Tensor;

/** Formats datatype and shape for a message: `FP32 [1,18]`. */
export function described(tensor: Tensor): string;

// Text

/** Encodes a string as UTF-8. @throws URIError if it contains half a surrogate pair. */
export function encoded(text: string): Uint8Array;
/** Decodes UTF-8. @throws URIError if the bytes are not UTF-8. */
export function decoded(data: Uint8Array): string;

// Request parameters. A parameter of another type is the caller's fault: `invalid-input` with the
// field `parameters.<name>`.

/** A boolean parameter; false if the request has none with this name. */
export function flag(request: Request, name: string): boolean;
/** A string parameter, or null. */
export function text(request: Request, name: string): string | null;
/** An integer parameter, or null. Exact up to 2^53. */
export function integer(request: Request, name: string): number | null;
/** A number parameter, integer or not, or null. */
export function number(request: Request, name: string): number | null;

// Assets and config of the manifest

/**
 * Returns all bytes of an asset.
 *
 * @throws PluginError `failed` if the manifest lists none of this name.
 */
export function asset(name: string): Uint8Array;
/** Returns the names of all assets. */
export function assetNames(): string[];
/** Returns the value of a config key, or null if the manifest does not set it. */
export function config(key: string): string | null;
/** Returns all config keys and values. */
export function configAll(): Record<string, string>;

// State

/**
 * Data that the plugin keeps across requests, instances and swaps of its file, within `state_kb`.
 */
export interface State {
  /** Returns the bytes under a key, or null. */
  get(key: string): Uint8Array | null;
  /**
   * Sets a key. It expires after `ttlMs` milliseconds, if given.
   *
   * @throws PluginError `too-large`.
   */
  set(key: string, value: Uint8Array, ttlMs?: number | null): void;
  /** Removes a key and returns whether it existed. */
  delete(key: string): boolean;
  /** Returns the tensors under a key, or null. Copies nothing. */
  getTensors(key: string): Tensor[] | null;
  /** Stores tensors; the plugin keeps its handles. @throws PluginError `too-large`. */
  setTensors(key: string, tensors: readonly Tensor[], ttlMs?: number | null): void;
  /** Adds to a counter and returns its new value. Counters start at 0 and are never evicted. */
  add(counter: string, delta: number): number;
  /**
   * Sets a counter if its value is `expected`; else throws an Error whose `payload` is the value.
   */
  compareExchange(counter: string, expected: number, value: number): void;
}
export const state: State;

// Metrics

/** Adds a whole number to `hostler_plugin_events_total{plugin, name}`. */
export function count(name: string, by?: number): void;
/** Sets `hostler_plugin_value{plugin, name}`. */
export function gauge(name: string, value: number): void;

export interface Counter {
  /** Adds a number that is not negative. `values` are the values of the labels, in their order. */
  add(values: readonly string[], by?: number): void;
}
export interface Gauge {
  set(values: readonly string[], value: number): void;
  /** Adds a number, which may be negative. */
  add(values: readonly string[], by?: number): void;
}
export interface Histogram {
  observe(values: readonly string[], value: number): void;
}

/**
 * `hostler_plugin_counter_<name>_total{plugin, …}`.
 *
 * @throws PluginError `failed` or `too-large`.
 */
export function counter(name: string, help: string, labels?: readonly string[]): Counter;
/** `hostler_plugin_gauge_<name>{plugin, …}`. @throws PluginError `failed` or `too-large`. */
export function gaugeOf(name: string, help: string, labels?: readonly string[]): Gauge;
/**
 * `hostler_plugin_histogram_<name>_bucket{plugin, le, …}`. Buckets are ascending upper bounds.
 *
 * @throws PluginError `failed` or `too-large`.
 */
export function histogram(name: string, help: string, buckets: Iterable<number>, labels?: readonly string[]): Histogram;

// The log

declare global {
  /** In a plugin, the methods of `console` write to the host's log. */
  interface Console {
    log(...values: any[]): void;
    info(...values: any[]): void;
    warn(...values: any[]): void;
    error(...values: any[]): void;
    debug(...values: any[]): void;
    trace(...values: any[]): void;
  }
  var console: Console;
}

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "critical";

/** Writes a line to the host's log, at level info by default. `console` writes there too. */
export function log(message: unknown, level?: LogLevel): void;
