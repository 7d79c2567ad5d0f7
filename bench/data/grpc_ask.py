"""Asks servers by Triton's messages: `grpc_ask.py (BODY PORT)...`, where BODY is what `grpc_bodies.py` wrote.

Each must answer, and the first output of all must have the same numbers. Prints how many bytes each answer has.
"""

import sys
from pathlib import Path

import grpc
import numpy
from tritonclient.grpc import service_pb2

METHOD = "/inference.GRPCInferenceService/ModelInfer"
LENGTH = 5  # of what stands before each message

first = None
for body, port in zip(sys.argv[1::2], sys.argv[2::2]):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        message = channel.unary_unary(METHOD)(Path(body).read_bytes()[LENGTH:], timeout=10)
    numbers = numpy.frombuffer(service_pb2.ModelInferResponse.FromString(message).raw_output_contents[0], numpy.float32)
    if first is not None and not numpy.allclose(numbers, first, atol=1e-5):
        sys.exit(f"{body} on port {port}: {numbers} instead of {first}")
    first = numbers
    print(LENGTH + len(message))
