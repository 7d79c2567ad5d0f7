"""Messages compressed by gRPC itself."""

import tritonclient.grpc as triton
from expect import ADDRESS, LEFT, RIGHT, sum_and_difference

with triton.InferenceServerClient(ADDRESS) as client:
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT)
    tensors[1].set_data_from_numpy(RIGHT)
    for algorithm in (None, "gzip", "deflate"):
        sum_and_difference(client.infer("simple", tensors, compression_algorithm=algorithm))
