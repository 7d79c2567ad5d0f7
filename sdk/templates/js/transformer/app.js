// Turns `{"value": 41}` into the input of the model, and its output into `{"answer": 42}`.

import * as hostler from "hostler-plugin";

export const transformer = hostler.transformer({
  preprocess(request, input) {
    if (input.tag !== "json") throw hostler.unsupported("send JSON");
    const { value } = JSON.parse(input.val);
    if (typeof value !== "number") throw hostler.invalid("value", "expected a number");
    return [hostler.tensor("x", "FP32", [1], [value])];
  },

  postprocess(request, outputs) {
    const [answer] = hostler.elements(hostler.named(outputs, "y"));
    return hostler.json(JSON.stringify({ answer }));
  },
});
