"""Inputs, outputs and results that are reused with other data and other models."""

import numpy as np
import tritonclient.grpc as triton
from expect import ADDRESS, LEFT, RIGHT, equal, sum_and_difference

with triton.InferenceServerClient(ADDRESS) as client:
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    outputs = [triton.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
    for _ in range(3):
        tensors[0].set_data_from_numpy(LEFT)
        tensors[1].set_data_from_numpy(RIGHT)
        result = client.infer("simple", tensors, outputs=outputs)
        sum_and_difference(result)
        tensors[1].set_data_from_numpy(LEFT)
        equal("another", client.infer("simple", tensors, outputs=outputs).as_numpy("OUTPUT1"), LEFT - LEFT)
        sum_and_difference(result)
    # A result is used as an input.
    once_more = triton.InferInput("INPUT0", [1, 16], "INT32")
    once_more.set_data_from_numpy(result.as_numpy("OUTPUT0").astype(np.int32))
    equal("again", client.infer("simple", [once_more, tensors[1]]).as_numpy("OUTPUT1"), RIGHT)
