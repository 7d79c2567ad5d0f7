// The transformer of `tests/plugins/caller` in JavaScript: calls one model with the input,
// `before`, and another one with the output, `after`. Both take `x` and return `y`, FP32 [-1]. With
// the parameter `keep_mb` it keeps a tensor of that size.

import * as calls from "../../../sdk/js/executor.js";
import * as hostler from "../../../sdk/js/hostler.js";

const kept = [];

export const transformer = hostler.transformer({
  preprocess(request, input) {
    const numbers = input.tag === "json" ? JSON.parse(input.val) : null;
    if (!Array.isArray(numbers)) throw hostler.invalid(null, "expected numbers");
    const mb = hostler.text(request, "keep_mb");
    if (mb !== null) kept.push(hostler.tensor("kept", "UINT8", [mb << 20], new Uint8Array(mb << 20)));
    return [around(request, "before", hostler.tensor("x", "FP32", [numbers.length], numbers))];
  },
  postprocess(request, outputs) {
    const y = around(request, "after", hostler.named(outputs, "y").renamed("x"));
    const numbers = Array.from(hostler.elements(y), (number) => number.toFixed(1));
    return hostler.json(`[${numbers.join(",")}]`);
  },
});

function around(request, key, x) {
  const to = hostler.text(request, key) ?? hostler.config(key);
  if (to === null) return x;
  const withinUs = hostler.text(request, "within_us");
  const model = calls.getModel(to);
  const outputs = withinUs === null ? model.call([x]) : calls.callWithin(model, [x], withinUs / 1000);
  return hostler.named(outputs, "y").renamed("x");
}
