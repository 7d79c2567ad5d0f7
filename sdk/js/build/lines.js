// The table of lines that a bundle carries: see `lib/stack.js`.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Makes the table of a source map, version 3. `name` returns how a source is shown.
export function lineTable({ sources, mappings }, name) {
  const lines = [];
  const more = {};
  let [source, line] = [0, 0];
  mappings.split(";").forEach((text, index) => {
    let [column, first, last] = [0, null, null];
    const pairs = [];
    for (const letters of text ? text.split(",") : []) {
      const [columns, sourceStep, lineStep] = numbers(letters);
      column += columns;
      if (sourceStep === undefined) continue;
      source += sourceStep;
      line += lineStep;
      if (first === null) first = [source, line + 1];
      else if (source === first[0] && line + 1 !== last) pairs.push(column, line + 1);
      last = line + 1;
    }
    lines.push(...(first ?? [-1, 0]));
    if (pairs.length > 0) more[index + 1] = pairs;
  });
  return { sources: sources.map(name), lines, more };
}

// Decodes the Base64 VLQ numbers of a segment.
function numbers(letters) {
  const found = [];
  let [value, shift] = [0, 0];
  for (const letter of letters) {
    const digit = DIGITS.indexOf(letter);
    value += (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    found.push(value & 1 ? -(value >> 1) : value >> 1);
    [value, shift] = [0, 0];
  }
  return found;
}
