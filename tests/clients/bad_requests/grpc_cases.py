"""Bad requests over gRPC, each with one fault. A case's name appears in the table; `why` explains a
difference.
"""

import gzip
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2 as pb

from . import wire

INT_ROW = (1).to_bytes(4, "little") * 16
GZIP = {"grpc-encoding": "gzip"}


@dataclass
class Case:
    name: str
    message: object = b""
    method: str = "ModelInfer"
    more: dict = None
    # Raw data, sent instead of a message.
    frame: bytes = None
    # Requests of a stream; Hostler must answer `answered` of them.
    stream: list = None
    answered: int = None
    why: str = ""
    control: bool = True

    def ask(self, port):
        if self.frame is not None:
            return wire.frames(port, self.frame, self.more or {}, self.method)
        if self.stream is not None:
            return self.ask_stream(port)
        return wire.unary(port, self.method, self.message, **(self.more or {}))

    def ask_stream(self, port):
        """Returns as status how many were answered, how many were refused, and how the stream
        ended.
        """
        said, end = wire.stream(port, self.stream, **(self.more or {}))
        said = [pb.ModelStreamInferResponse.FromString(one) for one in said]
        errors = [one.error_message for one in said if one.error_message]
        texts = "; ".join(errors + [end.text] if end.body else errors)
        return wire.Answer(f"{len(said) - len(errors)} answers, {len(errors)} errors, {end.status}", texts.encode())


def row(name, datatype="INT32", shape=(1, 16), parameters=None, **contents):
    one = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for key, values in contents.items():
        getattr(one.contents, key).extend(values)
    fill(one.parameters, parameters)
    return one


def fill(there, given):
    for name, (kind, value) in (given or {}).items():
        setattr(there[name], kind, value)


def infer(model="simple", inputs=None, raw=None, outputs=(), parameters=None, version="", id=""):
    """A request to `simple` with two valid inputs, unless the arguments say otherwise."""
    if inputs is None:
        inputs = [row("INPUT0"), row("INPUT1")]
    if raw is None:
        raw = [INT_ROW] * len(inputs)
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=id, inputs=inputs, raw_input_contents=raw)
    for name, given in outputs:
        fill(request.outputs.add(name=name).parameters, given)
    fill(request.parameters, parameters)
    return request


def typed(**contents):
    """A request to `simple` with these typed contents in the first input."""
    return infer(inputs=[row("INPUT0", **contents), row("INPUT1", int_contents=[1] * 16)], raw=[])


def numbers(shape, raw=b"", **contents):
    return infer("numbers", [row("x", "FP32", shape, **contents)], [raw] if raw is not None else [])


def int8(*elements):
    return infer("int8", [row("INPUT0", "INT8", [1, len(elements)], int_contents=elements)], [])


def texts(raw, outputs=()):
    return infer("texts", [row("INPUT0", "BYTES", [1, 1])], [raw], outputs)


def one_output(**given):
    return infer(outputs=[("OUTPUT0", given)])


def repeat(values, id="", shape=None):
    shape = [len(values)] if shape is None else shape
    parts = [b"".join(v.to_bytes(4, "little", signed=True) for v in values), bytes(4 * len(values))]
    return infer("repeat", [row("values", "INT32", shape), row("delays_ms", "UINT32", shape)], parts, id=id)


def load(model, **given):
    request = pb.RepositoryModelLoadRequest(model_name=model)
    fill(request.parameters, given)
    return dict(message=request, method="RepositoryModelLoad")


def framed(message, packed=0, length=None):
    length = len(message) if length is None else length
    return bytes([packed]) + length.to_bytes(4, "big") + message


GOOD = infer()
GOOD_BYTES = GOOD.SerializeToString()

CALLS = [
    Case("unknown model", infer("nobody")),
    Case("empty model", infer("")),
    Case("NUL in the model's name", infer("sim\0ple")),
    Case("unknown version", infer(version="7")),
    Case("version that is no number", infer(version="seven"), why="version"),
    Case("unknown model, metadata", pb.ModelMetadataRequest(name="nobody"), "ModelMetadata"),
    Case("unknown model, configuration", pb.ModelConfigRequest(name="nobody"), "ModelConfig"),
    Case("unknown model, statistics", pb.ModelStatisticsRequest(name="nobody"), "ModelStatistics"),
    Case("unknown model, ready", pb.ModelReadyRequest(name="nobody"), "ModelReady"),
    Case("unknown method", b"", "ModelExplain"),
    Case("unknown service", b"", "/inference.Nobody/ModelInfer"),
    Case("method that is no path", b"", "/ModelInfer"),
    Case("empty message"),
    Case("bytes that are no message", b"\xff" * 20),
    Case("message that ends early", GOOD_BYTES[:-3]),
    Case("string that is not UTF-8", b"\x0a\x02\xff\xfe"),
    Case("unknown field", GOOD_BYTES + b"\xfa\x3e\x01a"),
    Case("groups nested 250,000 deep", b"\x0b" * 250_000),
    Case("message over 16 MiB", numbers([1, 17 << 18], bytes(17 << 20)), why="large"),
    Case("deadline of 1 ns", frame=framed(GOOD_BYTES), more={"grpc-timeout": "1n"}, why="deadline"),
    Case("no message", frame=b""),
    Case("frame that ends early", frame=framed(GOOD_BYTES, length=1000)),
    Case("frame said to be 4 GB", frame=framed(b"", length=(1 << 32) - 1)),
    Case("two messages in a unary call", frame=framed(GOOD_BYTES) * 2, why="protocol"),
    Case("compression flag 7", frame=framed(GOOD_BYTES, 7), why="protocol"),
    Case("compressed, and no encoding said", frame=framed(gzip.compress(GOOD_BYTES), 1)),
    Case("unknown compression", frame=framed(GOOD_BYTES, 1), more={"grpc-encoding": "rot13"}),
    Case("garbage as gzip", frame=framed(b"garbage", 1), more=GZIP),
    Case("gzip that ends early", frame=framed(gzip.compress(GOOD_BYTES)[:-12], 1), more=GZIP),
    Case("64 MiB of zeros in gzip", numbers([1, 1 << 24], bytes(64 << 20)), more=dict(compression=grpc.Compression.Gzip), why="bomb"),
    Case("timeout that is no time", frame=framed(GOOD_BYTES), more={"grpc-timeout": "soon"}, why="time"),
    Case("timeout of nine digits", frame=framed(GOOD_BYTES), more={"grpc-timeout": "123456789u"}, why="time"),
    Case("timeout negative", frame=framed(GOOD_BYTES), more={"grpc-timeout": "-1S"}, why="time"),
    Case("content type of another protocol", frame=framed(GOOD_BYTES), more={"content-type": "text/plain"}, why="content"),
    Case("GET", frame=framed(GOOD_BYTES), more={":method": "GET"}, why="lenient"),
    Case("no te: trailers", frame=framed(GOOD_BYTES), more={"te": None}, why="lenient"),
    Case("header of 100,000 bytes", GOOD, more=dict(metadata=[("x-long", "a" * 100_000)]), why="header"),
]

TENSORS = [
    Case("no inputs", infer(inputs=[], raw=[])),
    Case("input missing", infer(inputs=[row("INPUT0")])),
    Case("input twice", infer(inputs=[row("INPUT0"), row("INPUT1"), row("INPUT0")])),
    Case("input unknown", infer(inputs=[row("INPUT0"), row("INPUT1"), row("INPUT2")])),
    Case("input without a name", infer(inputs=[row(""), row("INPUT1")])),
    Case("output unknown", infer(outputs=[("OUTPUT7", {})])),
    Case("output twice", infer(outputs=[("OUTPUT0", {}), ("OUTPUT0", {})]), why="twice"),
    Case("datatype of another kind", infer(inputs=[row("INPUT0", "FP32"), row("INPUT1")])),
    Case("datatype that does not exist", infer(inputs=[row("INPUT0", "INT33"), row("INPUT1")])),
    Case("no datatype", infer(inputs=[row("INPUT0", ""), row("INPUT1")])),
    Case("no shape", infer(inputs=[row("INPUT0", shape=[]), row("INPUT1")])),
    Case("one dimension too few", infer(inputs=[row("INPUT0", shape=[16]), row("INPUT1")])),
    Case("10,000 dimensions", infer(inputs=[row("INPUT0", shape=[1] * 10_000), row("INPUT1")]), why="long"),
    Case("dimension negative", numbers([-1, 2], bytes(8))),
    Case("shape [1, 1000000000000]", numbers([1, 10**12], bytes(8)), why="dies"),
    Case("shape [1, 1000000000000], typed", numbers([1, 10**12], None, fp32_contents=[1, 2]), why="dies"),
    Case("shape that overflows 64 bits", numbers([1 << 33, 1 << 33], bytes(8)), why="dies"),
    Case("shape that overflows, typed", numbers([1 << 33, 1 << 33], None, fp32_contents=[1]), why="dies"),
    Case("fewer bytes than the shape", numbers([1, 3], bytes(8))),
    Case("more bytes than the shape", numbers([1, 1], bytes(8))),
    Case("half an element", numbers([1, 1], bytes(3))),
    Case("shape with 0, and bytes", numbers([0, 2], bytes(8))),
    Case("fewer raw contents than inputs", infer(raw=[INT_ROW])),
    Case("more raw contents than inputs", infer(raw=[INT_ROW] * 3), why="twice"),
    Case("no contents", infer(raw=[])),
    Case("raw and typed contents", infer(inputs=[row("INPUT0", int_contents=[1] * 16), row("INPUT1")])),
    Case("raw for one, typed for the other", infer(inputs=[row("INPUT0"), row("INPUT1", int_contents=[1] * 16)], raw=[INT_ROW])),
    Case("typed contents of another kind", typed(fp32_contents=[1] * 16)),
    Case("typed contents of two kinds", typed(int_contents=[1] * 16, fp32_contents=[1] * 16), why="kinds"),
    Case("fewer typed elements than the shape", typed(int_contents=[1] * 15)),
    Case("more typed elements than the shape", typed(int_contents=[1] * 17)),
    Case("typed INT8 just out of range", int8(128), why="range"),
    Case("typed INT8 just below its range", int8(-129), why="range"),
    Case("typed INT8 out of range, beside one that is not", int8(1, 300), why="range"),
    Case("typed INT8 far out of range", int8((1 << 31) - 1), why="range"),
    Case("typed FP16", infer("datatypes", [row("fp16", "FP16", [1], fp32_contents=[1])], [])),
    Case("typed BYTES for INT32", typed(bytes_contents=[b"a"] * 16)),
    Case("BYTES whose length is too large", texts(b"\x09\0\0\0abc")),
    Case("BYTES whose length is 4 GB", texts(b"\xff\xff\xff\xffabc")),
    Case("BYTES whose length is too small", texts(b"\x01\0\0\0abc")),
    Case("BYTES of 3 bytes in all", texts(b"abc")),
]

PARAMETERS = [
    Case("timeout as a text", infer(parameters={"timeout": ("string_param", "soon")})),
    Case("timeout negative", infer(parameters={"timeout": ("int64_param", -1)}), why="timeout"),
    Case("timeout 1.5", infer(parameters={"timeout": ("double_param", 1.5)})),
    Case("timeout 1 us", infer(parameters={"timeout": ("int64_param", 1)}), why="deadline"),
    Case("priority as a text", infer(parameters={"priority": ("string_param", "high")})),
    Case("parameter without a value", GOOD_BYTES + b"\x22\x04\x0a\x02ab"),
    Case("sequence_id", infer(parameters={"sequence_id": ("int64_param", 7)}), why="absent"),
    Case("sequence_start as a text", infer(parameters={"sequence_start": ("string_param", "yes")}), why="absent"),
    Case("parameter of Triton's own name space", infer(parameters={"triton_secret": ("int64_param", 1)})),
    Case("input in shared memory that is unknown", infer(inputs=[row("INPUT0", parameters={"shared_memory_region": ("string_param", "r"), "shared_memory_byte_size": ("int64_param", 64)}), row("INPUT1")], raw=[INT_ROW]), why="absent"),
    Case("shared memory of nothing", pb.SystemSharedMemoryRegisterRequest(name="r", key="/nothing", byte_size=64), "SystemSharedMemoryRegister", why="absent"),
    Case("classification of BYTES", texts(b"\x01\0\0\0a", [("OUTPUT0", {"classification": ("int64_param", 1)})]), why="classes"),
    Case("classification negative", one_output(classification=("int64_param", -1))),
    Case("classification 0", one_output(classification=("int64_param", 0)), why="zero"),
    Case("classification huge", one_output(classification=("int64_param", 1 << 62))),
    Case("classification as a text", one_output(classification=("string_param", "3"))),
    Case("trace setting that does not exist", b"\x0a\x0a\x0a\x06colour\x12\0", "TraceSetting", why="absent"),
]

STREAMS = [
    Case("unary call of a model that streams", repeat([1])),
    Case("bad requests between good ones on a stream", stream=[infer(id="1"), infer("nobody", id="2"), infer(id="3"), numbers([1, 3], bytes(8)), infer(id="5")], answered=3),
    Case("shape [1, 1000000000000] on a stream", stream=[infer(id="1"), numbers([1, 10**12], bytes(8)), infer(id="3")], answered=2, why="dies"),
    Case("bad requests of a model that streams", stream=[repeat([1], "1"), repeat([1, 2], "2", [1]), repeat([3], "3")], answered=2),
    Case("model that streams and fails in the middle", stream=[repeat([1, -1], "1"), repeat([2], "2")], answered=2),
    Case("timeout that is no time on a stream", frame=framed(GOOD_BYTES), more={"grpc-timeout": "soon"}, method="ModelStreamInfer", why="time"),
    Case("bytes that are no message on a stream", stream=[infer(id="1"), b"\xff" * 20], why="stream"),
    Case("bad request on a stream that ends at errors", stream=[infer("nobody")], more=dict(metadata=[("triton_grpc_error", "true")]), why="grpc_error"),
    Case("empty stream", stream=[]),
]

REPOSITORY = [
    Case("load of an unknown model", **load("nobody")),
    Case("load without a model", **load("")),
    Case("load with a broken configuration", **load("numbers", config=("string_param", "{")), why="load"),
    Case("load with a configuration that is no text", **load("numbers", config=("int64_param", 7)), why="load"),
    Case("load with an unknown key", **load("numbers", config=("string_param", '{"colour": "red"}')), why="load"),
    Case("load with a file", **load("numbers", config=("string_param", "{}"), **{"file:1/model.py": ("bytes_param", b"print()")}), why="load"),
    Case("load with a file of 24 MB", **load("numbers", config=("string_param", "{}"), **{"file:1/model.py": ("bytes_param", b"A" * (24 << 20))}), why="large"),
    Case("load with bytes that are no message", b"\xff" * 20, "RepositoryModelLoad"),
    Case("load of another repository", pb.RepositoryModelLoadRequest(model_name="numbers", repository_name="other"), "RepositoryModelLoad", why="repository"),
    Case("index of another repository", pb.RepositoryIndexRequest(repository_name="other"), "RepositoryIndex", why="repository"),
    Case("unload of an unknown model", pb.RepositoryModelUnloadRequest(model_name="nobody"), "RepositoryModelUnload", why="unload"),
    Case("unload of another repository", pb.RepositoryModelUnloadRequest(model_name="numbers", repository_name="other"), "RepositoryModelUnload", why="repository"),
    Case("load, with control off", **load("numbers"), control=False),
    Case("unload, with control off", pb.RepositoryModelUnloadRequest(model_name="numbers"), "RepositoryModelUnload", control=False),
]

CASES = CALLS + TENSORS + PARAMETERS + STREAMS + REPOSITORY
