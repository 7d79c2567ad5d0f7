// A model that doubles its input.

import * as hostler from "hostler-plugin";

export const model = hostler.model({
  metadata() {
    const x = hostler.spec("x", "FP32", [-1]);
    const y = hostler.spec("y", "FP32", [-1]);
    return { inputs: [x], outputs: [y] };
  },

  predict(request: hostler.Request, [x]: hostler.Tensor[]) {
    const doubled = hostler.elements<"FP32">(x).map((element) => 2 * element);
    return [hostler.tensor("y", "FP32", x.shape(), doubled)];
  },
});
