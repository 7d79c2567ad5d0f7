"""A model that doubles its input."""

import hostler_plugin as hostler


class Model(hostler.Model):
    def metadata(self):
        x = hostler.spec("x", "FP32", [-1])
        y = hostler.spec("y", "FP32", [-1])
        return hostler.ModelMetadata([x], [y])

    def predict(self, request, inputs):
        [x] = inputs
        doubled = [2 * element for element in hostler.elements(x)]
        return [hostler.tensor("y", "FP32", x.shape(), doubled)]
