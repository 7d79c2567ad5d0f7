"""Tensors as JSON and in binary, mixed in one request, with named outputs and without."""

from itertools import product

import tritonclient.http as triton
from expect import ADDRESS, LEFT, RIGHT, refused, sum_and_difference


def inputs(left_binary, right_binary):
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT, binary_data=left_binary)
    tensors[1].set_data_from_numpy(RIGHT, binary_data=right_binary)
    return tensors


with triton.InferenceServerClient(ADDRESS) as client:
    for left, right in product((False, True), repeat=2):
        sum_and_difference(client.infer("simple", inputs(left, right)))
        for sum_binary, difference_binary in product((False, True), repeat=2):
            outputs = [
                triton.InferRequestedOutput("OUTPUT0", binary_data=sum_binary),
                triton.InferRequestedOutput("OUTPUT1", binary_data=difference_binary),
            ]
            sum_and_difference(client.infer("simple", inputs(left, right), outputs=outputs))
            sum_and_difference(client.infer("simple", inputs(left, right), outputs=outputs[:1]), ("OUTPUT0",))
    sum_and_difference(client.infer("simple", inputs(True, True), model_version="1"))

    refused("a wrong model", lambda: client.infer("simpel", inputs(True, True)), "unknown model", "simple")
    refused("a wrong version", lambda: client.infer("simple", inputs(True, True), model_version="9"), "unknown model")
    refused("one input", lambda: client.infer("simple", inputs(True, True)[:1]), "INPUT1")
    wrong = [triton.InferRequestedOutput("OUTPUT9")]
    refused("a wrong output", lambda: client.infer("simple", inputs(True, True), outputs=wrong), "OUTPUT9")
    sum_and_difference(client.infer("simple", inputs(True, True)))
