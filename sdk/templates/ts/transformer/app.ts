// Turns `{"value": 41}` into the input of the model, and its output into `{"answer": 42}`.

import * as hostler from "hostler-plugin";

export const transformer = hostler.transformer({
  preprocess(request: hostler.Request, input: hostler.Payload) {
    if (input.tag !== "json") throw hostler.unsupported("send JSON");
    const { value } = JSON.parse(input.val) as { value?: unknown };
    if (typeof value !== "number") throw hostler.invalid("value", "expected a number");
    return [hostler.tensor("x", "FP32", [1], [value])];
  },

  postprocess(request: hostler.Request, outputs: hostler.Tensor[]) {
    const [answer] = hostler.elements(hostler.named(outputs, "y"));
    return hostler.json(JSON.stringify({ answer }));
  },
});
