"""Calls that answer through a callback, and one that is cancelled."""

import queue

import numpy as np
import tritonclient.grpc as triton
from expect import ADDRESS, LEFT, equal, said

COUNT = 100


def inputs(number):
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT)
    tensors[1].set_data_from_numpy(np.full((1, 16), number, np.int32))
    return tensors


with triton.InferenceServerClient(ADDRESS) as client:
    answers = queue.Queue()
    for number in range(COUNT):
        done = lambda result, error: answers.put((result, error))
        client.async_infer("simple", inputs(number), callback=done, request_id=str(number))
    for _ in range(COUNT):
        result, error = answers.get(timeout=60)
        equal("error", error, None)
        number = int(result.get_response().id)
        equal("difference", result.as_numpy("OUTPUT1"), LEFT - number)

    client.async_infer("simpel", inputs(0), callback=lambda result, error: answers.put((result, error)))
    _, error = answers.get(timeout=60)
    said("a wrong model", error, "simpel")
    call = client.async_infer("simple", inputs(0), callback=lambda result, error: answers.put((result, error)))
    call.cancel()
    answers.get(timeout=60)
    equal("afterwards", client.infer("simple", inputs(1)).as_numpy("OUTPUT1"), LEFT - 1)
