"""INT8 in JSON and in binary; values out of range are refused."""

import json
import urllib.error
import urllib.request

import numpy as np
import tritonclient.http as triton
from expect import ADDRESS, equal

with triton.InferenceServerClient(ADDRESS) as client:
    small = np.array([[-128, -1, 0, 127]], np.int8)
    for binary in (False, True):
        tensor = triton.InferInput("INPUT0", [1, 4], "INT8")
        tensor.set_data_from_numpy(small, binary_data=binary)
        output = triton.InferRequestedOutput("OUTPUT0", binary_data=binary)
        equal("int8", client.infer("int8", [tensor], outputs=[output]).as_numpy("OUTPUT0"), small)

# The client itself refuses these, so they are sent without it.
for data in ([[128]], [[-129]], [[1.5]], [["1"]], [[None]]):
    body = {"inputs": [{"name": "INPUT0", "datatype": "INT8", "shape": [1, 1], "data": data}]}
    request = urllib.request.Request(f"http://{ADDRESS}/v2/models/int8/infer", json.dumps(body).encode())
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        equal(f"{data}", error.code, 400)
    else:
        raise SystemExit(f"{data} was taken for INT8")
