"""Writes the non-JSON request bodies of `cargo xtask bench triton`: `grpc_bodies.py FOLDER`.

Reads tensors from `triton-small.json` and `triton-bankchurn.json` in the folder, which are requests
of the Open Inference Protocol. Writes for each NAME in `MODELS`: `NAME-bin.bin`, a binary request,
and `NAME-grpc.grpc`, one `ModelInferRequest` as HTTP/2 carries it. `fresh` and `reused` get the same
tensors.
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
    # The gRPC frame header: not compressed, and the length of the message.
    (folder / f"{name}-grpc.grpc").write_bytes(struct.pack(">BI", 0, len(message)) + message)
