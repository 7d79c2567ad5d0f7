// The stand-in for `hostler:plugin/callables`. Models are functions of the test; time is a clock
// that only waiting moves.

import { errorOf } from "../../lib/errors.js";
import { abort, argument, arity, hostError, memory } from "../memory.js";
import { borrow, handle } from "./types.js";

const models = new WeakMap();
const calls = new WeakMap();

export class Callable {
  model() {
    return modelOf(this).name;
  }
  version() {
    return modelOf(this).version;
  }
  streaming() {
    return modelOf(this).streaming;
  }
  call(inputs) {
    return callModel(this, inputs, null);
  }
  callWithin(...args) {
    arity(args, 2, "[method]callable.call-within");
    return callModel(this, args[0], argument(args[1], "u64", "call-within: timeout-us"));
  }
  start(inputs) {
    return startCall(this, inputs, null);
  }
  startWithin(...args) {
    arity(args, 2, "[method]callable.start-within");
    return startCall(this, args[0], argument(args[1], "u64", "start-within: timeout-us"));
  }
}

export function callableHandle(model) {
  const made = Object.create(Callable.prototype);
  models.set(made, { model, call: memory.call });
  return made;
}

function modelOf(made) {
  const found = models.get(made);
  if (found === undefined) throw new TypeError("expected an imported resource wrapper");
  if (found.call !== memory.call) throw abort(`used the model "${found.model.name}" after the call that received it`);
  return found.model;
}

// Runs a model. Returns when it ends, and its responses: `{ at, responses }`.
function run(model, inputs, timeoutUs) {
  const given = argument(inputs, "list", "inputs").map((one) => handle({ ...borrow(one) }));
  const at = memory.now + model.takes();
  const limit = timeoutUs === null ? Infinity : memory.now + timeoutUs / 1000;
  const deadline = memory.call?.deadline ?? Infinity;
  const until = Math.min(limit, deadline);
  const late = (message) => ({
    at: until,
    responses: [{ tag: "err", val: { kind: "deadline", message, field: null } }],
  });
  if (at > until) {
    return late(
      until === limit
        ? `model "${model.name}" has not answered within ${timeoutUs} us`
        : "the deadline of the request has passed",
    );
  }
  try {
    const result = model.run(given);
    const lists = model.streaming ? [...result] : [result];
    return { at, responses: lists.map((list) => ({ tag: "ok", val: outputs(model, list) })) };
  } catch (thrown) {
    const error = errorOf(thrown);
    if (error === null) throw thrown;
    return { at, responses: [{ tag: "err", val: error }] };
  }
}

function outputs(model, list) {
  if (!Array.isArray(list))
    throw new TypeError(`the function of the model "${model.name}" must return a list of tensors`);
  return list.map((one) => handle({ ...borrow(one), origin: "model" }));
}

function callModel(made, inputs, timeoutUs) {
  const model = modelOf(made);
  if (model.streaming) {
    throw hostError("unsupported", `model "${model.name}" has 0..n responses: start the call and read them one by one`);
  }
  const { at, responses } = run(model, inputs, timeoutUs);
  waitUntil(at, `the model "${model.name}"`);
  const [response] = responses;
  if (response.tag === "err") throw hostError(response.val.kind, response.val.message, response.val.field);
  return response.val;
}

function startCall(made, inputs, timeoutUs) {
  const model = modelOf(made);
  if (model.refusal) throw hostError(model.refusal.kind, model.refusal.message, model.refusal.field);
  const started = Object.create(Invocation.prototype);
  calls.set(started, {
    ...run(model, inputs, timeoutUs),
    name: model.name,
    call: memory.call,
    next: 0,
    cancelled: false,
  });
  return started;
}

export class Invocation {
  outcome() {
    const call = callOf(this);
    if (call.at > memory.now || call.next > 0) return null;
    call.next = call.responses.length;
    return call.responses[0] ?? null;
  }
  next() {
    const call = callOf(this);
    waitUntil(call.at, `the model "${call.name}"`);
    return call.responses[call.next++] ?? null;
  }
  [Symbol.dispose]() {
    callOf(this).cancelled = true;
  }
}

function callOf(made) {
  const call = calls.get(made);
  if (call === undefined) throw new TypeError("expected an imported resource wrapper");
  if (call.cancelled) throw new TypeError("resource has been disposed");
  if (call.call !== memory.call) throw abort("used an invocation after the call that started it");
  return call;
}

function waitUntil(at, subject) {
  if (at === Infinity)
    throw new Error(`the test would wait forever for ${subject}: give the call a timeout, or the model a time`);
  memory.now = Math.max(memory.now, at);
}

export function waitAny(...args) {
  arity(args, 2, "waitAny");
  const [invocations, timeoutUs] = args;
  argument(invocations, "list", "wait-any");
  const until = timeoutUs === null ? Infinity : memory.now + argument(timeoutUs, "u64", "wait-any: timeout-us") / 1000;
  if (invocations.length === 0 && timeoutUs === null) {
    throw abort("wait-any would wait forever: it has neither an invocation nor a timeout");
  }
  const ends = invocations.map((one) => callOf(one).at);
  const first = Math.min(...ends);
  waitUntil(Math.min(first, until), "a model");
  return first <= until ? ends.indexOf(first) : null;
}

export function answer(outputs) {
  const tensors = argument(outputs, "list", "answer").map((one) => ({ ...borrow(one) }));
  if (!memory.call?.answerable || memory.call.answer) {
    throw hostError("unsupported", "cannot answer the request: it was already answered, or it is an item of a batch");
  }
  memory.call.answer = tensors;
}

export default { Callable, Invocation, waitAny, answer };
