// Positions in stack traces. `hostler-build` appends a source map to the bundle, so that faults name
// the author's file and line. It is decoded only when a fault is reported.

// The name under which a bundle keeps its source map: `{ sources, mappings }`, as in the files that
// bundlers write, with paths relative to the project.
export const SOURCE_MAP = "__hostlerSourceMap";

// A frame of QuickJS or V8: `    at name (/app.js:3:14)` or `    at /app.js:3:14`.
const FRAME = /^\s*at (?:(.*?) \()?(?:file:\/\/)?(.*?):(\d+)(?::(\d+))?\)?$/;

// The files of this SDK, in a bundle, in `node_modules`, and in Hostler's repository.
const SDK = /(^|\/)(hostler-plugin|sdk\/js|sdk)\/(lib\/|testing\/|hostler\.js|executor\.js)/;

// Returns the frames of a stack, innermost first: `name` of the function, `file`, and `place`, which
// is `file:line:column`.
export function frames(stack) {
  const found = [];
  const source = globalThis[SOURCE_MAP];
  const lines = source ? decode(source.mappings) : null;
  for (const text of String(stack ?? "").split("\n")) {
    const match = FRAME.exec(text);
    if (match === null) continue;
    const [, name = "<anonymous>", file, line, column = "1"] = match;
    const mapped = lines && original(lines, source.sources, Number(line), Number(column));
    const at = mapped ?? { file: file.replace(/^\/+(?=[^/])/, source ? "" : "/"), line, column };
    // V8 writes `Object.f [as predict]` for a function that is called as a method.
    const plain = name.replace(/^Object\./, "").replace(/ \[as .*\]$/, "");
    found.push({ name: plain, file: at.file, place: `${at.file}:${at.line}:${at.column}` });
  }
  return found;
}

// Returns `function (file:line:column)` of the innermost frame that is the author's, or null.
export function location(stack) {
  const all = frames(stack);
  const frame = all.find(({ file }) => !SDK.test(file) && !file.startsWith("node:")) ?? all[0];
  return frame ? `${frame.name} (${frame.place})` : null;
}

function original(lines, sources, line, column) {
  let best = null;
  for (const segment of lines[line - 1] ?? []) {
    if (segment.column > column - 1) break;
    best = segment;
  }
  return best && { file: sources[best.source], line: best.line + 1, column: best.originalColumn + 1 };
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Decodes the mappings of a source map, version 3: lines of segments of Base64 VLQ numbers, each
// relative to the one before.
function decode(mappings) {
  let [source, line, originalColumn] = [0, 0, 0];
  return mappings.split(";").map((text) => {
    let column = 0;
    const segments = [];
    for (const letters of text ? text.split(",") : []) {
      const numbers = [];
      let [value, shift] = [0, 0];
      for (const letter of letters) {
        const digit = DIGITS.indexOf(letter);
        value += (digit & 31) << shift;
        shift += 5;
        if (digit & 32) continue;
        numbers.push(value & 1 ? -(value >> 1) : value >> 1);
        [value, shift] = [0, 0];
      }
      column += numbers[0];
      if (numbers.length < 4) continue;
      source += numbers[1];
      line += numbers[2];
      originalColumn += numbers[3];
      segments.push({ column, source, line, originalColumn });
    }
    return segments;
  });
}
