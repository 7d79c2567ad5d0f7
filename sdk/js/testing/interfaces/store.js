// The stand-in for `wasi:config/store`.

import { argument, memory } from "../memory.js";

export const get = (key) => memory.config.get(argument(key, "string", "config: key")) ?? null;

export const getAll = () => [...memory.config];

export default { get, getAll };
