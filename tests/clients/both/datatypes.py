"""Every datatype, with its extreme values."""

import ml_dtypes
import numpy as np
from expect import ADDRESS, PROTOCOL, equal, triton

KINDS = {
    "bool": ("BOOL", bool), "uint8": ("UINT8", np.uint8), "uint16": ("UINT16", np.uint16),
    "uint32": ("UINT32", np.uint32), "uint64": ("UINT64", np.uint64), "int8": ("INT8", np.int8),
    "int16": ("INT16", np.int16), "int32": ("INT32", np.int32), "int64": ("INT64", np.int64),
    "fp16": ("FP16", np.float16), "bf16": ("BF16", ml_dtypes.bfloat16), "fp32": ("FP32", np.float32),
    "fp64": ("FP64", np.float64), "bytes": ("BYTES", object),
}


def extremes(kind):
    if kind is bool:
        return [False, True]
    if kind is object:
        return [b"", "grüße".encode()]
    if np.issubdtype(kind, np.integer):
        return [np.iinfo(kind).min, np.iinfo(kind).max]
    return [-0.5, 32768]


with triton.InferenceServerClient(ADDRESS) as client:
    tensors = []
    for name, (datatype, kind) in KINDS.items():
        tensor = triton.InferInput(name, [2], datatype)
        tensor.set_data_from_numpy(np.array(extremes(kind), dtype=kind))
        tensors.append(tensor)
    result = client.infer("datatypes", tensors)
    for name, (datatype, kind) in KINDS.items():
        output = result.get_output(f"{name}_out")
        output = output if PROTOCOL == "http" else {"datatype": output.datatype, "shape": list(map(int, output.shape))}
        equal(name, [output["datatype"], output["shape"]], [datatype, [2]])
        equal(name, result.as_numpy(f"{name}_out"), np.array(extremes(kind), dtype=kind))
