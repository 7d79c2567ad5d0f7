"""A model with any number of responses: several requests in flight on one stream, as in the
client's own example; marked ends, an error in the middle, a stream that is cancelled, and the same
with asyncio.
"""

import asyncio
import queue

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from expect import ADDRESS, equal, refused, said


def inputs(delays, wait=0):
    """Inputs for `repeat`, which returns an element for each delay, and then waits."""
    values = np.arange(100, 100 + len(delays), dtype=np.int32)
    arrays = {"IN": values, "DELAY": np.array(delays, np.uint32), "WAIT": np.array([wait], np.uint32)}
    tensors = []
    for name, array in arrays.items():
        tensors.append(triton.InferInput(name, list(array.shape), "INT32" if name == "IN" else "UINT32"))
        tensors[-1].set_data_from_numpy(array)
    return tensors


def is_last(response):
    return response.parameters["triton_final_response"].bool_param


def collect(answers, count):
    """Returns the elements of each of `count` requests, and the order in which responses arrived.
    """
    got, order, ended = {}, [], 0
    while ended < count:
        result, error = answers.get(timeout=60)
        equal("error", error, None)
        response = result.get_response()
        elements = got.setdefault(response.id, [])
        if is_last(response):
            equal("the end is empty", len(response.outputs), 0)
            ended += 1
        else:
            elements.append(int(result.as_numpy("OUT")[0]))
            equal("place", int(result.as_numpy("IDX")[0]), len(elements) - 1)
            order.append(response.id)
    return got, order


with triton.InferenceServerClient(ADDRESS) as client:
    equal("decoupled", client.get_model_config("repeat").config.model_transaction_policy.decoupled, True)
    refused("a unary call", lambda: client.infer("repeat", inputs([0])), "repeat", "ModelStreamInfer")

    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    # Many concurrent requests with none, one or several responses each.
    counts = {f"r{number}": number % 4 for number in range(40)}
    for name, count in counts.items():
        client.async_stream_infer("repeat", inputs([1] * count), request_id=name, enable_empty_final_response=True)
    got, _ = collect(answers, len(counts))
    equal("elements", got, {name: list(range(100, 100 + count)) for name, count in counts.items()})

    # A short request overtakes a long one.
    client.async_stream_infer("repeat", inputs([0, 1000]), request_id="long", enable_empty_final_response=True)
    client.async_stream_infer("repeat", inputs([50]), request_id="short", enable_empty_final_response=True)
    _, order = collect(answers, 2)
    equal("order", order, ["long", "short", "long"])

    # Without the flag, only the responses arrive.
    client.async_stream_infer("repeat", inputs([]), request_id="none")
    client.async_stream_infer("repeat", inputs([0, 0]), request_id="two")
    for number in range(2):
        result, error = answers.get(timeout=60)
        equal("error", error, None)
        equal("response", [result.get_response().id, int(result.as_numpy("IDX")[0])], ["two", number])
        equal("not the last", is_last(result.get_response()), False)

    # After an error in the middle, the stream continues.
    client.async_stream_infer("repeat", inputs([0, 0]), request_id="bad", parameters={"do": "fail", "at": 1})
    equal("before it", answers.get(timeout=60)[1], None)
    said("in the middle", answers.get(timeout=60)[1], "asked to fail")
    client.async_stream_infer("repeat", inputs([0]), request_id="ends", parameters={"do": "fail"}, enable_empty_final_response=True)
    said("at the beginning", answers.get(timeout=60)[1], "asked to fail")
    equal("its end", collect(answers, 1)[0], {"ends": []})
    client.async_stream_infer("repeat", inputs([0]), request_id="good", enable_empty_final_response=True)
    equal("after it", collect(answers, 1)[0], {"good": [100]})

    # Cancelled in the middle: the client receives the cancellation, and a new stream works
    # normally.
    client.async_stream_infer("repeat", inputs([0, 600_000]), request_id="left")
    equal("begun", answers.get(timeout=60)[1], None)
    client.stop_stream(cancel_requests=True)
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer("repeat", inputs([0]), request_id="next", enable_empty_final_response=True)
    told = answers.get(timeout=60)
    if told[1] is not None:
        equal("cancelled", told[1].status(), "StatusCode.CANCELLED")
    else:
        answers.queue.appendleft(told)
    equal("the next stream", collect(answers, 1)[0], {"next": [100]})
    client.stop_stream()


async def requests(count):
    for number in range(count):
        yield {
            "model_name": "repeat",
            "inputs": inputs([0] * (number % 3)),
            "request_id": str(number),
        }


async def main():
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        # This client has no way to request marked ends.
        counts = {}
        async for result, error in client.stream_infer(requests(30)):
            equal("error", error, None)
            response = result.get_response()
            equal("place", int(result.as_numpy("IDX")[0]), counts.get(response.id, 0))
            counts[response.id] = counts.get(response.id, 0) + 1
        equal("responses", counts, {str(number): number % 3 for number in range(30) if number % 3})


asyncio.run(main())
