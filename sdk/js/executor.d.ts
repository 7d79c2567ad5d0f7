// Types of the module for plugins that call models. Times are milliseconds, except in the methods
// of `Callable`, which are the host's own and take microseconds.

import type { ContractError, PluginError, Request, Tensor } from "./hostler.js";

/** A model that can be called. It must not be used after the call that received it. */
export interface Callable {
  model(): string;
  version(): string;
  /** Whether the model has 0..n responses instead of exactly one. */
  streaming(): boolean;
  /**
   * Calls the model and waits for its response. The plugin keeps its handles of the inputs, and
   * owns the outputs.
   *
   * @throws PluginError with the model's error, `overloaded`, `deadline`, or `unsupported` if the
   * model has 0..n responses.
   */
  call(inputs: readonly Tensor[]): Tensor[];
  /** Like `call`, but waits for at most `us` microseconds. */
  callWithin(inputs: readonly Tensor[], us: number): Tensor[];
  /** Starts a call and returns immediately. @throws PluginError if the call is not admitted. */
  start(inputs: readonly Tensor[]): Invocation;
  /** Like `start`; the responses must arrive within `us` microseconds. */
  startWithin(inputs: readonly Tensor[], us: number): Invocation;
}

/** A result as the host's own functions return it. */
export type Result = { tag: "ok"; val: Tensor[] } | { tag: "err"; val: ContractError };

/** A call in flight. */
export interface Invocation {
  /** The outcome of the call, once; null while it is in flight, and afterwards. */
  outcome(): Result | null;
  /** Waits for the next response; null after the last one and after an error. */
  next(): Result | null;
  [Symbol.dispose](): void;
}

/** The outcome of one request of a batch. */
export type Outcome = { tag: "ok"; val: Tensor[] } | { tag: "err"; val: PluginError | ContractError };

export interface ExecutorFunctions {
  /** Answers one request. What it returns is ignored once `answer` was called. */
  submit(request: Request, inputs: Tensor[], model: Callable): Tensor[] | void;
  /**
   * Answers several requests: one outcome for each, in their order. Without it, `submit` is called
   * for each.
   */
  submitBatch?(requests: Request[], inputs: Tensor[][], model: Callable): Outcome[];
}
export interface Executor {
  submit(request: Request, inputs: Tensor[], model: Callable): Tensor[];
  submitBatch(requests: Request[], inputs: Tensor[][], model: Callable): Outcome[];
}

/**
 * Makes an executor, to be exported as `executor`.
 *
 * @throws TypeError when the module is evaluated, if a function is missing, misspelt or async.
 */
export function executor(functions: ExecutorFunctions): Executor;

/**
 * Returns another model; without a version, the only one or the one that the routing rule chooses.
 *
 * @throws PluginError `not-found` if the policy of this request has no such model.
 */
export function getModel(model: string, version?: string | null): Callable;

/**
 * Calls a model and waits for at most `ms` milliseconds.
 *
 * @throws PluginError `deadline` after that time, or as `Callable.call` does.
 */
export function callWithin(model: Callable, tensors: readonly Tensor[], ms: number): Tensor[];

/**
 * Yields the responses of a started call one after the other.
 *
 * @throws PluginError with its error.
 */
export function responses(invocation: Invocation): Generator<Tensor[], void, void>;

/**
 * Waits until an invocation has a response or has ended, and returns its index in the list; null
 * after `ms` milliseconds, if given. An empty list needs a time.
 */
export function waitAny(invocations: readonly Invocation[], ms?: number | null): number | null;

/**
 * Waits for the end of a call and returns its tensors, once for each call.
 *
 * @throws PluginError with the error of the call, or `failed` if the outcome was already taken.
 */
export function outcome(invocation: Invocation): Tensor[];

/** Cancels a call. One that is not cancelled continues until the request ends. */
export function cancel(invocation: Invocation): void;

/** Waits for `ms` milliseconds. Only this request waits. */
export function sleep(ms: number): void;

/**
 * Answers the request now and continues; the client does not wait for the work that follows. The
 * plugin keeps its handles. Only for `submit` of an executor.
 *
 * @throws PluginError `unsupported` if the request was already answered, or is an item of a batch.
 */
export function answer(outputs: readonly Tensor[]): void;
