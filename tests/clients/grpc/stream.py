"""A stream: answers in order, an error among them, ends, deadlines, and another stream afterwards.
"""

import queue

import numpy as np
import tritonclient.grpc as triton
from expect import ADDRESS, LEFT, equal, said


def inputs(number):
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT)
    tensors[1].set_data_from_numpy(np.full((1, 16), number, np.int32))
    return tensors


def stream(client, count, **ways):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)), **ways)
    for number in range(count):
        model = "simpel" if number == 3 else "simple"
        client.async_stream_infer(model, inputs(number), request_id=str(number), enable_empty_final_response=True)
    for number in range(count):
        result, error = answers.get(timeout=60)
        if number == 3:
            said("a wrong model", error, "simpel")
            continue
        equal("error", error, None)
        response = result.get_response()
        equal("id", [response.id, response.parameters["triton_final_response"].bool_param], [str(number), True])
        equal("difference", result.as_numpy("OUTPUT1"), LEFT - number)
    client.stop_stream()


with triton.InferenceServerClient(ADDRESS) as client:
    stream(client, 200)
    stream(client, 1)
    stream(client, 20, compression_algorithm="gzip", headers={"x-user-id": "7"})
    # A stream's deadline does not affect what comes after it.
    errors = queue.Queue()
    client.start_stream(callback=lambda result, error: errors.put(error), stream_timeout=0.2)
    said("the deadline", errors.get(timeout=60), "Deadline Exceeded")
    client.stop_stream()
    stream(client, 5)
    equal("afterwards", client.infer("simple", inputs(1)).as_numpy("OUTPUT1"), LEFT - 1)
