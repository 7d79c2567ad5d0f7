// Errors of the contract, and faults: exceptions that are not errors of the contract.

import logging from "wasi:logging/logging@0.1.0-draft";
import { didYouMean, quoted, shown } from "./names.js";
import { definition, frames, isOfSdk, location, withoutEntry } from "./stack.js";

// The kinds of errors in the contract.
export const KINDS = [
  "invalid-input",
  "not-found",
  "unsupported",
  "too-large",
  "overloaded",
  "unavailable",
  "deadline",
  "cancelled",
  "failed",
];

// An error of the contract. The caller receives its kind, message and field.
export class PluginError extends Error {
  constructor(kind, message, field = null) {
    if (!KINDS.includes(kind)) throw new TypeError(unknownKind(kind));
    super(String(message));
    this.name = "PluginError";
    this.kind = kind;
    this.field = field === null || field === undefined ? null : String(field);
  }
}

export const error = (kind, message, field = null) => new PluginError(kind, message, field);
export const invalid = (field, message) => error("invalid-input", message, field);
export const notFound = (message) => error("not-found", message);
export const unsupported = (message) => error("unsupported", message);
export const failed = (message) => error("failed", message);

// Returns `{ kind, message, field }` if a caught value is an error of the contract, from this
// module or from the host, else null. The host's errors arrive in the property `payload`.
export function errorOf(thrown) {
  const found = thrown?.payload ?? thrown;
  if (found === null || typeof found !== "object" || !KINDS.includes(found.kind)) return null;
  const field = found.field ?? null;
  return { kind: found.kind, message: String(found.message ?? ""), field: field === null ? null : String(field) };
}

// Makes a host call, and throws its errors as a `PluginError`. The runtime's own exception has the
// error as its `payload`, and no message.
export function hostCall(call) {
  try {
    return call();
  } catch (thrown) {
    const known = errorOf(thrown);
    throw known === null ? thrown : error(known.kind, known.message, known.field);
  }
}

// Returns the error that the caller receives. A fault becomes `failed` with one line that names the
// function of the role, the exception and the author's line; its stack goes to the host's log.
// `call` is the author's function.
export function contractError(thrown, where, call) {
  const known = errorOf(thrown);
  if (known === null) return { kind: "failed", message: reportFault(thrown, where, call), field: null };
  if (OWN_KINDS.includes(known.kind)) logOrigin(thrown, where, known);
  return known;
}

// Kinds of errors that are about the plugin rather than about the request.
const OWN_KINDS = ["failed", "not-found"];

// Logs where in the plugin an error comes from that the SDK or a host call has thrown, such as a
// missing asset: its message does not tell. The author's own errors are not logged.
function logOrigin(thrown, where, { kind, message }) {
  const origin = frames(thrown?.stack).find((frame) => !(isOfSdk(frame) && MAKERS.includes(frame.name)));
  const at = location(thrown?.stack);
  if (origin === undefined || !isOfSdk(origin)) return;
  logging.log("error", "", `${where} threw ${kind}: ${message}, at ${at}`);
}

// The functions of this module that make errors.
const MAKERS = ["PluginError", "new PluginError", "error", "invalid", "notFound", "unsupported", "failed"];

// Logs a fault with its stack, and returns it as one line.
export function reportFault(thrown, where, call) {
  const line = faultLine(thrown, where, call);
  const trace = thrown instanceof ResultError ? [] : withoutEntry(frames(thrown?.stack));
  logging.log("error", "", [line, ...trace.map(({ name, place }) => `    at ${name} (${place})`)].join("\n"));
  return line;
}

function faultLine(thrown, where, call) {
  if (thrown instanceof ResultError) return `${thrown.message}${definition(call)}`;
  const at = location(thrown?.stack);
  const line = `${where} threw ${described(thrown)}${hint(thrown)}${at === null ? "" : `, at ${at}`}`;
  return line.replace(/\s+/g, " ").trim();
}

function described(thrown) {
  if (thrown instanceof Error) return thrown.message ? `${thrown.name}: ${thrown.message}` : thrown.name;
  if (typeof thrown?.kind === "string") return `an error: ${unknownKind(thrown.kind)}`;
  return `${shown(thrown)} instead of an Error`;
}

// Globals of other runtimes, and what to use instead.
const ABSENT = {
  process: "read settings with hostler.config(key)",
  Buffer: "use Uint8Array, hostler.encoded() and hostler.decoded()",
  require: "use import, and build with hostler-build",
  fetch: 'call HTTP servers with the host call "hostler:plugin/http@0.1.0"',
  XMLHttpRequest: 'call HTTP servers with the host call "hostler:plugin/http@0.1.0"',
  setTimeout: 'wait with sleep(ms) of "hostler-plugin/executor"',
  setInterval: 'wait with sleep(ms) of "hostler-plugin/executor"',
  structuredClone: "copy with JSON.parse(JSON.stringify(value))",
  crypto: "use a package that is written in JavaScript",
  Intl: "format numbers and dates with a package",
  URL: "use a package that is written in JavaScript",
};

// The runtime's own message about a missing global or a handle does not say what to do.
function hint(thrown) {
  if (thrown instanceof ReferenceError) {
    const [, name] = /^'?(\w+)'? is not defined/.exec(thrown.message) ?? [];
    return name in ABSENT ? `: a plugin has no Node or browser API; ${ABSENT[name]}` : "";
  }
  if (!(thrown instanceof TypeError)) return "";
  const { message } = thrown;
  if (/ownership/.test(message)) {
    return ": a tensor belongs to the host once a function has returned it; create it again, or keep its elements";
  }
  if (/has been disposed/.test(message)) return ": use a handle before its [Symbol.dispose]()";
  if (/imported resource wrapper/.test(message)) {
    return ": call methods on the object itself, as in tensor.name(), not on a copy or a function taken out of it";
  }
  return "";
}

const unknownKind = (kind) =>
  `unknown kind ${quoted(kind)}${didYouMean(kind, KINDS)}; the kinds are ${KINDS.join(", ")}`;

// A function of a role returned something that is not what the role must return.
export class ResultError extends TypeError {
  constructor(message) {
    super(message);
    this.name = "ResultError";
  }
}
