"""Bad requests over HTTP, each with one fault. A case's name appears in the table; `why` explains a
difference.
"""

import gzip
import json
import zlib
from dataclasses import dataclass, field

from .wire import infer, tensor

SIMPLE, NUMBERS, TEXTS, DATATYPES, INT8 = (
    f"/v2/models/{name}/infer" for name in ("simple", "numbers", "texts", "datatypes", "int8")
)
LEFT, RIGHT = (tensor(name, "INT32", [1, 16], [1] * 16) for name in ("INPUT0", "INPUT1"))
BOTH = [LEFT, RIGHT]
X = tensor("x", "FP32", [1, 2], [1, 2])
DEEP = 250_000
BOMB_BYTES = 64 << 20
HEADER = "Inference-Header-Content-Length"


@dataclass
class Case:
    name: str
    path: object = SIMPLE
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    method: str = "POST"
    raw: bytes = None
    why: str = ""
    control: bool = True


def left(shape, data=None, datatype="INT32", **parameters):
    """A request to `simple` with another first input."""
    return infer([tensor("INPUT0", datatype, shape, data, **parameters), RIGHT])


def x(shape, data, datatype="FP32"):
    return infer([tensor("x", datatype, shape, data)])


def raw_x(text):
    """A request to `numbers`, with data that Python's `json` would not write."""
    return x([1, 2], ["DATA"]).replace(b'["DATA"]', text)


def int8(*elements):
    return infer([tensor("INPUT0", "INT8", [1, len(elements)], list(elements))])


def text(shape, data):
    return infer([tensor("INPUT0", "BYTES", shape, data)])


def parameters(**given):
    return infer(BOTH, parameters=given)


def output(name="OUTPUT0", **given):
    return infer(BOTH, outputs=[{"name": name, "parameters": given}])


def one_of(name, datatype, data):
    """A request to `datatypes` with one element in each input; the input `name` has `data`."""
    rows = [tensor(other, "BYTES" if other == "bytes" else other.upper(), [1], ["a"] if other == "bytes" else [1])
            for other in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "fp32", "fp64", "bytes")]
    rows = [row for row in rows if row["name"] != name]
    halves = [tensor(other, other.upper(), [1], binary_data_size=2) for other in ("fp16", "bf16")]
    bools = [] if name == "bool" else [tensor("bool", "BOOL", [1], [True])]
    head = infer([tensor(name, datatype, [1], data), *rows, *bools, *halves])
    return dict(path=DATATYPES, body=head + bytes(4), headers={HEADER: str(len(head))})


def binary(inputs, tail, header=None, path=SIMPLE, **more):
    """A request of JSON followed by binary data."""
    head = infer(inputs, **more)
    return dict(path=path, body=head + tail, headers={HEADER: str(len(head) if header is None else header)})


def sized(size, tail=bytes(64), header=None):
    return binary([tensor("INPUT0", "INT32", [1, 16], binary_data_size=size), RIGHT], tail, header)


def packed(encoding, body, path=SIMPLE):
    return dict(path=path, body=body, headers={"Content-Encoding": encoding})


def element(length, tail):
    return binary([tensor("INPUT0", "BYTES", [1, 1], binary_data_size=4 + len(tail))], length.to_bytes(4, "little") + tail, path=TEXTS)


def plain(head, body=b""):
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


def load(model, **given):
    return dict(path=f"/v2/repository/models/{model}/load", body=json.dumps({"parameters": given}).encode())


def generate(model, body, action="generate"):
    return dict(path=f"/v2/models/{model}/{action}", body=body if isinstance(body, bytes) else json.dumps(body).encode())


GOOD = infer(BOTH)

PATHS = [
    Case("unknown model", "/v2/models/nobody/infer", GOOD),
    Case("unknown model, metadata", "/v2/models/nobody", method="GET"),
    Case("unknown model, configuration", "/v2/models/nobody/config", method="GET"),
    Case("unknown model, statistics", "/v2/models/nobody/stats", method="GET"),
    Case("unknown model, ready", "/v2/models/nobody/ready", method="GET"),
    Case("unknown version", "/v2/models/simple/versions/7/infer", GOOD),
    Case("version that is no number", "/v2/models/simple/versions/seven/infer", GOOD, why="version"),
    Case("version over 64 bits", "/v2/models/simple/versions/99999999999999999999/infer", GOOD, why="version"),
    Case("empty model", "/v2/models//infer", GOOD),
    Case("unknown path", "/v2/nothing", method="GET"),
    Case("unknown action", "/v2/models/simple/explain", GOOD),
    Case("GET of infer", method="GET"),
    Case("POST of metadata", "/v2/models/simple", GOOD),
    Case("DELETE of a model", "/v2/models/simple", method="DELETE"),
    Case("verb that does not exist", method="BREW"),
    Case("path with bad percent-encoding", "/v2/models/sim%zzple/infer", GOOD, why="percent"),
    Case("NUL in the model's name", "/v2/models/sim%00ple/infer", GOOD),
    Case("model's name that is not UTF-8", "/v2/models/%ff%fe/infer", GOOD, why="percent"),
    Case("bytes in the path that are not ASCII", b"/v2/models/\xff\xfe/infer", GOOD, why="percent"),
    Case("path of 10,000 bytes", "/v2/models/" + "m" * 10_000 + "/infer", GOOD),
]

JSON = [
    Case("empty body", body=b""),
    Case("broken JSON", body=b'{"inputs": [', why="broken"),
    Case("JSON and more behind it", body=GOOD + b" {", why="broken"),
    Case("JSON that is not UTF-8", body=b'{"id": "\xff", "inputs": []}', why="broken"),
    Case("half a surrogate pair", body=b'{"id": "\\ud800", "inputs": []}', why="broken"),
    Case("list at the top", body=b"[]"),
    Case("text at the top", body=b'"inputs"'),
    Case("null at the top", body=b"null"),
    Case("lists nested 250,000 deep", body=b"[" * DEEP, why="dies"),
    Case("objects nested 250,000 deep", body=b'{"a":' * DEEP, why="dies"),
    Case("data nested 250,000 deep", NUMBERS, raw_x(b"[" * DEEP + b"1" + b"]" * DEEP), why="dies"),
    Case("parameters nested 250,000 deep", body=b'{"parameters": {"a": ' + b"[" * DEEP + b"]" * DEEP + b"}}", why="dies"),
    Case("no inputs", body=b"{}"),
    Case("inputs that are no list", body=b'{"inputs": {}}', why="broken"),
    Case("input that is no object", body=b'{"inputs": [7]}', why="broken"),
    Case("input twice", body=infer([LEFT, RIGHT, LEFT])),
    Case("key twice", body=GOOD.replace(b'"inputs"', b'"inputs": [], "inputs"'), why="twice"),
    Case("input missing", body=infer([LEFT])),
    Case("input unknown", body=infer([*BOTH, tensor("INPUT2", "INT32", [1, 16], [1] * 16)])),
    Case("input without a name", body=infer([{"datatype": "INT32", "shape": [1], "data": [1]}])),
    Case("name that is a number", body=infer([tensor(7, "INT32", [1, 16], [1] * 16), RIGHT])),
    Case("NUL in an input's name", body=infer([tensor("INPUT0\0", "INT32", [1, 16], [1] * 16), RIGHT]), why="nul"),
    Case("output unknown", body=output("OUTPUT7")),
    Case("output twice", body=infer(BOTH, outputs=[{"name": "OUTPUT0"}] * 2), why="twice"),
    Case("output without a name", body=infer(BOTH, outputs=[{}])),
    Case("outputs that are no list", body=infer(BOTH, outputs="OUTPUT0"), why="broken"),
    Case("id that is a number", body=infer(BOTH, id=7)),
    Case("unknown key at the top", body=infer(BOTH, colour="red")),
]

TENSORS = [
    Case("datatype of another kind", body=left([1, 16], [1] * 16, "FP32")),
    Case("datatype that does not exist", body=left([1, 16], [1] * 16, "INT33")),
    Case("datatype in small letters", body=left([1, 16], [1] * 16, "int32")),
    Case("no datatype", body=infer([{"name": "INPUT0", "shape": [1, 16], "data": [1] * 16}, RIGHT])),
    Case("no shape", body=infer([{"name": "INPUT0", "datatype": "INT32", "data": [1] * 16}, RIGHT])),
    Case("dimension of another size", body=left([1, 17], [1] * 17)),
    Case("one dimension too few", body=left([16], [1] * 16)),
    Case("one dimension too many", body=left([1, 16, 1], [1] * 16)),
    Case("no dimensions", body=left([], [1])),
    Case("10,000 dimensions", body=left([1] * 10_000, [1])),
    Case("dimension -1", NUMBERS, x([-1, 2], [1, 2])),
    Case("dimension 1.5", NUMBERS, x([1.5, 2], [1, 2]), why="broken"),
    Case("dimension as a text", NUMBERS, x(["1", 2], [1, 2]), why="broken"),
    Case("dimension over 64 bits", NUMBERS, x([1 << 70, 2], [1, 2]), why="broken"),
    Case("shape [1, 1000000000000]", NUMBERS, x([1, 10**12], [1, 2]), why="dies"),
    Case("shape that overflows 64 bits", NUMBERS, x([1 << 33, 1 << 33], [1, 2]), why="dies"),
    Case("shape that overflows to 2", NUMBERS, x([(1 << 63) + 1, 2], [1, 2]), why="broken"),
    Case("fewer elements than the shape", NUMBERS, x([1, 3], [1, 2])),
    Case("more elements than the shape", NUMBERS, x([1, 1], [1, 2])),
    Case("shape with 0, and data", NUMBERS, x([0, 2], [1, 2])),
    Case("ragged lists", NUMBERS, x([2, 2], [[1, 2, 3], [4]]), why="ragged"),
    Case("lists of another shape", NUMBERS, x([3, 2], [[1, 2, 3], [4, 5, 6]]), why="ragged"),
    Case("text for a number", NUMBERS, x([1, 2], ["1", 2])),
    Case("object for a number", NUMBERS, x([1, 2], [{}, 2])),
    Case("null for a number", NUMBERS, x([1, 2], [None, 2])),
    Case("boolean for a number", NUMBERS, x([1, 2], [True, 2])),
    Case("null for data", NUMBERS, infer([X | {"data": None}])),
    Case("object for data", NUMBERS, infer([X | {"data": {}}])),
    Case("no data", NUMBERS, x([1, 2], None)),
    Case("1e39 for FP32", NUMBERS, x([1, 2], [1e39, 2]), why="range"),
    Case("1e999 for FP32", NUMBERS, raw_x(b"[1e999, 2]"), why="broken"),
    Case("NaN in JSON", NUMBERS, raw_x(b"[NaN, 2]"), why="broken"),
    Case("Infinity in JSON", NUMBERS, raw_x(b"[Infinity, 2]"), why="broken"),
    Case("hexadecimal number", NUMBERS, raw_x(b"[0x10, 2]"), why="broken"),
    Case("float for INT32", body=left([1, 16], [1.5] * 16)),
    Case("INT32 out of range", body=left([1, 16], [1 << 31] * 16), why="range"),
    Case("INT32 far out of range", body=left([1, 16], [1 << 80] * 16), why="range"),
    Case("INT8 just out of range", INT8, int8(128), why="range"),
    Case("INT8 just below its range", INT8, int8(-129), why="range"),
    Case("INT8 out of range, beside one that is not", INT8, int8(1, 300), why="range"),
    Case("INT8 far out of range", INT8, int8(1 << 80), why="range"),
    Case("float for INT8", INT8, int8(1.5), why="range"),
    Case("text for INT8", INT8, int8("1")),
    Case("boolean for INT8", INT8, int8(True), why="range"),
    Case("UINT8 out of range", **one_of("uint8", "UINT8", [256]), why="range"),
    Case("-1 for UINT32", **one_of("uint32", "UINT32", [-1]), why="range"),
    Case("-1 for UINT64", **one_of("uint64", "UINT64", [-1]), why="range"),
    Case("2^64 for UINT64", **one_of("uint64", "UINT64", [1 << 64]), why="range"),
    Case("number for BOOL", **one_of("bool", "BOOL", [2]), why="range"),
    Case("text for BOOL", **one_of("bool", "BOOL", ["true"])),
    Case("number for BYTES", TEXTS, text([1, 1], [7])),
    Case("NaN as the answer, in JSON", **binary([tensor("x", "FP32", [1, 1], binary_data_size=4)], b"\0\0\xc0\x7f", path=NUMBERS), why="nan"),
    Case("texts that are not UTF-8 as the answer, in JSON", **element(2, b"\xff\xfe"), why="nan"),
]

BINARY = [
    Case("size smaller than the tensor", **sized(60)),
    Case("size larger than the body", **sized(65)),
    Case("size negative", **sized(-64)),
    Case("size huge", **sized(1 << 62), why="size"),
    Case("size as a text", **sized("64"), why="broken"),
    Case("size and data", **binary([LEFT | {"parameters": {"binary_data_size": 64}}, RIGHT], bytes(64)), why="both"),
    Case("bytes without a size", **binary(BOTH, bytes(64))),
    Case("bytes left over", **sized(64, bytes(70))),
    Case("too few bytes", **sized(64, bytes(10))),
    Case("size without the header", body=sized(64)["body"], why="broken"),
    Case("header that is no number", **sized(64, header="many")),
    Case("header negative", **sized(64, header="-1")),
    Case("header beyond the body", **sized(64, header="100000")),
    Case("header over 64 bits", **sized(64, header=str(1 << 70))),
    Case("header in the middle of the JSON", **sized(64, header="20"), why="broken"),
    Case("header 0, and two inputs", body=bytes(128), headers={HEADER: "0"}),
    Case("header 0, and half an element", NUMBERS, bytes(6), {HEADER: "0"}),
    Case("BYTES whose length is too large", **element(9, b"abc")),
    Case("BYTES whose length is 4 GB", **element((1 << 32) - 1, b"abc")),
    Case("BYTES whose length is too small", **element(1, b"abc")),
    Case("BYTES of 3 bytes in all", **binary([tensor("INPUT0", "BYTES", [1, 1], binary_data_size=3)], b"abc", path=TEXTS)),
    Case("BOOL that is 2", **binary([tensor("x", "BOOL", [1, 2], binary_data_size=2)], b"\2\3", path=NUMBERS)),
    Case("binary_data that is no boolean", body=output(binary_data="yes"), why="broken"),
    Case("binary_data_output that is no boolean", body=parameters(binary_data_output="yes"), why="broken"),
]

FRAMING = [
    Case("garbage as gzip", **packed("gzip", b"\x1f\x8bgarbage"), why="garbage"),
    Case("garbage as deflate", **packed("deflate", b"garbage"), why="garbage"),
    Case("gzip that ends early", **packed("gzip", gzip.compress(GOOD)[:-20]), why="garbage"),
    Case("gzip and bytes behind it", **packed("gzip", gzip.compress(GOOD) + b"more"), why="behind"),
    Case("deflate without zlib's head", **packed("deflate", zlib.compress(GOOD)[2:-4]), why="garbage"),
    Case("64 MiB of zeros in gzip", **packed("gzip", gzip.compress(bytes(BOMB_BYTES))), why="bomb"),
    Case("unknown encoding", **packed("br", GOOD), why="encoding"),
    Case("two encodings", **packed("gzip, deflate", gzip.compress(GOOD)), why="encoding"),
    Case("Content-Length that is no number", raw=plain("POST /v2/models/simple/infer HTTP/1.1\nHost: a\nContent-Length: many", GOOD), why="framing"),
    Case("Content-Length negative", raw=plain("POST /v2/models/simple/infer HTTP/1.1\nHost: a\nContent-Length: -1", GOOD), why="framing"),
    Case("Content-Length over 64 bits", raw=plain(f"POST /v2/models/simple/infer HTTP/1.1\nHost: a\nContent-Length: {1 << 70}", GOOD), why="framing"),
    Case("two Content-Lengths", raw=plain("POST /v2/models/simple/infer HTTP/1.1\nHost: a\nContent-Length: 2\nContent-Length: 3", b"{} "), why="framing"),
    Case("body said to be 1 TB", raw=plain(f"POST /v2/models/simple/infer HTTP/1.1\nHost: a\nContent-Length: {1 << 40}", b"{"), why="terabyte"),
    Case("bad chunk", raw=plain("POST /v2/models/simple/infer HTTP/1.1\nHost: a\nTransfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"), why="framing"),
    Case("header of 100,000 bytes", headers={"X-Long": "a" * 100_000}, body=GOOD, why="header"),
    Case("header of 300,000 bytes", headers={"X-Long": "a" * 300_000}, body=GOOD, why="header"),
    Case("2,000 headers", headers={f"X-{number}": "a" for number in range(2_000)}, body=GOOD, why="header"),
    Case("header without a colon", raw=plain("GET /v2 HTTP/1.1\nHost: a\nnonsense"), why="framing"),
    Case("no HTTP at all", raw=b"\x16\x03\x01\x02\x00garbage\r\n\r\n", why="framing"),
    Case("HTTP/3.7", raw=plain("GET /v2 HTTP/3.7\nHost: a"), why="framing"),
    Case("body over 16 MiB", body=b" " * (17 << 20), why="large"),
]

PARAMETERS = [
    Case("parameters that are a list", body=infer(BOTH, parameters=[]), why="broken"),
    Case("parameter that is null", body=parameters(colour=None)),
    Case("parameter that is a list", body=parameters(colours=[1])),
    Case("parameter that is an object", body=parameters(colour={})),
    Case("timeout as a text", body=parameters(timeout="soon")),
    Case("timeout negative", body=parameters(timeout=-1), why="timeout"),
    Case("timeout 0", body=parameters(timeout=0)),
    Case("timeout 1.5", body=parameters(timeout=1.5)),
    Case("timeout over 64 bits", body=parameters(timeout=1 << 70)),
    Case("timeout 1 us", body=parameters(timeout=1), why="deadline"),
    Case("priority as a text", body=parameters(priority="high")),
    Case("priority negative", body=parameters(priority=-1), why="timeout"),
    Case("sequence_id", body=parameters(sequence_id=7, sequence_start=True), why="absent"),
    Case("sequence_id that is a list", body=parameters(sequence_id=[7]), why="absent"),
    Case("sequence_start as a text", body=parameters(sequence_start="yes"), why="absent"),
    Case("parameter of Triton's own name space", body=parameters(triton_secret=1)),
    Case("input in shared memory that is unknown", body=left([1, 16], shared_memory_region="r", shared_memory_byte_size=64), why="absent"),
    Case("output in shared memory that is unknown", body=output(shared_memory_region="r", shared_memory_byte_size=64), why="absent"),
    Case("shared memory of nothing", "/v2/systemsharedmemory/region/r/register", b"{}", why="absent"),
    Case("classification of BYTES", TEXTS, infer([tensor("INPUT0", "BYTES", [1, 1], ["a"])], outputs=[{"name": "OUTPUT0", "parameters": {"classification": 1}}]), why="classes"),
    Case("classification negative", body=output(classification=-1)),
    Case("classification 0", body=output(classification=0), why="zero"),
    Case("classification huge", body=output(classification=1 << 62)),
    Case("classification over 64 bits", body=output(classification=1 << 70)),
    Case("classification as a text", body=output(classification="3")),
    Case("unknown parameter of an output", body=output(colour="red")),
]

MORE = [
    Case("generate of an unknown model", **generate("nobody", {})),
    Case("generate of a broken body", **generate("numbers", b'{"x": '), why="broken"),
    Case("generate of a list", **generate("numbers", b"[]")),
    Case("generate without its input", **generate("numbers", {})),
    Case("generate with a field too many", **generate("numbers", {"x": 1, "colour": "red"})),
    Case("generate with a text for a number", **generate("numbers", {"x": "one"})),
    Case("generate with an object for an input", **generate("numbers", {"x": {"a": 1}})),
    Case("generate with null", **generate("numbers", {"x": None})),
    Case("generate nested 250,000 deep", **generate("numbers", b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}"), why="dies"),
    Case("generate of a model that gives none", **generate("repeat", {"values": [], "delays_ms": []}), why="not_one"),
    Case("generate of a model that gives two", **generate("repeat", {"values": [1, 2], "delays_ms": [0, 0]}), why="not_one"),
    Case("generate_stream without its input", **generate("numbers", {}, "generate_stream")),
    Case("generate_stream of an unknown model", **generate("nobody", {}, "generate_stream")),
    Case("infer of a model that streams", "/v2/models/repeat/infer", infer([tensor("values", "INT32", [1], [1]), tensor("delays_ms", "UINT32", [1], [0])])),
    Case("trace setting that does not exist", "/v2/trace/setting", b'{"colour": "red"}', why="absent"),
    Case("log setting of a wrong type", "/v2/logging", b'{"log_info": "maybe"}', why="absent"),
    Case("index of broken JSON", "/v2/repository/index", b"{", why="broken"),
    Case("load of an unknown model", **load("nobody")),
    Case("load with a broken configuration", **load("numbers", config="{"), why="load"),
    Case("load with a configuration that is no text", **load("numbers", config=7), why="load"),
    Case("load with an unknown key", **load("numbers", config='{"colour": "red"}'), why="load"),
    Case("load with an unknown backend", **load("numbers", config='{"backend": "nobody"}'), why="load"),
    Case("load with a parameter that is unknown", **load("numbers", colour="red"), why="load"),
    Case("load with a file", **load("numbers", config="{}", **{"file:1/model.py": "cHJpbnQoKQ=="}), why="load"),
    Case("load with a file that is no base64", **load("numbers", config="{}", **{"file:1/model.py": "!"}), why="load"),
    Case("load with a file of 24 MB", **load("numbers", config="{}", **{"file:1/model.py": "A" * (24 << 20)}), why="large"),
    Case("load that is garbage as gzip", "/v2/repository/models/numbers/load", b"garbage", {"Content-Encoding": "gzip"}, why="garbage"),
    Case("load of another repository", "/v2/repository/other/models/numbers/load", why="repository"),
    Case("index of another repository", "/v2/repository/other/index", why="repository"),
    Case("load with a file outside its folder", **load("numbers", config="{}", **{"file:../../escaped": "QUJD"}), why="load"),
    Case("load of broken JSON", "/v2/repository/models/numbers/load", b"{", why="broken"),
    Case("unload of an unknown model", "/v2/repository/models/nobody/unload", why="unload"),
    Case("unload with a wrong type", "/v2/repository/models/nobody/unload", b'{"parameters": {"unload_dependents": 7}}', why="unload"),
    Case("load, with control off", **load("numbers"), control=False),
    Case("unload, with control off", "/v2/repository/models/numbers/unload", control=False),
]

CASES = PATHS + JSON + TENSORS + BINARY + FRAMING + PARAMETERS + MORE
