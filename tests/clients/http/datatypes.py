"""Every datatype, with its extremes; what a datatype cannot hold is refused."""

import json
import urllib.error
import urllib.request

import numpy as np
import tritonclient.http as triton
from expect import ADDRESS, equal

KINDS = {
    "bool": ("BOOL", bool), "uint8": ("UINT8", np.uint8), "uint16": ("UINT16", np.uint16),
    "uint32": ("UINT32", np.uint32), "uint64": ("UINT64", np.uint64), "int8": ("INT8", np.int8),
    "int16": ("INT16", np.int16), "int32": ("INT32", np.int32), "int64": ("INT64", np.int64),
    "fp16": ("FP16", np.float16), "bf16": ("BF16", np.float32), "fp32": ("FP32", np.float32),
    "fp64": ("FP64", np.float64), "bytes": ("BYTES", object),
}


def extremes(kind):
    if kind is bool:
        return [False, True]
    if kind is object:
        return [b"", b"\xff\x00"]
    if np.issubdtype(kind, np.integer):
        return [np.iinfo(kind).min, np.iinfo(kind).max]
    return [-0.5, 65504]


def bf16(values):
    """The client has no arrays of BF16: the upper halves of FP32."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()


with triton.InferenceServerClient(ADDRESS) as client:
    tensors = []
    for name, (datatype, kind) in KINDS.items():
        tensor = triton.InferInput(name, [2], datatype)
        tensor.set_data_from_numpy(np.array(extremes(kind), dtype=kind), binary_data=True)
        tensors.append(tensor)
    result = client.infer("datatypes", tensors)
    for name, (datatype, kind) in KINDS.items():
        output = result.get_output(f"{name}_out")
        equal(name, [output["datatype"], output["shape"]], [datatype, [2]])
        if datatype == "BF16":
            equal(name, bf16(result.as_numpy(f"{name}_out")), bf16([-0.5, 65504]))
        else:
            equal(name, result.as_numpy(f"{name}_out"), np.array(extremes(kind), dtype=kind))

    small = np.array([[-128, -1, 0, 127]], np.int8)
    for binary in (False, True):
        tensor = triton.InferInput("INPUT0", [1, 4], "INT8")
        tensor.set_data_from_numpy(small, binary_data=binary)
        output = triton.InferRequestedOutput("OUTPUT0", binary_data=binary)
        equal("int8", client.infer("int8", [tensor], outputs=[output]).as_numpy("OUTPUT0"), small)

# The client refuses these itself, so they are sent without it.
for data in ([[128]], [[-129]], [[1.5]], [["1"]], [[None]]):
    body = {"inputs": [{"name": "INPUT0", "datatype": "INT8", "shape": [1, 1], "data": data}]}
    request = urllib.request.Request(f"http://{ADDRESS}/v2/models/int8/infer", json.dumps(body).encode())
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        equal(f"{data}", error.code, 400)
    else:
        raise SystemExit(f"{data} was taken for INT8")
