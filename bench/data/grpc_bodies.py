"""Writes the bodies of `cargo xtask bench triton` that are not JSON, out of those that are: `grpc_bodies.py FOLDER`.

Of each `NAME.json` of the Open Inference Protocol with `MODEL` at its end: `NAME-bin.bin`, the same as a binary
request; `NAME-grpc.grpc`, one `ModelInferRequest` as HTTP/2 carries it. `fresh` and `reused` are given the same tensors.
"""

import json
import struct
import sys
from pathlib import Path

import numpy
from tritonclient.grpc import service_pb2

folder = Path(sys.argv[1])
MODELS = {
    "triton-small": ("small", "small"),
    "hostler-small": ("small", "small"),
    "floor": ("small", "small"),
    "triton-bankchurn": ("bankchurn", "bankchurn"),
    "hostler-bankchurn": ("bankchurn", "bankchurn"),
    "reused": ("bankchurn", "reused"),
    "fresh": ("bankchurn", "fresh"),
    # `bench --against`
    "plain": ("bankchurn", "plain"),
}
for name, (source, model) in MODELS.items():
    tensor = json.loads((folder / f"triton-{source}.json").read_text())["inputs"][0]
    raw = numpy.array(tensor["data"], numpy.float32).tobytes()

    described = {key: tensor[key] for key in ["name", "datatype", "shape"]}
    described["parameters"] = {"binary_data_size": len(raw)}
    header = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [described]}, separators=(",", ":"))
    (folder / f"{name}-bin.bin").write_bytes(header.encode() + raw)

    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[raw])
    request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
    message = request.SerializeToString()
    # Not compressed, and how long it is.
    (folder / f"{name}-grpc.grpc").write_bytes(struct.pack(">BI", 0, len(message)) + message)
