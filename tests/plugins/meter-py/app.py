"""A model that returns its input and counts itself with labelled metrics. `tests/plugins/meter-js`
is the same in JavaScript."""

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
        # A conflicting definition is an error of the contract, which the caller receives.
        if hostler.flag(request, "again"):
            hostler.Counter("answers", "Something else.")
        return inputs
