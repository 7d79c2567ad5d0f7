// Positions in stack traces. `hostler-build` appends a table of lines to the bundle, so that faults
// name the author's file and line. Unlike a source map, it needs no decoding: a fault stays cheap.

// The name under which a bundle keeps its table: `sources`, paths relative to the project; `lines`,
// for each line of the bundle the index of a source, or -1, and a line; `more`, for lines of the
// bundle with code from several lines of the source, pairs of a column and a line, ascending.
export const LINES = "__hostlerLines";

// A frame of QuickJS or V8: `    at name (/app.js:3:14)` or `    at /app.js:3:14`.
const FRAME = /^\s*at (?:(.*?) \()?(?:file:\/\/)?(.*?):(\d+)(?::(\d+))?\)?$/;

// The files of this SDK, in a bundle, in `node_modules`, and in Hostler's repository.
const SDK = /(^|\/)(hostler-plugin|sdk\/js|sdk)\/(lib\/|testing\/|hostler\.js|executor\.js)/;

// Whether a frame is one of this SDK or of the runtime.
export const isOfSdk = ({ file }) => SDK.test(file) || file.startsWith("node:") || file.startsWith("native");

// Returns the frames of a stack, innermost first: `name` of the function, `file`, and `place`,
// which is `file:line`, or `file:line:column` without a table.
export function frames(stack, table = globalThis[LINES]) {
  const found = [];
  for (const text of String(stack ?? "").split("\n")) {
    const match = FRAME.exec(text);
    if (match === null) continue;
    const [, name = "<anonymous>", path, line, column = "1"] = match;
    // V8 writes `Object.f [as predict]` for a function that is called as a method.
    const plain = name.replace(/^(Object|Module)\./, "").replace(/ \[as .*\]$/, "");
    const mapped = table ? original(table, Number(line), Number(column)) : null;
    found.push({ name: plain, ...(mapped ?? { file: path, place: `${path}:${line}:${column}` }) });
  }
  return found;
}

function original({ sources, lines, more }, line, column) {
  const at = 2 * (line - 1);
  const file = sources[lines[at]];
  if (file === undefined) return null;
  let found = lines[at + 1];
  const pairs = more[line] ?? [];
  for (let i = 0; i < pairs.length && pairs[i] < column; i += 2) found = pairs[i + 1];
  return { file, place: `${file}:${found}` };
}

// Returns `function (file:line)` of the innermost frame that is the author's, or null.
export function location(stack) {
  const all = frames(stack);
  const frame = all.find((frame) => !isOfSdk(frame)) ?? all[0];
  return frame ? `${frame.name} (${frame.place})` : null;
}

// Returns ` (file:line)` of where a function is defined, or an empty string if the runtime does not
// tell. QuickJS does.
export function definition(call, table = globalThis[LINES]) {
  const { fileName, lineNumber, columnNumber } = call ?? {};
  if (typeof lineNumber !== "number" || typeof fileName !== "string") return "";
  const [frame] = frames(`    at f (${fileName}:${lineNumber}:${columnNumber ?? 1})`, table);
  return frame ? ` (${frame.place})` : "";
}

// Puts the definition of a function in front of an error's stack, so that a message of the build
// names its line.
export function atDefinition(error, call) {
  const { name, fileName, lineNumber, columnNumber } = call;
  if (typeof lineNumber === "number") {
    error.stack = `    at ${name || "<anonymous>"} (${fileName}:${lineNumber}:${columnNumber ?? 1})\n${error.stack ?? ""}`;
  }
  return error;
}

// Returns the frames without those of this SDK that follow the author's last one: the calls that
// lead to a function of a role.
export function withoutEntry(all) {
  const last = all.findLastIndex((frame) => !isOfSdk(frame));
  return last < 0 ? all : all.slice(0, last + 1);
}
