"""`plugins/router` in Python: asks two models at once and joins what they answer. Its config names them: `first` and
`second` take `x` and give `y`, both FP32 [-1]; `y` of the one is `first` here, that of the other `second`.

The parameter `each_ms` bounds the time of each.
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
    """The `y` of the model that the config has under this name."""
    named = hostler.config(name)
    if named is None:
        raise hostler.failed(f'config lacks "{name}"')
    outputs = await concurrent.model(named).call(inputs, timeout)
    return hostler.named(outputs, "y").renamed(name)
