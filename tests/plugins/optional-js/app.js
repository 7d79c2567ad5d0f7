// A model with an optional input: `y` is `a`, plus `b` if the request contains it.
// `tests/plugins/optional-py` is the same in Python.

import * as hostler from "../../../sdk/js/hostler.js";

export const optionalInputs = hostler.optionalInputs("b");

export const model = hostler.model({
  metadata() {
    const spec = (name) => hostler.spec(name, "FP32", [-1]);
    return { inputs: [spec("a"), spec("b")], outputs: [spec("y")] };
  },
  predict(request, inputs) {
    let y = Array.from(hostler.elements(inputs[0]));
    for (const b of inputs.slice(1)) {
      const others = hostler.elements(b);
      y = y.map((one, at) => one + others[at]);
    }
    return [hostler.tensor("y", "FP32", [y.length], y)];
  },
});
