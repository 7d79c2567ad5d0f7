// What plugins that call models import in addition to `hostler.js`: calls, waiting, cancellation.
// All functions are blocking; only the current request waits. `cargo xtask plugin` looks for
// `getModel` in the source to find out whether a plugin calls models.
//
//     import * as calls from "../../sdk/js/executor.js";
//
//     export const executor = calls.executor({ submit: (request, inputs, model) => model.call(inputs) });

import callables from "hostler:plugin/callables@0.1.0";
import models from "hostler:plugin/models@0.1.0";
import * as hostler from "./hostler.js";

// Decides how a model is called: `submit(request, tensors, model)` returns tensors. `model`, like
// the result of `getModel`, has `model()`, `version()`, `streaming()`, `call(tensors)`, which waits
// and returns tensors or throws, and `start(tensors)`, which returns an invocation. It must not be
// used after the request. `submitBatch(requests, lists, model)` returns `{ tag: "ok", val: tensors
// }` or `{ tag: "err", val: error }` for each request; without it, the host calls `submit` for
// each.
export function executor({ submit, submitBatch }) {
  const oneByOne = () => {
    throw hostler.unsupported("this executor does not implement submitBatch");
  };
  return { submit: hostler.guarded(submit), submitBatch: hostler.guarded(submitBatch ?? oneByOne) };
}

// Calls a model and waits for at most `ms` milliseconds; after that the error is `deadline`.
export const callWithin = (model, tensors, ms) => model.callWithin(tensors, micros(ms));

// Yields the responses of a started call one after the other; throws its error.
export function* responses(invocation) {
  for (;;) {
    const next = invocation.next();
    if (next === null) return;
    if (next.tag === "err") throw next.val;
    yield next.val;
  }
}

// Waits until an invocation has a response or has ended, and returns its index in the list; null
// after `ms` milliseconds, if given.
export const waitAny = (invocations, ms = null) => callables.waitAny(invocations, micros(ms));

// Waits for the end of a call and returns its tensors or throws its error. Once for each call.
export function outcome(invocation) {
  callables.waitAny([invocation], null);
  const ended = invocation.outcome();
  if (ended === null) throw hostler.failed("the outcome of this call was already taken");
  if (ended.tag === "err") throw ended.val;
  return ended.val;
}

// Cancels a call, so that its executor can take another one. A call that is not cancelled continues
// until the request ends.
export const cancel = (invocation) => invocation[Symbol.dispose]();

// Waits for `ms` milliseconds.
export const sleep = (ms) => callables.waitAny([], micros(ms));

// Answers the request now and continues. The client does not wait for the work that follows.
export const answer = (outputs) => callables.answer(outputs);

// Returns another model; without a version, the only one or the one that the routing rule chooses.
export const getModel = (model, version = null) => models.get(model, version);

const micros = (ms) => (ms === null ? null : Math.max(0, Math.round(ms * 1000)));
