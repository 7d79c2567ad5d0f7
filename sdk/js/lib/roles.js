// Roles: what a plugin exports. The functions of a role are wrapped: their results are checked, and
// exceptions become errors of the contract.

import { ResultError, contractError, errorOf, reportFault } from "./errors.js";
import { isTensor, shape as checkedShape, taken, tensorList } from "./arguments.js";
import { knownDatatype } from "./datatypes.js";
import { didYouMean, quoted, shown } from "./names.js";
import { atDefinition } from "./stack.js";

export function transformer(functions) {
  const { metadata, preprocess, postprocess } = roleFunctions("transformer", functions, {
    metadata: false,
    preprocess: true,
    postprocess: true,
  });
  return {
    metadata: unfailing(metadata ?? (() => null), "transformer.metadata", optionalMetadata),
    preprocess: guarded(preprocess, "transformer.preprocess", tensorResult),
    postprocess: guarded(postprocess, "transformer.postprocess", payloadResult),
  };
}

export function model(functions) {
  const { metadata, predict } = roleFunctions("model", functions, { metadata: true, predict: true });
  return {
    metadata: unfailing(metadata, "model.metadata", metadataResult),
    predict: guarded(predict, "model.predict", tensorResult),
  };
}

export function optionalInputs(...names) {
  names.forEach((name, i) => {
    if (typeof name === "string") return;
    throw new TypeError(
      `hostler.optionalInputs(): argument ${i} must be the name of an input, and is ${shown(name)}; write hostler.optionalInputs("a", "b")`,
    );
  });
  return { names: () => names };
}

// Takes the functions of a role out of an object. Reports missing, misspelt and asynchronous ones
// when the module is evaluated, which is when the plugin is built. `needed` says which functions
// the role has, and which of them it cannot do without.
export function roleFunctions(role, functions, needed) {
  const subject = `hostler.${role}()`;
  if (functions === null || typeof functions !== "object") {
    throw new TypeError(`${subject}: expected an object with functions, and got ${shown(functions)}`);
  }
  const known = Object.keys(needed);
  const all = `the functions of this role are ${known.join(", ")}`;
  for (const name of Object.keys(functions)) {
    if (known.includes(name)) continue;
    const error = new TypeError(`${subject}: unknown function "${name}"${didYouMean(name, known)}; ${all}`);
    throw typeof functions[name] === "function" ? atDefinition(error, functions[name]) : error;
  }
  const bound = {};
  for (const name of known) {
    const call = functions[name];
    if (call === undefined || call === null) {
      if (needed[name]) throw new TypeError(`${subject}: the function "${name}" is missing; ${all}`);
      continue;
    }
    if (typeof call !== "function")
      throw new TypeError(`${subject}: "${name}" must be a function, and is ${shown(call)}`);
    if (/^(Async|Generator)/.test(call.constructor?.name)) {
      throw new TypeError(
        `${subject}: "${name}" is an async function or a generator; a plugin cannot wait for Promises, and host calls return their results directly: remove "async", "await" and "*"`,
      );
    }
    checkParameters(subject, name, call);
    bound[name] = Object.assign((...args) => Reflect.apply(call, functions, args), { original: call });
  }
  return bound;
}

// What the functions of roles receive after the request, or the requests.
const PARAMETERS = {
  preprocess: "request, payload",
  postprocess: "request, tensors",
  predict: "request, tensors",
  submit: "request, tensors, model",
  submitBatch: "requests, lists, model",
};
const NOT_A_REQUEST = /^[^(]*\(\s*(payload|inputs?|outputs?|tensors?|data|body)\s*[,)]/;

// Refuses a function that takes the request for its input, or has more parameters than there are.
function checkParameters(subject, name, call) {
  const expected = PARAMETERS[name];
  if (expected === undefined) return;
  const most = expected.split(", ").length;
  if (call.length > most) {
    const found = `"${name}" has ${call.length} parameters, and is called with ${most}: write ${name}(${expected})`;
    throw atDefinition(new TypeError(`${subject}: ${found}`), call);
  }
  const [, first] = NOT_A_REQUEST.exec(Function.prototype.toString.call(call)) ?? [];
  if (first === undefined) return;
  const found = `the first parameter of "${name}" is the ${expected.split(", ")[0]}, and it is named "${first}"`;
  throw atDefinition(new TypeError(`${subject}: ${found}: write ${name}(${expected})`), call);
}

// Wraps a function whose errors the caller receives. `where` is `role.function`; `result` checks
// what the function returned, and returns what the host is given.
export function guarded(call, where = "the plugin", result = (value) => value) {
  return (...args) => {
    try {
      return result(call(...args), where);
    } catch (thrown) {
      throw contractError(thrown, where, call.original);
    }
  };
}

// Wraps a function that cannot return an error in the contract. An exception stops the instance;
// its message is the last line that the host logs.
function unfailing(call, where, result) {
  return () => {
    try {
      return result(call(), where);
    } catch (thrown) {
      const known = errorOf(thrown);
      throw new Error(known ? `${where} threw an error: ${known.message}` : reportFault(thrown, where, call.original));
    }
  };
}

// Checks that a function returned tensors that the host can take.
export function tensorResult(list, where) {
  tensorList(list, `${where} must return`, { returned: true, ErrorType: ResultError });
  taken(list, where);
  return list;
}

function payloadResult(payload, where) {
  const expected = `${where} must return a payload made by hostler.json(), hostler.bytes() or hostler.tensors()`;
  const wrong = (reason) => new ResultError(`${expected}${reason}`);
  if (payload === undefined) throw wrong(', and returned nothing: is a "return" missing?');
  if (typeof payload?.then === "function") {
    throw wrong(', and returned a Promise: a plugin cannot wait for Promises; remove "async" and "await"');
  }
  if (typeof payload === "string") throw wrong(", and returned a string: if it is JSON, return hostler.json(text)");
  const { tag, val } = payload ?? {};
  if (tag === "json" && typeof val === "string") return payload;
  if (tag === "bytes" && typeof val?.contentType === "string" && val.data instanceof Uint8Array) return payload;
  if (tag === "tensors") {
    tensorList(val, `${where} must return in hostler.tensors()`, { returned: true, ErrorType: ResultError });
    taken(val, where);
    return payload;
  }
  const list = Array.isArray(payload) && payload.every(isTensor);
  throw wrong(
    `, and returned ${isTensor(payload) ? "a tensor" : shown(payload)}${list ? ": return hostler.tensors(list)" : ""}`,
  );
}

const optionalMetadata = (metadata, where) =>
  metadata === null || metadata === undefined ? null : metadataResult(metadata, where);

function metadataResult(metadata, where) {
  const expected = `${where} must return { inputs, outputs }, lists of hostler.spec()`;
  if (metadata === undefined) throw new ResultError(`${expected}, and returned nothing: is a "return" missing?`);
  if (metadata === null || typeof metadata !== "object") {
    throw new ResultError(`${expected}, and returned ${shown(metadata)}`);
  }
  const specs = (list, key) => {
    if (!Array.isArray(list)) throw new ResultError(`${expected}; "${key}" is ${shown(list)}`);
    const names = new Set();
    return list.map((item, i) => {
      if (typeof item?.name !== "string") throw new ResultError(`${expected}; item ${i} of "${key}" is ${shown(item)}`);
      if (names.has(item.name)) throw new ResultError(`${expected}; "${key}" has ${quoted(item.name)} twice`);
      names.add(item.name);
      const subject = `${where}: ${key}, ${quoted(item.name)}`;
      const datatype = knownDatatype(String(item.datatype).toUpperCase(), subject).toLowerCase();
      return { name: item.name, datatype, shape: checkedShape(item.shape, subject, -1) };
    });
  };
  return { inputs: specs(metadata.inputs, "inputs"), outputs: specs(metadata.outputs, "outputs") };
}
