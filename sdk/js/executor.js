// What plugins that call models import in addition to `hostler.js`: calls, waiting, cancellation.
// All functions are blocking; only the current request waits. `cargo xtask plugin` looks for
// `getModel` in the source to find out whether a plugin calls models; `hostler-build` sees it from
// the imports.
//
//     import * as calls from "hostler-plugin/executor";
//
//     export const executor = calls.executor({
//       submit: (request, inputs, model) => model.call(inputs),
//     });

import callables from "hostler:plugin/callables@0.1.0";
import models from "hostler:plugin/models@0.1.0";
import * as hostler from "./hostler.js";
import * as check from "./lib/arguments.js";
import { ResultError, contractError, errorOf, hostCall } from "./lib/errors.js";
import { shown } from "./lib/names.js";
import { guarded, roleFunctions, tensorResult } from "./lib/roles.js";

export function executor(functions) {
  const { submit, submitBatch } = roleFunctions("executor", functions, { submit: true, submitBatch: false });
  const oneByOne = () => {
    throw hostler.unsupported("this executor does not implement submitBatch");
  };
  return {
    submit(...args) {
      answered = false;
      return guarded(submit, "executor.submit", submitResult)(...args);
    },
    submitBatch: (requests, inputs, model) =>
      guarded(submitBatch ?? oneByOne, "executor.submitBatch", (outcomes, where) =>
        batchResult(outcomes, where, requests.length),
      )(requests, inputs, model),
  };
}

// Whether the request in progress was answered. Its `submit` need not return anything then.
let answered = false;

const submitResult = (list, where) => (answered && list === undefined ? [] : tensorResult(list, where));

function batchResult(outcomes, where, count) {
  const expected = `${where} must return a list with { tag: "ok", val: tensors } or { tag: "err", val: error } for each request`;
  if (!Array.isArray(outcomes)) throw new ResultError(`${expected}, and returned ${shown(outcomes)}`);
  if (outcomes.length !== count) {
    throw new ResultError(`${expected}; there are ${count} requests, and ${outcomes.length} outcomes`);
  }
  return outcomes.map((outcome, i) => {
    if (outcome?.tag === "ok") return { tag: "ok", val: tensorResult(outcome.val, `${where}: outcome ${i}`) };
    if (outcome?.tag !== "err") throw new ResultError(`${expected}; item ${i} is ${shown(outcome)}`);
    return { tag: "err", val: errorOf(outcome.val) ?? contractError(outcome.val, `${where}: outcome ${i}`) };
  });
}

export const callWithin = (model, tensors, ms) => model.callWithin(tensors, micros(ms, "calls.callWithin()"));

export function* responses(invocation) {
  for (;;) {
    const next = invocation.next();
    if (next === null) return;
    if (next.tag === "err") throw raised(next.val);
    yield next.val;
  }
}

export function waitAny(invocations, ms = null) {
  if (!Array.isArray(invocations) || !invocations.every((one) => one instanceof callables.Invocation)) {
    throw new TypeError(
      `calls.waitAny(): expected a list of invocations, as model.start() returns them, and got ${shown(invocations)}`,
    );
  }
  if (invocations.length === 0 && ms === null) {
    throw new RangeError("calls.waitAny() would wait forever: it has neither an invocation nor a timeout");
  }
  invocations.forEach((one, i) => ensureOpen(one, `calls.waitAny(): item ${i}`));
  return callables.waitAny(invocations, ms === null ? null : micros(ms, "calls.waitAny()"));
}

export function outcome(invocation) {
  waitAny([invocation]);
  const ended = invocation.outcome();
  if (ended === null) throw hostler.failed("the outcome of this call was already taken");
  if (ended.tag === "err") throw raised(ended.val);
  return ended.val;
}

export function cancel(invocation) {
  if (cancelled.has(invocation)) return;
  cancelled.add(invocation);
  invocation[Symbol.dispose]();
}

export const sleep = (ms) => void callables.waitAny([], micros(ms, "calls.sleep()"));

export function answer(outputs) {
  const tensors = check.tensorList(outputs, "calls.answer() takes");
  hostCall(() => callables.answer(tensors));
  answered = true;
}

export function getModel(model, version = null) {
  check.string(model, "calls.getModel()", "the model");
  if (version !== null) check.string(version, "calls.getModel()", "the version");
  return hostCall(() => models.get(model, version));
}

// Invocations that were cancelled. The runtime stops the instance if one of them is waited for.
const cancelled = new WeakSet();

function ensureOpen(invocation, subject) {
  if (cancelled.has(invocation)) throw new TypeError(`${subject} is an invocation that was cancelled`);
}

// The error of a call, with the properties that the host gave it.
const raised = ({ kind, message, field }) => hostler.error(kind, message, field);

// Converts milliseconds to whole microseconds.
function micros(ms, subject) {
  if (typeof ms === "number" && !Number.isNaN(ms)) return Math.min(Math.max(0, Math.round(ms * 1000)), 2 ** 53 - 1);
  throw new TypeError(`${subject}: the time must be a number of milliseconds, and is ${shown(ms)}`);
}

for (const method of ["call", "start"]) {
  const subject = `model.${method}() takes`;
  check.checked(callables.Callable, method, (inputs) => [check.tensorList(inputs, subject)]);
}
for (const method of ["callWithin", "startWithin"]) {
  const subject = `model.${method}()`;
  check.checked(callables.Callable, method, (inputs, us) => [
    check.tensorList(inputs, `${subject} takes`),
    check.whole(us, subject, "the timeout, in microseconds,"),
  ]);
}
