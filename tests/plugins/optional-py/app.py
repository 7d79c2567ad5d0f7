"""A model with an optional input: `y` is `a`, plus `b` if the request contains it.
`tests/plugins/optional-js` is the same in JavaScript."""

import hostler_plugin as hostler


class OptionalInputs(hostler.OptionalInputs):
    def names(self):
        return ["b"]


class Model(hostler.Model):
    def metadata(self):
        def spec(name):
            return hostler.spec(name, "FP32", [-1])

        return hostler.ModelMetadata([spec("a"), spec("b")], [spec("y")])

    def predict(self, request, inputs):
        y = hostler.elements(inputs[0])
        for b in inputs[1:]:
            y = [one + other for one, other in zip(y, hostler.elements(b))]
        return [hostler.tensor("y", "FP32", [len(y)], y)]
