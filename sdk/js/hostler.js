// The module for plugin authors: roles, payloads, errors, tensors, and helpers for parameters,
// assets, config, state, metrics and the log. Plugins that call models also import `executor.js`.
// `hostler.d.ts` documents each function; docs/reference/sdk-js.md is the reference.
//
//     import * as hostler from "hostler-plugin";
//
//     export const model = hostler.model({
//       metadata() {
//         const message = hostler.spec("message", "BYTES", [-1]);
//         return { inputs: [message], outputs: [message] };
//       },
//       predict: (request, inputs) => inputs,
//     });

import "./lib/globals.js";

export { model, optionalInputs, transformer } from "./lib/roles.js";
export { PluginError, error, errorOf, failed, invalid, notFound, unsupported } from "./lib/errors.js";
export { described, elements, named, spec, tensor } from "./lib/tensors.js";
export { decoded, encoded } from "./lib/text.js";
export { bytes, json, tensors } from "./lib/host.js";
export { flag, integer, number, text } from "./lib/host.js";
export { asset, assetNames, config, configAll, state } from "./lib/host.js";
export { count, counter, gauge, gaugeOf, histogram, log } from "./lib/host.js";
