"""`tests/plugins/repeat` in Python: answers each element of `IN` with a response, after the element
of `DELAY` at the same index (milliseconds), and ends with a wait of `WAIT` milliseconds. The
parameter `through` names a similar model, whose responses are forwarded instead.

The parameter `do` requests a fault at the element with the index `at` (default 0): `fail`, `trap`
(a Python exception), `type` (sends something that is not a tensor), `spin`, `stay` (continues to
wait after the request has ended), `lose` (fails while another task of the request still waits),
`orphan` (leaves behind a task that fails and is never awaited), `timer` (a sleep of asyncio),
`exit`.
"""

import asyncio

import hostler_concurrent as concurrent
import hostler_plugin as hostler


class StreamingModel(concurrent.StreamingModel):
    def metadata(self):
        inputs = [
            hostler.spec("IN", "INT32", [-1]),
            hostler.spec("DELAY", "UINT32", [-1]),
            hostler.spec("WAIT", "UINT32", [1]),
        ]
        outputs = [hostler.spec("OUT", "INT32", [1]), hostler.spec("IDX", "UINT32", [1])]
        return concurrent.StreamingMetadata(inputs, outputs, streaming=True)

    async def execute(self, request, inputs, responses):
        through = hostler.text(request, "through")
        if through is not None and through != request.model():
            async for outputs in concurrent.model(through).stream(inputs):
                await responses.send(outputs)
            return
        values, delays, wait = (hostler.elements(hostler.named(inputs, name)) for name in ("IN", "DELAY", "WAIT"))
        if len(values) != len(delays):
            raise hostler.invalid("DELAY", f"IN has {len(values)} elements and DELAY has {len(delays)}")
        deed, at = hostler.text(request, "do"), hostler.integer(request, "at") or 0
        for place, (value, delay) in enumerate(zip(values, delays)):
            if deed is not None and place == at:
                await misbehave(deed, responses)
            await concurrent.sleep(delay / 1000)
            out = hostler.tensor("OUT", "INT32", [1], [value])
            await responses.send([out, hostler.tensor("IDX", "UINT32", [1], [place])])
        await concurrent.sleep(wait[0] / 1000)


async def misbehave(deed, responses):
    match deed:
        case "fail":
            raise hostler.failed("asked to fail")
        case "trap":
            raise KeyError("asked to trap")
        case "type":
            await responses.send(["no tensor"])
        case "spin":
            while True:
                pass
        case "stay":
            while True:
                try:
                    await concurrent.sleep(0.001)
                except hostler.Err:
                    pass
        case "lose":
            async with asyncio.TaskGroup() as group:
                group.create_task(concurrent.sleep(0.2))
                group.create_task(misbehave("fail", responses))
        case "orphan":
            asyncio.create_task(misbehave("trap", responses))
            await asyncio.sleep(0)
        case "timer":
            await asyncio.sleep(0.001)
        case "exit":
            raise SystemExit(1)
        case _:
            raise hostler.invalid("parameters.do", f'"{deed}" is no deed')
