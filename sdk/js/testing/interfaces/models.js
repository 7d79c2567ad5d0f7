// The stand-in for `hostler:plugin/models`.

import { didYouMean } from "../../lib/names.js";
import { argument, arity, hostError, memory } from "../memory.js";
import { callableHandle } from "./callables.js";

export function get(...args) {
  arity(args, 2, "get");
  const [name, version] = args;
  argument(name, "string", "models.get: model");
  const versions = memory.models.get(name);
  if (versions === undefined) {
    const hint = didYouMean(name, [...memory.models.keys()]);
    throw hostError("not-found", `no model "${name}"${hint}; add it with host.model("${name}", (inputs) => outputs)`);
  }
  const found =
    version === null ? [...versions.values()].at(-1) : versions.get(argument(version, "string", "models.get"));
  if (found === undefined) {
    throw hostError(
      "not-found",
      `model "${name}" has no version "${version}"; versions: ${[...versions.keys()].join(", ")}`,
    );
  }
  return callableHandle(found);
}

export default { get };
