"""BYTES: texts and empty elements, as JSON and in binary; bytes that are not text are binary only.
"""

import numpy as np
import tritonclient.http as triton
from expect import ADDRESS, equal, refused

TEXTS = [b"", b"one", "grüße \"x\"\n".encode(), b"4" * 100_000]
RAW = [b"\x00\x01\xff", b"", b"\xc3\x28", b"{}"]


def ask(client, elements, binary_input, binary_output):
    tensor = triton.InferInput("INPUT0", [2, 2], "BYTES")
    tensor.set_data_from_numpy(np.array(elements, dtype=object).reshape(2, 2), binary_data=binary_input)
    output = triton.InferRequestedOutput("OUTPUT0", binary_data=binary_output)
    return client.infer("texts", [tensor], outputs=[output]).as_numpy("OUTPUT0")


with triton.InferenceServerClient(ADDRESS) as client:
    for binary_input in (False, True):
        # The client returns elements that were sent as JSON as `str`.
        wanted = np.array(TEXTS, dtype=object).reshape(2, 2)
        equal("binary texts", ask(client, TEXTS, binary_input, True), wanted)
        as_json = [[element.encode() if isinstance(element, str) else element for element in row]
                   for row in ask(client, TEXTS, binary_input, False)]
        equal("texts as JSON", np.array(as_json, dtype=object), wanted)
    equal("raw bytes", ask(client, RAW, True, True), np.array(RAW, dtype=object).reshape(2, 2))
    refused("raw bytes as JSON", lambda: ask(client, RAW, True, False), "OUTPUT0", "binary_data")
