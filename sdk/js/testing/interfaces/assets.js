// The stand-in for `hostler:plugin/assets`.

import { didYouMean } from "../../lib/names.js";
import { argument, arity, hostError, memory } from "../memory.js";

function asset(name) {
  const found = memory.assets.get(argument(name, "string", "assets: name"));
  if (found !== undefined) return found;
  const hint = didYouMean(name, [...memory.assets.keys()]);
  throw hostError("not-found", `no asset "${name}"${hint}; add it with host.assets({ "${name}": … })`);
}

export const names = () => [...memory.assets.keys()];

export const size = (name) => asset(name).length;

export function read(...args) {
  arity(args, 3, "read");
  const [name, offset, length] = args;
  argument(offset, "u64", "assets.read: offset");
  argument(length, "u64", "assets.read: length");
  return asset(name).slice(offset, offset + length);
}

export default { names, size, read };
