// What plugins that call models import beside `hostler.js`: calling, waiting, cancelling. All in blocking style:
// only this request waits. A source that names `getModel` is known by it to need them.
//
//     import * as calls from "../../sdk/js/executor.js";
//
//     export const executor = calls.executor({ submit: (request, inputs, model) => model.call(inputs) });

import callables from "hostler:plugin/callables@0.1.0";
import models from "hostler:plugin/models@0.1.0";
import * as hostler from "./hostler.js";

// Decides how a model is called: `submit(request, tensors, model)` gives tensors. `model` and what
// `getModel` gives have `model()`, `version()`, `streaming()`, `call(tensors)`, which waits and gives tensors or
// throws the call's error, and `start(tensors)`, which gives an invocation. They are of no use after the request.
// `submitBatch(requests, lists, model)` gives `{ tag: "ok", val: tensors }` or `{ tag: "err", val: error }`
// for each; without it the host calls `submit` for each.
export function executor({ submit, submitBatch }) {
  const oneByOne = () => {
    throw hostler.unsupported("batches are called one by one");
  };
  return { submit: hostler.guarded(submit), submitBatch: hostler.guarded(submitBatch ?? oneByOne) };
}

// Calls a model and waits for so many milliseconds at most; then the error is `deadline`.
export const callWithin = (model, tensors, ms) => model.callWithin(tensors, micros(ms));

// The responses of a started call, one after the other; an error is thrown.
export function* responses(invocation) {
  for (;;) {
    const next = invocation.next();
    if (next === null) return;
    if (next.tag === "err") throw next.val;
    yield next.val;
  }
}

// Waits until one of them has a response or has ended: its place in the list; null after so many milliseconds, if given.
export const waitAny = (invocations, ms = null) => callables.waitAny(invocations, micros(ms));

// Waits for the end of a call: its tensors, or its error is thrown. Once for each call.
export function outcome(invocation) {
  callables.waitAny([invocation], null);
  const ended = invocation.outcome();
  if (ended === null) throw hostler.failed("the outcome of this call was taken before");
  if (ended.tag === "err") throw ended.val;
  return ended.val;
}

// Cancels a call and frees its place. What is not cancelled runs on until the request ends.
export const cancel = (invocation) => invocation[Symbol.dispose]();

// Waits for that many milliseconds.
export const sleep = (ms) => callables.waitAny([], micros(ms));

// Answers the request now, and goes on: nobody waits for what comes after this.
export const answer = (outputs) => callables.answer(outputs);

// Another model; without a version the only one, or what the routing rule gives this request.
export const getModel = (model, version = null) => models.get(model, version);

const micros = (ms) => (ms === null ? null : Math.max(0, Math.round(ms * 1000)));
