"""The transformer of `tests/plugins/caller` in Python: calls one model with the input, `before`,
and another one with the output, `after`. Both take `x` and return `y`, FP32 [-1]. With the
parameter `keep_mb` it keeps a tensor of that size."""

import json

import hostler_plugin as hostler


KEPT = []


class Transformer(hostler.Transformer):
    def preprocess(self, request, input):
        numbers = json.loads(input.value) if isinstance(input, hostler.Json) else None
        if not isinstance(numbers, list):
            raise hostler.invalid(None, "expected numbers")
        if (mb := hostler.text(request, "keep_mb")) is not None:
            size = int(mb) << 20
            KEPT.append(hostler.Tensor.create("kept", hostler.Datatype["UINT8"], [size], bytes(size)))
        return [around(request, "before", hostler.tensor("x", "FP32", [len(numbers)], numbers))]

    def postprocess(self, request, outputs):
        y = around(request, "after", hostler.named(outputs, "y").renamed("x"))
        return hostler.Json(f"[{','.join(f'{y:.1f}' for y in hostler.elements(y))}]")


def around(request, key, x):
    to = hostler.text(request, key) or hostler.config(key)
    if to is None:
        return x
    within_us = hostler.text(request, "within_us")
    model = hostler.get_model(to)
    outputs = hostler.call_within(model, [x], int(within_us) / 1e6) if within_us else model.call([x])
    return hostler.named(outputs, "y").renamed("x")
