"""Counts down: one response for each number."""

import hostler_concurrent as concurrent
import hostler_plugin as hostler


class StreamingModel(concurrent.StreamingModel):
    def metadata(self):
        start = hostler.spec("from", "INT32", [1])
        n = hostler.spec("n", "INT32", [1])
        return concurrent.StreamingMetadata([start], [n], streaming=True)

    async def execute(self, request, inputs, responses):
        [start] = hostler.elements(inputs[0])
        if start < 0:
            raise hostler.invalid("from", "it must not be negative")
        for n in range(start, 0, -1):
            await responses.send([hostler.tensor("n", "INT32", [1], [n])])
            await concurrent.sleep(0.01)
