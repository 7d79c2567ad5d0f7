"""Streaming models against the stand-in."""

import asyncio
from pathlib import Path

import pytest

import hostler_concurrent as concurrent
import hostler_plugin as hostler
from hostler_testing import ContractError, Host, Model, Trap, raises, values

ROOT = Path(__file__).parents[3]
N = [hostler.spec("n", "INT32", [1])]


def number(n):
    return [hostler.tensor("n", "INT32", [1], [n])]


def streaming(execute, is_streaming=True, **more):
    def metadata(self):
        return concurrent.StreamingMetadata([], N, is_streaming)

    body = {"metadata": metadata, "execute": execute, **more}
    return Host(type("StreamingModel", (concurrent.StreamingModel,), body))


def test_responses_and_simulated_time():
    async def execute(self, request, inputs, responses):
        for n in range(3):
            await concurrent.sleep(10)
            await responses.send(number(n))

    host = streaming(execute)
    assert [values(one)["n"] for one in host.execute()] == [[0], [1], [2]] and host.now == pytest.approx(30)
    assert len(host.execute_all([[]] * 100)) == 100 and host.now == pytest.approx(60)


def test_a_tensor_that_was_sent_belongs_to_the_host():
    async def execute(self, request, inputs, responses):
        [one] = number(1)
        await asyncio.gather(responses.send([one]), responses.send([one]))

    with raises("failed", message="item 0 is a tensor that must not be used: it was sent to the host"):
        streaming(execute).execute()


def test_exactly_one_response():
    async def twice(self, request, inputs, responses):
        await responses.send(number(1))
        await responses.send(number(2))

    with raises("unsupported", message="exactly one"):
        streaming(twice, is_streaming=False).execute()

    async def never(self, request, inputs, responses):
        pass

    with pytest.raises(ContractError, match="sent 0 responses"):
        streaming(never, is_streaming=False).execute()


def test_responses_are_checked_against_the_metadata():
    async def execute(self, request, inputs, responses):
        await responses.send([hostler.tensor("m", "INT32", [1], [1])])

    with pytest.raises((ContractError, hostler.Err), match="does not declare"):
        streaming(execute).execute()


def test_faults_name_their_place():
    async def execute(self, request, inputs, responses):
        return {}["key"]

    host = streaming(execute)
    with raises("failed", message="KeyError: 'key' (in execute, test_streaming.py:"):
        host.execute()
    assert host.logs[0][0] == "ERROR" and "Traceback (most recent call last)" in host.logs[0][1]

    async def generator(self, request, inputs, responses):
        yield 1

    with raises("failed", message="must be defined with `async def`, without `yield`"):
        streaming(generator).execute()


def test_a_wait_for_another_request_never_ends():
    async def execute(self, request, inputs, responses):
        await asyncio.Event().wait()

    with pytest.raises(Trap, match="waits for something that never happens"):
        streaming(execute).execute()


def test_deadline_and_cancellation_end_waits():
    async def execute(self, request, inputs, responses):
        await concurrent.sleep(10)

    host = streaming(execute)
    with raises("deadline"):
        host.execute(seconds=1)
    with raises("cancelled"):
        host.execute(cancelled_after=1)

    async def stay(self, request, inputs, responses):
        while True:
            try:
                await concurrent.sleep(1)
            except hostler.Err:
                pass

    with pytest.raises(Trap, match="continues to wait"):
        streaming(stay).execute(seconds=1)


def test_lifetime():
    events = []

    async def initialize(self):
        events.append("initialize")

    async def finalize(self):
        events.append("finalize")

    async def execute(self, request, inputs, responses):
        events.append("execute")

    host = streaming(execute, initialize=initialize, finalize=finalize, ready=lambda self: 1 / 0)
    host.execute()
    assert host.ready() is False and "ZeroDivisionError" in host.logs[-1][1]
    host.finalize()
    assert events == ["initialize", "execute", "finalize"]


def test_calls_to_models():
    async def execute(self, request, inputs, responses):
        for one in await asyncio.gather(concurrent.model("a").call([]), concurrent.model("b").call([], timeout=3)):
            await responses.send(one)
        async for one in concurrent.model("stream").stream([]):
            await responses.send(one)
        assert concurrent.model("stream").is_streaming()

    models = {
        "a": Model(lambda inputs: number(1), seconds=1),
        "b": Model(lambda inputs: number(2), seconds=2),
        "stream": Model(lambda inputs: [number(3), number(4)], streaming=True, seconds=1),
    }
    host = streaming(execute)
    host.models = {name: __import__("hostler_testing")._host.as_model(name, one) for name, one in models.items()}
    assert [values(one)["n"] for one in host.execute()] == [[1], [2], [3], [4]] and host.now == pytest.approx(4)
    with raises("deadline"):
        host.execute(seconds=3.5)


@pytest.mark.skipif(not (ROOT / "plugins/router-py").is_dir(), reason="needs the repository of Hostler")
def test_plugins_of_the_repository_run_unchanged():
    def renamed(inputs):
        return [inputs[0].renamed("y")]

    host = Host(ROOT / "plugins/router-py", config={"first": "a", "second": "b"}, models={"a": renamed, "b": renamed})
    [response] = host.execute({"x": [1, 2]})
    assert values(response) == {"first": [1, 2], "second": [1, 2]}
    host = Host(ROOT / "tests/plugins/optional-py")
    assert values(host.predict({"a": [1]})) == {"y": [1]} and values(host.predict({"a": [1], "b": [2]})) == {"y": [3]}
    host = Host(ROOT / "tests/plugins/caller-py", models={"m": renamed})
    assert host.transform([1, 2], renamed, parameters={"before": "m", "after": "m"}) == [1, 2]
