// Calls of a plugin's functions, as the host makes them: with fresh handles, and with checks of
// what goes in and comes out.

import { PluginError, errorOf } from "../lib/errors.js";
import { didYouMean, quoted, shown } from "../lib/names.js";
import { callableHandle } from "./interfaces/callables.js";
import {
  Request,
  borrow,
  closeRequest,
  handle,
  newRequest,
  requestHandle,
  requestOf,
  take,
} from "./interfaces/types.js";
import { abort, memory } from "./memory.js";

// Returns the metadata that the role announces, with datatypes in upper case; null if it has none.
export function metadata(role) {
  need(role, "metadata", "host.metadata()");
  const found = role.metadata();
  if (found === null) return null;
  const upper = (specs) => specs.map((spec) => ({ ...spec, datatype: spec.datatype.toUpperCase() }));
  return { inputs: upper(found.inputs), outputs: upper(found.outputs) };
}

export function predict(role, inputs, request = {}, { optional = null } = {}) {
  need(role, "predict", "host.predict()");
  const announced = metadata(role);
  const given = resourcesOf(inputs, "host.predict()");
  checkInputs(announced, given, optional?.names() ?? []);
  const outputs = inCall(request, (guestRequest) => role.predict(guestRequest, lowered(given)), lifted);
  checkOutputs(announced, outputs);
  return outputs.map((tensor) => handle(tensor));
}

export function preprocess(role, input, request = {}) {
  need(role, "preprocess", "host.preprocess()");
  const payload = loweredPayload(input);
  return inCall(request, (guestRequest) => role.preprocess(guestRequest, payload), lifted).map((tensor) =>
    handle(tensor),
  );
}

export function postprocess(role, outputs, request = {}) {
  need(role, "postprocess", "host.postprocess()");
  const given = resourcesOf(outputs, "host.postprocess()");
  return inCall(request, (guestRequest) => role.postprocess(guestRequest, lowered(given)), liftedPayload);
}

export function submit(role, inputs, model, request = {}) {
  need(role, "submit", "host.submit()");
  const given = resourcesOf(inputs, "host.submit()");
  const inner = innerModel(model);
  const run = (guestRequest) => role.submit(guestRequest, lowered(given), callableHandle(inner));
  return inCall(request, run, lifted, { answerable: true }).map((tensor) => handle(tensor));
}

export function submitBatch(role, lists, model, requests = lists.map(() => ({}))) {
  need(role, "submitBatch", "host.submitBatch()");
  const given = lists.map((inputs) => resourcesOf(inputs, "host.submitBatch()"));
  const inner = innerModel(model);
  const handles = requests.map((request) => requestHandle(recordOf(request)));
  const run = () => role.submitBatch(handles, given.map(lowered), callableHandle(inner));
  const outcomes = inCall({}, run, (list) => list);
  handles.forEach(closeRequest);
  return outcomes.map(({ tag, val }) => {
    if (tag === "err") return pluginError(val);
    return lifted(val).map((tensor) => handle(tensor));
  });
}

const innerModel = (model) => (typeof model === "function" ? newModel("inner", model) : model);

// Makes a model of a function of the test.
export function newModel(
  name,
  run,
  { version = "1", streaming = false, ms = 0, metadata = null, refusal = null } = {},
) {
  if (typeof run !== "function") {
    throw new TypeError(`host.model("${name}"): expected a function from inputs to outputs, and got ${shown(run)}`);
  }
  const checkedRun = (inputs) => {
    if (metadata) {
      checkInputs(metadata, inputs.map(borrow), []);
    }
    return run(inputs);
  };
  const takes = typeof ms === "function" ? ms : () => ms;
  return { name, version, streaming, takes, refusal: refusal && errorOf(refusal), run: checkedRun };
}

function need(role, name, subject) {
  if (typeof role?.[name] === "function") return;
  throw new TypeError(`${subject}: expected what the plugin exports, with a function ${name}, and got ${shown(role)}`);
}

const recordOf = (request) => (request instanceof Request ? requestOf(request) : newRequest(request));

// Runs a call of the plugin. Errors of the contract are thrown as `PluginError`; other exceptions
// would stop the instance.
function inCall(request, call, lift, { answerable = false } = {}) {
  const record = recordOf(request);
  const made = requestHandle(record);
  const outer = memory.call;
  memory.call = { deadline: record.deadline, answerable, answer: null };
  try {
    const result = call(made);
    return memory.call.answer ?? lift(result);
  } catch (thrown) {
    const error = errorOf(thrown);
    if (error === null) throw thrown;
    if (memory.call.answer) return memory.call.answer;
    throw pluginError(error);
  } finally {
    memory.call = outer;
    closeRequest(made);
  }
}

const pluginError = ({ kind, message, field }) => new PluginError(kind, message, field);

function resourcesOf(list, subject) {
  if (!Array.isArray(list)) {
    throw new TypeError(`${subject}: expected a list of tensors, and got ${shown(list)}`);
  }
  return list.map((one, i) => {
    try {
      return borrow(one);
    } catch (error) {
      throw new TypeError(`${subject}: item ${i} is ${shown(one)}, expected a tensor: ${error.message}`);
    }
  });
}

const lowered = (tensors) => tensors.map((tensor) => handle({ ...tensor }));

function loweredPayload(input) {
  if (input?.tag === "tensors") {
    return { tag: "tensors", val: lowered(resourcesOf(input.val, "host.preprocess()")) };
  }
  if (input?.tag === "json" && typeof input.val === "string") return input;
  if (input?.tag === "bytes") return { tag: "bytes", val: { ...input.val, data: input.val.data.slice() } };
  throw new TypeError(
    `host.preprocess(): expected a payload made by hostler.json(), hostler.bytes() or hostler.tensors(), and got ${shown(input)}`,
  );
}

function lifted(list) {
  if (!Array.isArray(list)) throw abort("expected array");
  return list.map(take);
}

function liftedPayload(payload) {
  if (payload?.tag === "tensors") return { tag: "tensors", val: lifted(payload.val).map((tensor) => handle(tensor)) };
  if (payload?.tag === "json") {
    try {
      JSON.parse(payload.val);
    } catch (error) {
      throw new PluginError("failed", `the plugin returned invalid JSON: ${error.message}`);
    }
  }
  return payload;
}

const format = ({ datatype, shape }) => `${datatype.toUpperCase()} [${[...shape].join(",")}]`;

function accepts(spec, shape) {
  if (spec.length === 0) return shape.every((one) => one === 1);
  return spec.length === shape.length && spec.every((one, i) => one === -1 || one === shape[i]);
}

function checkInputs({ inputs }, tensors, optional) {
  const names = inputs.map(({ name }) => name);
  const wrong = (name, message) => {
    throw new PluginError("invalid-input", message, name);
  };
  tensors.forEach((tensor, i) => {
    const { name } = tensor;
    const spec = inputs.find((one) => one.name === name);
    if (spec === undefined)
      wrong(name, `no input "${name}"${didYouMean(name, names)}; inputs: ${names.map(quoted).join(", ")}`);
    if (tensors.findIndex((one) => one.name === name) < i) wrong(name, `input '${name}' already exists in request`);
    if (spec.datatype.toUpperCase() !== tensor.datatype.toUpperCase() || !accepts(spec.shape, tensor.shape)) {
      wrong(name, `input "${name}": expected ${format(spec)}, got ${format(tensor)}`);
    }
  });
  for (const spec of inputs) {
    if (optional.includes(spec.name) || tensors.some(({ name }) => name === spec.name)) continue;
    wrong(spec.name, `input "${spec.name}" (${format(spec)}) is missing`);
  }
}

function checkOutputs({ outputs }, tensors) {
  for (const tensor of tensors) {
    const fits = outputs.some(
      (spec) =>
        spec.name === tensor.name &&
        spec.datatype.toUpperCase() === tensor.datatype.toUpperCase() &&
        (tensor.origin === "model" || accepts(spec.shape, tensor.shape)),
    );
    if (fits) continue;
    const declared = outputs.map((spec) => `"${spec.name}" (${format(spec)})`).join(", ") || "none";
    throw new PluginError(
      "failed",
      `the plugin returned the output "${tensor.name}" (${format(tensor)}), which its metadata does not declare; it declares ${declared}`,
    );
  }
}
