"""`plugins/router` in Python: calls two models concurrently and joins their answers. The config
keys `first` and `second` name them. Both take `x` and return `y`, FP32 [-1]. The outputs `first`
and `second` are the `y` of the two models.

The parameter `each_ms` limits the time of each call.
"""

import asyncio

import hostler_concurrent as concurrent
import hostler_plugin as hostler


class StreamingModel(concurrent.StreamingModel):
    def metadata(self):
        x, first, second = (hostler.spec(name, "FP32", [-1]) for name in ("x", "first", "second"))
        return concurrent.StreamingMetadata([x], [first, second], streaming=False)

    async def execute(self, request, inputs, responses):
        each_ms = hostler.integer(request, "each_ms")
        timeout = None if each_ms is None else each_ms / 1000
        first, second = await asyncio.gather(
            ask("first", inputs, timeout), ask("second", inputs, timeout)
        )
        await responses.send([first, second])


async def ask(name, inputs, timeout):
    """Calls the model that the config key `name` names, and returns its `y` as `name`."""
    named = hostler.config(name)
    if named is None:
        raise hostler.failed(f'config lacks "{name}"')
    outputs = await concurrent.model(named).call(inputs, timeout)
    return hostler.named(outputs, "y").renamed(name)
