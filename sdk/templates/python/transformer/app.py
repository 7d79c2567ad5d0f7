"""Turns `{"value": 41}` into the input of the model, and its output into `{"answer": 42}`."""

import json

import hostler_plugin as hostler


class Transformer(hostler.Transformer):
    def preprocess(self, request, input):
        if not isinstance(input, hostler.Json):
            raise hostler.unsupported("send JSON")
        value = json.loads(input.value).get("value")
        if not isinstance(value, (int, float)):
            raise hostler.invalid("value", "expected a number")
        return [hostler.tensor("x", "FP32", [1], [value])]

    def postprocess(self, request, outputs):
        [answer] = hostler.elements(hostler.named(outputs, "y"))
        return hostler.Json(json.dumps({"answer": answer}))
