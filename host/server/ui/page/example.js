// An example of `data` for a model, from its inputs.

import { count } from "./format.js";
import { write } from "./json.js";

const MOST = 20_000;

function size(input) {
  return (input.shape ?? []).reduce((total, dimension) => total * Math.max(dimension, 1), 1);
}

function scalar(datatype) {
  if (datatype === "BOOL") return false;
  if (datatype === "BYTES") return "text";
  return /^U?INT/.test(datatype) ? 0 : 0.5;
}

/** Nested lists. A dimension that is free has one element. */
function nested(shape, value) {
  if (!shape.length) return value;
  return Array.from({ length: shape[0] < 0 ? 1 : shape[0] }, () => nested(shape.slice(1), value));
}

/** Returns the example as text, or null with the reason why there is none. */
export function example(model) {
  if (model.transformer) {
    return {
      text: "{}",
      note:
        `The transformer ${model.transformer} defines the format of the data. ` +
        "The inputs here are those of the model behind it.",
    };
  }
  const inputs = model.inputs ?? [];
  const elements = inputs.reduce((total, input) => total + size(input), 0);
  if (elements > MOST) {
    return {
      text: "",
      note: `The inputs have ${count(elements)} elements, which is too many to edit here.`,
    };
  }
  const data = Object.fromEntries(
    inputs.map((input) => [input.name, nested(input.shape ?? [], scalar(input.datatype))]),
  );
  return { text: write(data), note: "The example has one element for each free dimension." };
}
