"""Calls servers with Triton's messages: `grpc_ask.py (BODY PORT)...`.

`grpc_bodies.py` writes BODY. Each server must answer, and the first output of all must contain the
same numbers. Prints the length of each answer in bytes, with its frame header.
"""

import sys
from pathlib import Path

import grpc
import numpy
from tritonclient.grpc import service_pb2

METHOD = "/inference.GRPCInferenceService/ModelInfer"
LENGTH = 5  # of the frame header before each message

first = None
for body, port in zip(sys.argv[1::2], sys.argv[2::2]):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        message = channel.unary_unary(METHOD)(Path(body).read_bytes()[LENGTH:], timeout=10)
    numbers = numpy.frombuffer(service_pb2.ModelInferResponse.FromString(message).raw_output_contents[0], numpy.float32)
    if first is not None and not numpy.allclose(numbers, first, atol=1e-5):
        sys.exit(f"{body} on port {port}: expected {first}, got {numbers}")
    first = numbers
    print(LENGTH + len(message))
