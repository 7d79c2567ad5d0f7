"""Request ids, priority, timeout and the client's own parameters."""

import tritonclient.http as triton
from expect import ADDRESS, LEFT, RIGHT, equal, refused, sum_and_difference

with triton.InferenceServerClient(ADDRESS) as client:
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT)
    tensors[1].set_data_from_numpy(RIGHT)
    for more in (
        dict(request_id="a-1"),
        dict(priority=1),
        dict(timeout=5_000_000),
        dict(parameters={"text": "x", "whole": 3, "half": 0.5, "yes": True}),
        dict(sequence_id=0, sequence_start=True, sequence_end=True),
        dict(headers={"x-test": "1"}, query_params={"a": "b c"}),
    ):
        result = client.infer("simple", tensors, **more)
        sum_and_difference(result)
        equal("id", result.get_response().get("id"), more.get("request_id"))
    refused("a list", lambda: client.infer("simple", tensors, parameters={"list": [1]}), "list")
