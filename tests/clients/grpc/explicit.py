"""Typed contents instead of raw ones, in messages that are built directly; mixing both is refused.
"""

import grpc
import numpy as np
from expect import ADDRESS, LEFT, RIGHT, equal
from tritonclient.grpc import service_pb2, service_pb2_grpc


def request(model, *tensors):
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, datatype, shape, contents in tensors:
        tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
        for field, elements in contents.items():
            getattr(tensor.contents, field).extend(elements)
    return message


def refused(call, code, phrase):
    try:
        call()
    except grpc.RpcError as error:
        equal(phrase, error.code(), code)
        if phrase not in error.details():
            raise SystemExit(f"{error.details()!r} lacks {phrase!r}")
    else:
        raise SystemExit(f"expected an error with {phrase!r}")


INVALID = grpc.StatusCode.INVALID_ARGUMENT

with grpc.insecure_channel(ADDRESS) as channel:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    left, right = LEFT.flatten().tolist(), RIGHT.flatten().tolist()
    both = (
        ("INPUT0", "INT32", [1, 16], {"int_contents": left}),
        ("INPUT1", "INT32", [1, 16], {"int_contents": right}),
    )
    response = stub.ModelInfer(request("simple", *both))
    equal("sum", np.frombuffer(response.raw_output_contents[0], np.int32), (LEFT + RIGHT).flatten())
    refused(lambda: stub.ModelInfer(request("simple", *both[:1])), INVALID, "INPUT1")
    mixed = request("simple", *both)
    mixed.raw_input_contents.append(LEFT.tobytes())
    refused(lambda: stub.ModelInfer(mixed), INVALID, "INPUT0")
    several = request("simple", ("INPUT0", "INT32", [1, 1], {"int_contents": [1], "fp32_contents": [1.0]}), both[1])
    refused(lambda: stub.ModelInfer(several), INVALID, "INPUT0")
    short = request("simple", ("INPUT0", "INT32", [1, 16], {"int_contents": left[:-1]}), both[1])
    refused(lambda: stub.ModelInfer(short), INVALID, "INPUT0")

    small = request("int8", ("INPUT0", "INT8", [1, 3], {"int_contents": [-128, 0, 127]}))
    response = stub.ModelInfer(small)
    equal("int8", np.frombuffer(response.raw_output_contents[0], np.int8).tolist(), [-128, 0, 127])
    for wrong in (128, -129):
        large = request("int8", ("INPUT0", "INT8", [1, 1], {"int_contents": [wrong]}))
        refused(lambda: stub.ModelInfer(large), INVALID, str(wrong))

    texts = request("texts", ("INPUT0", "BYTES", [1, 2], {"bytes_contents": [b"", b"ab"]}))
    response = stub.ModelInfer(texts)
    equal("bytes", response.raw_output_contents[0], b"\0\0\0\0\x02\0\0\0ab")

    # The service has no methods beyond those in its descriptors.
    refused(lambda: channel.unary_unary("/inference.GRPCInferenceService/Nope")(b""), grpc.StatusCode.UNIMPLEMENTED, "")
    refused(lambda: channel.unary_unary("/other.Service/Nope")(b""), grpc.StatusCode.UNIMPLEMENTED, "other.Service")
