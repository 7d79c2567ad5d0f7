"""Tensors in raw contents, with and without named outputs; invalid requests are refused with the
right status.
"""

import numpy as np
import tritonclient.grpc as triton
from expect import ADDRESS, LEFT, RIGHT, equal, refused, sum_and_difference
from tritonclient.utils import InferenceServerException


def inputs():
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT)
    tensors[1].set_data_from_numpy(RIGHT)
    return tensors


def status(call):
    try:
        call()
    except InferenceServerException as error:
        return error.status()
    raise SystemExit("expected an error")


with triton.InferenceServerClient(ADDRESS) as client:
    result = client.infer("simple", inputs(), request_id="mine")
    sum_and_difference(result)
    response = result.get_response()
    equal("id", [response.id, response.model_name, response.model_version], ["mine", "simple", "1"])
    equal("contents are raw", len(response.raw_output_contents), 2)
    sum_and_difference(client.infer("simple", inputs(), model_version="1", priority=1, timeout=20_000_000))
    outputs = [triton.InferRequestedOutput("OUTPUT1")]
    sum_and_difference(client.infer("simple", inputs(), outputs=outputs), ("OUTPUT1",))
    sum_and_difference(client.infer("simple", inputs(), headers={"x-user-id": "7"}, parameters={"note": "a"}))

    refused("a wrong model", lambda: client.infer("simpel", inputs()), "simpel", "simple")
    refused("one input", lambda: client.infer("simple", inputs()[:1]), "INPUT1")
    wrong = [triton.InferRequestedOutput("OUTPUT9")]
    refused("a wrong output", lambda: client.infer("simple", inputs(), outputs=wrong), "OUTPUT9")
    fewer = triton.InferInput("INPUT0", [1, 8], "INT32")
    fewer.set_data_from_numpy(np.zeros((1, 8), np.int32))
    for what, call, code in (
        ("a wrong model", lambda: client.infer("simpel", inputs()), "NOT_FOUND"),
        ("a wrong version", lambda: client.infer("simple", inputs(), model_version="9"), "NOT_FOUND"),
        ("one input", lambda: client.infer("simple", inputs()[:1]), "INVALID_ARGUMENT"),
        ("a wrong shape", lambda: client.infer("simple", [fewer, inputs()[1]]), "INVALID_ARGUMENT"),
    ):
        equal(what, status(call), f"StatusCode.{code}")
    sum_and_difference(client.infer("simple", inputs()))
