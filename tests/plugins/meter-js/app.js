// A model that returns its input and counts itself with labelled metrics. `tests/plugins/meter-py`
// is the same in Python.

import * as hostler from "../../../sdk/js/hostler.js";

export const model = hostler.model({
  metadata() {
    const message = hostler.spec("message", "BYTES", [-1]);
    return { inputs: [message], outputs: [message] };
  },
  predict(request, inputs) {
    const elements = hostler.elements(hostler.named(inputs, "message"));
    hostler.counter("answers", "Answers given.", ["model"]).add([request.model()], 1);
    hostler.gaugeOf("elements", "Elements of the last request.").set([], elements.length);
    hostler.histogram("lengths", "Bytes of elements.", [1, 10, 100]).observe([], elements[0].length);
    // A conflicting definition is an error of the contract, which the caller receives.
    if (hostler.flag(request, "again")) hostler.counter("answers", "Something else.");
    return inputs;
  },
});
