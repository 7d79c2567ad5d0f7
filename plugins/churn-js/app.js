// The transformer of `examples/bankchurn`: turns a customer's record into the model's 18 features,
// and the model's probabilities into an answer. `plugins/churn` and `plugins/churn-py` are the same
// transformer in other languages. All three return the same bytes, which
// `tests/data/churn_cases.json` verifies.

import * as hostler from "../../sdk/js/hostler.js";

// A customer with at least this probability counts as lost.
const CHURN = 0.5;
// With at least this probability, the risk is `high`.
const HIGH_RISK = 0.7;
// With at least this probability, the risk is `medium`; below it, `low`.
const MEDIUM_RISK = 0.4;

// The notes that preprocess leaves for postprocess. A plain record, the usual case, needs no note.
const RECORD = "";
const EXPLAIN = "explain";
const TENSORS = "tensors";

// Fields that become one number each, in the order of the features: type, minimum, maximum.
const NUMERICS = {
  credit_score: ["a whole number", 300, 850],
  age: ["a whole number", 18, 100],
  tenure: ["a whole number", 0, 10],
  balance: ["a number", 0, 300000],
  num_of_products: ["a whole number", 1, 4],
  has_cr_card: ["true or false", 0, 1],
  is_active_member: ["true or false", 0, 1],
  estimated_salary: ["a number", 0, 250000],
  points_earned: ["a whole number", 0, 1000],
};
// The fields that become one feature for each possible value, in the order of the features.
const CATEGORIES = {
  geography: ["France", "Germany", "Spain"],
  gender: ["Female", "Male"],
  card_type: ["DIAMOND", "GOLD", "PLATINUM", "SILVER"],
};
const NAMES = [...Object.keys(NUMERICS), ...Object.keys(CATEGORIES)];

// The number of characters of a text that an error shows.
const EXCERPT = 40;
// A text with more brackets is refused as not a record, before a parser recurses into it.
const BRACKETS = 64;

export const transformer = hostler.transformer({
  preprocess(request, input) {
    switch (input.tag) {
      case "json":
        return preprocessRecord(request, input.val);
      case "bytes":
        return preprocessRecord(request, jsonText(input.val));
      case "tensors":
        return passOn(request, input.val);
    }
  },

  postprocess(request, outputs) {
    switch (hostler.decoded(request.note())) {
      case RECORD:
        return hostler.json(answer(outputs, 1));
      case EXPLAIN:
        return hostler.json(answer(outputs, 1 + NAMES.length));
      case TENSORS:
        return hostler.tensors(outputs);
    }
    throw hostler.failed("the note is not one that preprocess leaves");
  },
});

function preprocessRecord(request, text) {
  const record = parseRecord(text);
  const explain = hostler.flag(request, "explain");
  const row = features(record, scaling());
  const rows = [row];
  if (explain) {
    request.setNote(hostler.encoded(EXPLAIN));
    rows.push(...NAMES.map((name) => occluded(row, name)));
  }
  return [hostler.tensor("input", "FP32", [rows.length, row.length], rows.flat())];
}

// Passes tensors on: callers of the Open Inference Protocol call the model directly.
function passOn(request, tensors) {
  if (hostler.flag(request, "explain")) {
    throw hostler.unsupported('"explain" needs a record: tensors are passed on as they are');
  }
  request.setNote(hostler.encoded(TENSORS));
  return tensors;
}

function jsonText({ contentType, data }) {
  const mediaType = contentType.split(";")[0].replace(/^[ \t]+|[ \t]+$/g, "");
  if (mediaType.toLowerCase() !== "application/json") {
    throw hostler.unsupported(`content type ${quoted(contentType)}: expected application/json`);
  }
  try {
    return hostler.decoded(data);
  } catch {
    throw notJson();
  }
}

// The record

// Returns the values of all fields, with booleans as 1 and 0. All errors are the caller's fault.
function parseRecord(text) {
  const members = parseObject(text);
  const unknown = Object.keys(members).filter((name) => !NAMES.includes(name));
  if (unknown.length > 0) throw unknownField(unknown.sort(byCodePoint)[0]);
  const record = {};
  for (const [name, [expected, low, high]] of Object.entries(NUMERICS)) {
    if (!isAllowed(members[name], expected, low, high)) {
      const bounds = expected === "true or false" ? "" : ` from ${low} to ${high}`;
      throw wrongField(name, members, expected + bounds);
    }
    record[name] = Number(members[name]);
  }
  for (const [name, words] of Object.entries(CATEGORIES)) {
    if (!words.includes(members[name])) throw wrongField(name, members, `one of ${words.join(", ")}`);
    record[name] = members[name];
  }
  return record;
}

// Parses the text as an object. If a name occurs twice, the last one counts.
function parseObject(text) {
  if (text.split(/[[{]/).length - 1 > BRACKETS) {
    throw hostler.invalid(null, "expected a flat object, got too many brackets");
  }
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw notJson();
  }
  if (hasHalfPair(text)) throw notJson();
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw hostler.invalid(null, `expected an object with the fields of a record, got ${kindOf(value)}`);
  }
  return value;
}

function notJson() {
  return hostler.invalid(null, "the input is not valid JSON");
}

// Returns whether a valid JSON text escapes half a surrogate pair, which is not a character.
function hasHalfPair(text) {
  const escapes = text.replace(/\\\\/g, " ");
  return /\\ud[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..)\\ud[c-f]/i.test(escapes);
}

function isAllowed(value, expected, low, high) {
  if (expected === "true or false") return typeof value === "boolean";
  if (typeof value !== "number" || value < low || value > high) return false;
  return expected === "a number" || Number.isInteger(value);
}

function wrongField(name, members, expected) {
  const got = Object.hasOwn(members, name) ? shown(members[name]) : "nothing";
  return hostler.invalid(name, `${name}: expected ${expected}, got ${got}`);
}

function unknownField(name) {
  const known = closest(name);
  const hint = known ? `did you mean ${known}?` : `a record has ${NAMES.join(", ")}`;
  return hostler.invalid(cut(name), `unknown field ${quoted(name)}: ${hint}`);
}

// JavaScript sorts by UTF-16 unit, the other languages by character.
function byCodePoint(a, b) {
  const key = (text) => [...text].map((letter) => letter.codePointAt(0).toString(16).padStart(6, "0")).join();
  return key(a) < key(b) ? -1 : 1;
}

// How errors describe a value

function kindOf(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return { boolean: "a boolean", number: "a number", string: "a text" }[typeof value];
}

function shown(value) {
  if (typeof value === "boolean") return `${value}`;
  if (typeof value === "number") return shownNumber(value);
  if (typeof value === "string") return `the text ${quoted(value)}`;
  return value === null || Array.isArray(value) ? kindOf(value) : "an object";
}

// At most six decimals, because the languages disagree on when to use an exponent.
function shownNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return "a huge number";
  const millionth = millionths(size);
  if (millionth === 0 && size > 0) return "a tiny number";
  const about = millionth / 1e6 === size ? "" : "about ";
  const sign = value < 0 ? "-" : "";
  return about + sign + decimal(millionth).replace(/\.?0+$/, "");
}

// Returns the text in quotes, truncated if it is long.
function quoted(text) {
  return `"${cut(text)}"`;
}

function cut(text) {
  const letters = [...text];
  return letters.length <= EXCERPT ? text : letters.slice(0, EXCERPT).join("") + "…";
}

// Returns the field with the nearest name, if at most a third of its letters differ. Case and
// separators are ignored: `CreditScore` matches `credit_score`.
function closest(name) {
  const steps = (known) => distance(letters(name), letters(known));
  const near = NAMES.filter((known) => steps(known) * 3 <= letters(known).length);
  return near.reduce((best, known) => (best && steps(best) <= steps(known) ? best : known), null);
}

// Returns the first 20 letters; no field name is longer.
function letters(name) {
  const kept = [...name].filter((letter) => !"_- ".includes(letter)).slice(0, 20);
  return kept.map((letter) => (/[A-Z]/.test(letter) ? letter.toLowerCase() : letter));
}

// Returns the edit distance: letters to insert, delete, replace or swap with the next one.
function distance(a, b) {
  // steps[i][j]: the distance between the first i letters of a and the first j letters of b.
  const steps = Array.from({ length: a.length + 1 }, (_, i) => Array.from({ length: b.length + 1 }, (_, j) => i + j));
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

// The features

let parsedScaling = null;

// Returns the mean and scale of each numeric field in the training data. Read once per instance.
function scaling() {
  parsedScaling ??= parseScaling(hostler.asset("scaling"));
  return parsedScaling;
}

function parseScaling(data) {
  try {
    const { mean, scale } = JSON.parse(hostler.decoded(data));
    // Bounds that real data never reaches. They keep every feature in the range of an f32.
    if (areNine(mean, -1e12) && areNine(scale, 1e-12)) return mean.map((m, i) => [m, scale[i]]);
  } catch {
    // Reported after the block.
  }
  throw hostler.failed('asset "scaling": expected nine numbers as "mean" and nine above 0 as "scale"');
}

// Returns whether these are nine numbers from `low` to 1e12.
function areNine(numbers, low) {
  const inBounds = (number) => typeof number === "number" && number >= low && number <= 1e12;
  return Array.isArray(numbers) && numbers.length === 9 && numbers.every(inBounds);
}

// Returns nine scaled numbers, then 1 or 0 for each value of a category. Computed in 64 bits; the
// tensor rounds each once.
function features(record, scaling) {
  const row = Object.keys(NUMERICS).map((name, i) => (record[name] - scaling[i][0]) / scaling[i][1]);
  for (const [name, words] of Object.entries(CATEGORIES)) {
    row.push(...words.map((word) => (word === record[name] ? 1 : 0)));
  }
  return row;
}

// Returns the row without the information of one field: a numeric field is set to its mean, a
// category to no value.
function occluded(row, name) {
  const columns = NAMES.flatMap((name) => CATEGORIES[name]?.map(() => name) ?? [name]);
  return row.map((feature, i) => (columns[i] === name ? 0 : feature));
}

// The answer

// Takes rows of two probabilities, to stay and to leave. The rows after the first are the record
// without one field each; the difference is what that field contributes.
function answer(outputs, rows) {
  const probabilities = hostler.named(outputs, "probabilities");
  const [expected, got] = [`FP32 [${rows},2]`, hostler.described(probabilities)];
  if (expected !== got) throw hostler.failed(`tensor "probabilities": expected ${expected}, got ${got}`);
  const leaving = [...hostler.elements(probabilities)].filter((_, i) => i % 2 === 1);
  // A sum of many trees can be slightly above 1.
  const row = leaving.findIndex((p) => !(p >= -0.001 && p <= 1.001));
  if (row >= 0) throw hostler.failed(`tensor "probabilities": row ${row} is no probability`);

  const [probability, ...others] = leaving;
  let text = `{"churn":${probability >= CHURN},"probability":${fixed(probability)},"risk":"${risk(probability)}"`;
  if (others.length > 0) {
    const pairs = others.map((other, i) => `"${NAMES[i]}":${fixed(probability - other)}`);
    text += `,"contributions":{${pairs.join(",")}}`;
  }
  return text + "}";
}

function risk(probability) {
  if (probability >= HIGH_RISK) return "high";
  return probability >= MEDIUM_RISK ? "medium" : "low";
}

// Formats with six decimals, rounding halves away from zero, never as `-0.000000`. The languages'
// own formats round halves differently.
function fixed(value) {
  const millionth = millionths(Math.abs(value));
  return (value < 0 && millionth > 0 ? "-" : "") + decimal(millionth);
}

// Formats millionths as a decimal number.
function decimal(millionth) {
  return `${Math.floor(millionth / 1e6)}.${String(millionth % 1e6).padStart(6, "0")}`;
}

// Returns the nearest whole number of millionths. `size` is not negative and below 1e9.
function millionths(size) {
  return Math.floor(size * 1e6 + 0.5);
}
