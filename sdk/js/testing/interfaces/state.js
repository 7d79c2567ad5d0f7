// The stand-in for `hostler:plugin/state`.

import { abort, argument, arity, hostError, memory } from "../memory.js";
import { borrow, handle } from "./types.js";

const COUNTERS_MAX = 1000;
const KEY_BYTES_MAX = 1024;
// What an entry, and each of its tensors, costs besides its bytes.
const ENTRY_BYTES = 128;
const INTEGER_MAX = 2 ** 63;

function entry(key) {
  const found = memory.state.get(argument(key, "string", "state: key"));
  if (found === undefined) return null;
  memory.state.delete(key);
  if (found.expires <= memory.now) return null;
  // The entry that was used last is the last one.
  memory.state.set(key, found);
  return found;
}

function put(key, value, size, ttlMs) {
  argument(key, "string", "state: key");
  if (key.length > KEY_BYTES_MAX) {
    throw hostError("too-large", `the key has ${key.length} bytes; at most ${KEY_BYTES_MAX} are allowed`);
  }
  const bytes = ENTRY_BYTES + key.length + size;
  if (bytes > memory.stateBytesMax) {
    const kb = memory.stateBytesMax >> 10;
    throw hostError("too-large", `the value for "${key}" has ${size} bytes and does not fit into state_kb = ${kb}`);
  }
  memory.state.delete(key);
  const used = () => [...memory.state.values()].reduce((sum, one) => sum + one.bytes, 0);
  while (used() + bytes > memory.stateBytesMax) memory.state.delete(memory.state.keys().next().value);
  const expires = ttlMs === null ? Infinity : memory.now + argument(ttlMs, "u64", "state: ttl-ms");
  memory.state.set(key, { value, bytes, expires });
}

export function get(key) {
  const value = entry(key)?.value;
  return value instanceof Uint8Array ? value.slice() : null;
}

export function set(...args) {
  arity(args, 3, "set");
  const [key, value, ttlMs] = args;
  const data = Uint8Array.from(argument(value, "bytes", "state.set: value"));
  put(key, data, data.length, ttlMs);
}

export function getTensors(key) {
  const value = entry(key)?.value;
  return Array.isArray(value) ? value.map((tensor) => handle({ ...tensor })) : null;
}

export function setTensors(...args) {
  arity(args, 3, "setTensors");
  const [key, list, ttlMs] = args;
  const tensors = argument(list, "list", "state.set-tensors").map((one) => ({ ...borrow(one) }));
  const size = tensors.reduce((sum, { name, data }) => sum + ENTRY_BYTES + name.length + data.length, 0);
  put(key, tensors, size, ttlMs);
}

const _delete = (key) => entry(key) !== null && memory.state.delete(key);
export { _delete as delete };

function counter(name) {
  argument(name, "string", "state: counter");
  if (!memory.counters.has(name) && memory.counters.size >= COUNTERS_MAX) {
    throw abort(`exceeded ${COUNTERS_MAX} counters in its state`);
  }
  return memory.counters.get(name) ?? 0;
}

export function add(...args) {
  arity(args, 2, "add");
  const [name, delta] = args;
  const value = counter(name) + argument(delta, "number", "state.add: delta");
  memory.counters.set(name, Math.max(-INTEGER_MAX, Math.min(INTEGER_MAX, value)));
  return memory.counters.get(name);
}

export function compareExchange(...args) {
  arity(args, 3, "compareExchange");
  const [name, expected, value] = args;
  const found = counter(name);
  if (found !== expected) throw Object.assign(new Error(`${found} (see error.payload)`), { payload: found });
  memory.counters.set(name, argument(value, "number", "state.compare-exchange"));
}

export default { get, set, getTensors, setTensors, delete: _delete, add, compareExchange };
