"""Many concurrent requests through one client."""

import numpy as np
import tritonclient.http as triton
from expect import ADDRESS, LEFT, equal, refused

COUNT = 200

with triton.InferenceServerClient(ADDRESS, concurrency=8) as client:
    waiting = []
    for number in range(COUNT):
        tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        tensors[0].set_data_from_numpy(LEFT)
        tensors[1].set_data_from_numpy(np.full((1, 16), number, np.int32))
        waiting.append(client.async_infer("simple", tensors, request_id=str(number)))
    for number, answer in enumerate(waiting):
        result = answer.get_result(timeout=30)
        equal("id", result.get_response()["id"], str(number))
        equal("sum", result.as_numpy("OUTPUT0"), LEFT + number)
    refused("a wrong model", lambda: client.async_infer("simpel", tensors).get_result(), "unknown model")
