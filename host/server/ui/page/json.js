// JSON in which whole numbers of 64 bits keep their digits, written with short lists on one line.

const LINE = 100;

/** Reads JSON. Whole numbers that a double cannot hold keep their digits where the browser can. */
export function parse(text) {
  if (typeof JSON.rawJSON !== "function") return JSON.parse(text);
  return JSON.parse(text, (key, value, context) => {
    const unsafe =
      typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
    return unsafe && /^-?\d+$/.test(context?.source ?? "") ? JSON.rawJSON(context.source) : value;
  });
}

const isRaw = (value) => typeof JSON.isRawJSON === "function" && JSON.isRawJSON(value);

function flat(value) {
  if (value === null || typeof value !== "object" || isRaw(value))
    return JSON.stringify(value) ?? "null";
  if (Array.isArray(value)) return `[${value.map(flat).join(", ")}]`;
  const entries = Object.entries(value).map(
    ([key, item]) => `${JSON.stringify(key)}: ${flat(item)}`,
  );
  return entries.length === 0 ? "{}" : `{ ${entries.join(", ")} }`;
}

/** A size that is at least that of the text, counted only up to `LINE`. */
function fits(value, left) {
  if (value === null || typeof value !== "object" || isRaw(value))
    return left - (JSON.stringify(value) ?? "null").length;
  for (const [key, item] of Object.entries(value)) {
    left -= Array.isArray(value) ? 2 : key.length + 6;
    if (left < 0) return left;
    left = fits(item, left);
    if (left < 0) return left;
  }
  return left - 2;
}

/** Writes a value as JSON to read: what fits into a line is on one line. */
export function write(value, indent = "") {
  const scalar = value === null || typeof value !== "object" || isRaw(value);
  if (scalar || fits(value, LINE - indent.length) >= 0) return flat(value);
  const inner = `${indent}  `;
  if (!Array.isArray(value)) {
    const entries = Object.entries(value).map(
      ([key, item]) => `${inner}${JSON.stringify(key)}: ${write(item, inner)}`,
    );
    return `{\n${entries.join(",\n")}\n${indent}}`;
  }
  const scalars = value.every((item) => item === null || typeof item !== "object" || isRaw(item));
  const items = scalars
    ? wrap(value.map(flat), inner)
    : value.map((item) => inner + write(item, inner));
  return `[\n${items.join(",\n")}\n${indent}]`;
}

/** Fills lines with items. */
function wrap(items, indent) {
  const lines = [];
  let line = "";
  for (const item of items) {
    if (line && indent.length + line.length + item.length + 2 > LINE) {
      lines.push(indent + line);
      line = "";
    }
    line += line ? `, ${item}` : item;
  }
  return line ? [...lines, indent + line] : lines;
}
