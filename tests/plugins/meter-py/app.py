"""A model that answers what it was asked and counts itself: metrics with labels. `tests/plugins/meter-js` is the same in
JavaScript.
"""

import hostler_plugin as hostler


class Model(hostler.Model):
    def metadata(self):
        message = hostler.spec("message", "BYTES", [-1])
        return hostler.ModelMetadata([message], [message])

    def predict(self, request, inputs):
        elements = hostler.elements(hostler.named(inputs, "message"))
        hostler.Counter("answers", "Answers given.", ["model"]).add([request.model()])
        hostler.Gauge("elements", "Elements of the last request.").set(len(elements))
        hostler.Histogram("lengths", "Bytes of elements.", [1, 10, 100]).observe(len(elements[0]))
        # What is wrong is an error of the contract, which the caller gets.
        if hostler.flag(request, "again"):
            hostler.Counter("answers", "Something else.")
        return inputs
