"""Writes the request bodies of `cargo xtask bench waits`.

`waits_bodies.py FOLDER MESSAGES RESPONSES DELAY_MS VALUE` writes `waits-triton.grpc` and
`waits-hostler.grpc`: MESSAGES messages of one `ModelStreamInfer` call as HTTP/2 carries them. Each
message requests RESPONSES responses with VALUE, each after DELAY_MS.
"""

import struct
import sys
from pathlib import Path

import numpy
from tritonclient.grpc import service_pb2

folder, messages, responses, delay_ms, value = Path(sys.argv[1]), *map(int, sys.argv[2:])
INPUTS = {
    "triton": [("values", "INT32", responses * [value]), ("delays_ms", "UINT32", responses * [delay_ms])],
    "hostler": [("IN", "INT32", responses * [value]), ("DELAY", "UINT32", responses * [delay_ms]), ("WAIT", "UINT32", [0])],
}
for name, inputs in INPUTS.items():
    request = service_pb2.ModelInferRequest(model_name="repeat")
    for tensor, datatype, data in inputs:
        request.inputs.add(name=tensor, datatype=datatype, shape=[len(data)])
        request.raw_input_contents.append(numpy.array(data, numpy.dtype(datatype.lower())).tobytes())
    message = request.SerializeToString()
    # The gRPC frame header: not compressed, and the length of the message.
    (folder / f"waits-{name}.grpc").write_bytes(messages * (struct.pack(">BI", 0, len(message)) + message))
