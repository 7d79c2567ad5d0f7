// What the stand-ins share: the state of the host in memory, and its errors.

// All times are milliseconds of a clock that only waiting moves.
export const memory = {};

export function reset() {
  Object.assign(memory, {
    now: 0,
    config: new Map(),
    assets: new Map(),
    models: new Map(),
    http: null,
    log: [],
    state: new Map(),
    stateBytesMax: 1024 * 1024,
    counters: new Map(),
    events: new Map(),
    values: new Map(),
    families: new Map(),
    call: null,
  });
}
reset();

// Returns the exception with which the runtime reports an error of a host call.
export function hostError(kind, message, field = null) {
  return Object.assign(new Error("[object Object] (see error.payload)"), { payload: { kind, message, field } });
}

// Returns the exception for what stops the whole instance in the host.
export const abort = (message) => new Error(`the host would stop the instance: ${message}`);

// Checks an argument as the runtime does. `type` is a name of `typeof`, `list` or `bytes`.
export function argument(value, type, subject) {
  const matches =
    type === "list"
      ? Array.isArray(value) || ArrayBuffer.isView(value)
      : type === "bytes"
        ? value instanceof Uint8Array || (Array.isArray(value) && value.every((byte) => typeof byte === "number"))
        : type === "u64"
          ? typeof value === "number" && value >= 0
          : typeof value === type;
  if (!matches) throw abort(`${subject}: expected ${type}, got ${value === null ? "null" : typeof value}`);
  return value;
}

// Checks the number of arguments as the runtime does.
export function arity(given, expected, name) {
  if (given.length < expected) throw new TypeError(`${name} requires ${expected} arguments`);
}
