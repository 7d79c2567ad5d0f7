"""Texts and bytes, as arrays of objects and of fixed width."""

import numpy as np
import tritonclient.grpc as triton
from expect import ADDRESS, equal


def echo(client, array):
    tensor = triton.InferInput("INPUT0", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    return client.infer("texts", [tensor]).as_numpy("OUTPUT0")


with triton.InferenceServerClient(ADDRESS) as client:
    for elements in ([b"", b"\x00\xff\x00", b"a"], ["grüße".encode(), b"x" * 100_000]):
        array = np.array([elements], dtype=object)
        equal("bytes", echo(client, array), array)
    array = np.array([["1", "grüße", "three"]], dtype=object)
    equal("texts", [element.decode() for element in echo(client, array)[0]], ["1", "grüße", "three"])
    equal("fixed width", echo(client, np.array([[b"ab", b"c"]])), np.array([[b"ab", b"c"]], dtype=object))
