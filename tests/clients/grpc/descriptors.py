"""The service that reflection describes is the one that the client was generated from, name by name
and number by number.
"""

import grpc
from expect import ADDRESS, equal
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2


def field(number, payload):
    """Encodes one length-delimited field of a message, which is all that reflection needs."""
    return bytes([number << 3 | 2, len(payload)]) + payload


def varint(data, start):
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start


def fields(data):
    start = 0
    while start < len(data):
        key, start = varint(data, start)
        if key & 7 == 0:
            _, start = varint(data, start)
            continue
        length, start = varint(data, start)
        yield key >> 3, data[start : start + length]
        start += length


def ask(channel, version, request):
    call = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
    return next(call(iter([request])))


def described(channel, version):
    """Returns the host's description of its service."""
    file = descriptor_pb2.FileDescriptorProto()
    response = ask(channel, version, field(4, b"inference.GRPCInferenceService"))
    for number, answer in fields(response):
        if number == 4:
            file.ParseFromString(dict(fields(answer))[1])
    return table([file])


def table(files):
    """Returns messages, enums and services in a form that is independent of order and files."""
    found = {}

    def enum(item, prefix):
        found[prefix + item.name] = [(value.name, value.number) for value in item.value]

    def message(item, prefix):
        name = prefix + item.name
        oneof = lambda field: item.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        found[name] = sorted(
            (field.number, field.name, field.label, field.type, field.type_name, oneof(field) or "")
            for field in item.field
        )
        for nested in item.nested_type:
            message(nested, name + ".")
        for nested in item.enum_type:
            enum(nested, name + ".")

    for file in files:
        for item in file.message_type:
            message(item, "")
        for item in file.enum_type:
            enum(item, "")
        for service in file.service:
            found[service.name] = sorted(
                (method.name, method.input_type, method.output_type, method.client_streaming, method.server_streaming)
                for method in service.method
            )
    return found


def of_client():
    files = []
    for module in (model_config_pb2, service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return table(files)


with grpc.insecure_channel(ADDRESS) as channel:
    wanted = of_client()
    for version in ("v1", "v1alpha"):
        ours = described(channel, version)
        equal("names", sorted(ours), sorted(wanted))
        for name, items in wanted.items():
            if ours[name] != items:
                raise SystemExit(f"{name}: expected {items}, got {ours[name]}")
        listed = b"".join(data for _, data in fields(ask(channel, version, field(7, b"*"))))
        for service in (b"inference.GRPCInferenceService", b"grpc.health.v1.Health"):
            if service not in listed:
                raise SystemExit(f"{service!r} is not listed in {listed!r}")
