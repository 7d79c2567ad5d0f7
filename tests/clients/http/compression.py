"""gzip and deflate, of requests and of answers, in all combinations."""

from itertools import product

import numpy as np
import tritonclient.http as triton
from expect import ADDRESS, LEFT, RIGHT, equal, sum_and_difference

WAYS = (None, "gzip", "deflate")

with triton.InferenceServerClient(ADDRESS) as client:
    for request, response, binary in product(WAYS, WAYS, (False, True)):
        tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        tensors[0].set_data_from_numpy(LEFT, binary_data=binary)
        tensors[1].set_data_from_numpy(RIGHT, binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")]
        ways = dict(request_compression_algorithm=request, response_compression_algorithm=response)
        sum_and_difference(client.infer("simple", tensors, outputs=outputs, **ways))
        # Larger than a buffer.
        large = np.resize(np.arange(-128, 128, dtype=np.int8), (1000, 999))
        tensor = triton.InferInput("INPUT0", list(large.shape), "INT8")
        tensor.set_data_from_numpy(large)
        equal("a large tensor", client.infer("int8", [tensor], **ways).as_numpy("OUTPUT0"), large)
