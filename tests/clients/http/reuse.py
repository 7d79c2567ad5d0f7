"""One set of input and output objects for many requests, with different forms in between."""

import numpy as np
import tritonclient.http as triton
from expect import ADDRESS, LEFT, RIGHT, equal, sum_and_difference

with triton.InferenceServerClient(ADDRESS) as client:
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    outputs = [triton.InferRequestedOutput(name, binary_data=name == "OUTPUT0") for name in ("OUTPUT0", "OUTPUT1")]
    for binary in (True, False, True, False):
        tensors[0].set_data_from_numpy(LEFT, binary_data=binary)
        tensors[1].set_data_from_numpy(RIGHT, binary_data=not binary)
        for _ in range(2):
            sum_and_difference(client.infer("simple", tensors, outputs=outputs))
    # The same objects with another shape.
    for tensor, number in zip(tensors, (5, 2)):
        tensor.set_shape([3, 16])
        tensor.set_data_from_numpy(np.full((3, 16), number, np.int32))
    result = client.infer("simple", tensors, outputs=outputs)
    equal("sum of three rows", result.as_numpy("OUTPUT0"), np.full((3, 16), 7, np.int32))
