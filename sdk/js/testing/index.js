// Unit tests of plugins without a host. `host` configures what the plugin sees, calls the functions
// of its role as the host does, and reads what the plugin wrote.
//
//     import test from "node:test";
//     import assert from "node:assert/strict";
//     import * as hostler from "hostler-plugin";
//     import { host } from "hostler-plugin/testing";
//     import { model } from "./app.js";
//
//     test("doubles", () => {
//       const [y] = host.predict(model, [hostler.tensor("x", "FP32", [2], [1, 2])]);
//       assert.deepEqual([...hostler.elements(y)], [2, 4]);
//     });
//
// Run with `node --import hostler-plugin/testing/register --test`.

import { readFileSync } from "node:fs";
import { PluginError } from "../lib/errors.js";
import { didYouMean, shown } from "../lib/names.js";
import { encoded } from "../lib/text.js";
import { memory, reset } from "./memory.js";
import { newRequest, requestHandle, requestOf } from "./interfaces/types.js";
import * as calls from "./calls.js";

const entries = (object, what) => {
  if (object === null || typeof object !== "object")
    throw new TypeError(`${what} takes an object, and got ${shown(object)}`);
  return Object.entries(object);
};

export const host = {
  reset,

  config(values) {
    for (const [key, value] of entries(values, "host.config()")) {
      if (typeof value !== "string") {
        throw new TypeError(
          `host.config(): "${key}" must be a string, as all values of the manifest's config are, and is ${shown(value)}`,
        );
      }
      memory.config.set(key, value);
    }
  },

  assets(files) {
    for (const [name, content] of entries(files, "host.assets()")) {
      if (content instanceof URL) memory.assets.set(name, new Uint8Array(readFileSync(content)));
      else if (typeof content === "string") memory.assets.set(name, encoded(content));
      else if (content instanceof Uint8Array) memory.assets.set(name, Uint8Array.from(content));
      else
        throw new TypeError(
          `host.assets(): "${name}" must be a string, a Uint8Array or the URL of a file, and is ${shown(content)}`,
        );
    }
  },

  model(name, run, options = {}) {
    const model = calls.newModel(name, run, options);
    if (!memory.models.has(name)) memory.models.set(name, new Map());
    memory.models.get(name).set(model.version, model);
    return model;
  },

  http(answer) {
    memory.http = answer;
  },

  stateKb(kb) {
    memory.stateBytesMax = kb * 1024;
  },

  request: (options = {}) => requestHandle(newRequest(options)),

  advance(ms) {
    memory.now += ms;
  },

  cancel(request) {
    requestOf(request).cancelled = true;
  },

  metadata: calls.metadata,
  predict: calls.predict,
  preprocess: calls.preprocess,
  postprocess: calls.postprocess,
  submit: calls.submit,
  submitBatch: calls.submitBatch,

  get log() {
    return memory.log.map((line) => ({ ...line }));
  },

  get now() {
    return memory.now;
  },

  metric(name, values = []) {
    if (memory.events.has(name)) return memory.events.get(name);
    if (memory.values.has(name)) return memory.values.get(name);
    const family = memory.families.get(name);
    if (family === undefined) {
      const known = [...memory.events.keys(), ...memory.values.keys(), ...memory.families.keys()];
      const hint = didYouMean(name, known);
      throw new Error(`the plugin has no metric "${name}"${hint}; it has ${known.join(", ") || "none"}`);
    }
    return family.series.get(JSON.stringify(values)) ?? null;
  },
};

export { PluginError };
