// Types of the module for unit tests.

import type { Callable, Executor } from "../executor.js";
import type {
  Metadata,
  Model,
  OptionalInputs,
  Payload,
  Parameter,
  PluginError,
  Request,
  Tensor,
  TensorSpec,
  Transformer,
  Datatype,
} from "../hostler.js";

export { PluginError } from "../hostler.js";

/** What a request of a test has; all of it is optional. */
export interface RequestOptions {
  /** Default: "test". */
  id?: string;
  /** Default: "model". */
  model?: string;
  /** Default: "1". */
  version?: string;
  /** Milliseconds until the deadline, on the clock of the test. Default: null, no deadline. */
  timeLeft?: number | null;
  cancelled?: boolean;
  /** Whole numbers become integers. */
  parameters?: Record<string, boolean | number | string | Parameter>;
  /** What an earlier call left. A string is encoded as UTF-8. */
  note?: Uint8Array | string;
}

/** A model of the test: takes tensors and returns tensors, or throws `hostler.error(…)`. */
export type ModelFunction = (inputs: Tensor[]) => Tensor[];
/** A model with 0..n responses. */
export type StreamFunction = (inputs: Tensor[]) => Iterable<Tensor[]>;

export interface ModelOptions {
  /** Default: "1". */
  version?: string;
  /** Milliseconds that each call takes on the clock of the test. Default: 0. */
  ms?: number | (() => number);
  /** Checks the inputs of calls. */
  metadata?: Metadata;
  /** An error that `start` throws, because the call is not admitted. */
  refusal?: PluginError;
}

/** A model that `host.model` made. */
export interface TestModel {
  readonly name: string;
  readonly version: string;
}

export interface HttpRequest {
  method: string;
  url: string;
  headers: [string, string][];
  body: Uint8Array;
  timeoutMs: number | null;
}
export interface HttpResponse {
  /** Default: 200. */
  status?: number;
  headers?: [string, string][];
  body?: Uint8Array | string;
}

/** A `URL` with the protocol `file:`. */
export interface FileUrl {
  readonly href: string;
  readonly protocol: string;
}

export interface LogLine {
  level: string;
  context: string;
  message: string;
}

export interface Host {
  /** Forgets everything: config, assets, models, state, metrics, the log, the clock. */
  reset(): void;
  /** Sets config keys. */
  config(values: Record<string, string>): void;
  /**
   * Sets assets: texts, bytes, or URLs of files such as `new URL("words.json", import.meta.url)`.
   */
  assets(files: Record<string, string | Uint8Array | FileUrl>): void;
  /** Adds a model that the plugin can call. */
  model(name: string, run: ModelFunction, options?: ModelOptions & { streaming?: false }): TestModel;
  model(name: string, run: StreamFunction, options: ModelOptions & { streaming: true }): TestModel;
  /** Answers requests to HTTP servers. Without it, they are refused. */
  http(answer: (request: HttpRequest) => HttpResponse | undefined): void;
  /** Sets the limit of the state in KiB, as `state_kb` does. Default: 1024. */
  stateKb(kb: number): void;

  /** Makes a request that several calls can share. */
  request(options?: RequestOptions): Request;
  /** Cancels a request, as a client that disconnects does. */
  cancel(request: Request): void;
  /** Moves the clock. Waiting in the plugin moves it too; nothing else does. */
  advance(ms: number): void;
  /** The clock, in milliseconds since `reset`. */
  readonly now: number;

  /** Returns the metadata of a role, with datatypes in upper case; null if it has none. */
  metadata(role: Model | Transformer): { inputs: NamedSpec[]; outputs: NamedSpec[] } | null;
  /**
   * Calls `predict` as the host does: inputs and outputs are checked against the metadata.
   *
   * @throws PluginError with the error that the caller would receive.
   */
  predict(
    model: Model,
    inputs: readonly Tensor[],
    request?: Request | RequestOptions,
    options?: { optional?: OptionalInputs },
  ): Tensor[];
  /** Calls `preprocess`. Give the same request to `postprocess`, so that it has the note. */
  preprocess(transformer: Transformer, input: Payload, request?: Request | RequestOptions): Tensor[];
  /** Calls `postprocess`. A JSON answer must be valid. */
  postprocess(transformer: Transformer, outputs: readonly Tensor[], request?: Request | RequestOptions): Payload;
  /** Calls `submit`, and returns what it answered. */
  submit(
    executor: Executor,
    inputs: readonly Tensor[],
    model: ModelFunction | TestModel,
    request?: Request | RequestOptions,
  ): Tensor[];
  /** Calls `submitBatch`. Returns tensors or an error for each request. */
  submitBatch(
    executor: Executor,
    inputs: readonly (readonly Tensor[])[],
    model: ModelFunction | TestModel,
    requests?: readonly (Request | RequestOptions)[],
  ): (Tensor[] | PluginError)[];

  /** The lines that the plugin logged. */
  readonly log: LogLine[];
  /**
   * A metric: the value of a counter or gauge, the observed values of a histogram, or null if the
   * labels have no value. @throws Error if the plugin has no metric of this name.
   */
  metric(name: string, values?: readonly string[]): number | number[] | null;
}

export interface NamedSpec extends Omit<TensorSpec, "datatype"> {
  datatype: Datatype;
}

export const host: Host;
export type { Callable };
