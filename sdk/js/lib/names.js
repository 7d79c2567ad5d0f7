// Names and values as error messages show them.

// Returns the name among `known` that is nearest to `name`, or null if none is near. A name that
// continues another one, as `warning` does `warn`, is near.
export function nearest(name, known) {
  const wanted = plain(name);
  let best = null;
  for (const candidate of known) {
    const known = plain(candidate);
    const continues =
      known.length >= 3 && (wanted.startsWith(known) || (wanted.length >= 3 && known.startsWith(wanted)));
    const steps = continues ? 1 : distance(wanted, known);
    if (steps * 3 <= Math.max(candidate.length, 3) && (best === null || steps < best.steps)) {
      best = { candidate, steps };
    }
  }
  return best?.candidate ?? null;
}

// Returns ` (did you mean "…"?)`, or an empty string if no known name is near.
export function didYouMean(name, known) {
  const best = typeof name === "string" ? nearest(name, known) : null;
  return best === null ? "" : ` (did you mean "${best}"?)`;
}

// Describes a value by its type, and short values themselves: `the number 5`, `an Array`.
export function shown(value) {
  if (value === null || value === undefined) return `${value}`;
  if (typeof value === "string") return `the string ${quoted(value)}`;
  if (typeof value === "number" || typeof value === "boolean") return `the ${typeof value} ${value}`;
  if (typeof value === "bigint") return `the BigInt ${cut(`${value}`)}`;
  if (typeof value !== "object") return `a ${typeof value}`;
  const name = value.constructor?.name || "Object";
  return `${/^[AEIOU]/.test(name) && !/^Ui/.test(name) ? "an" : "a"} ${name}`;
}

// Returns the text in quotes, cut if it is long.
export const quoted = (text) => JSON.stringify(cut(String(text)));

const cut = (text) => (text.length <= 60 ? text : `${text.slice(0, 59)}…`);

const plain = (name) =>
  name
    .toLowerCase()
    .replace(/[_\- ]/g, "")
    .slice(0, 40);

// Returns the edit distance: letters to insert, delete, replace or swap with the next one.
function distance(a, b) {
  const steps = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  );
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const replaced = steps[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      steps[i][j] = Math.min(replaced, steps[i - 1][j] + 1, steps[i][j - 1] + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        steps[i][j] = Math.min(steps[i][j], steps[i - 2][j - 2] + 1);
      }
    }
  }
  return steps[a.length][b.length];
}
