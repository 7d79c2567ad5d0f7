"""Makes the small ONNX models that the tests serve: `python make.py` (needs onnx and numpy).

Each model shows one feature of ONNX models. The tests use the committed files.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx import save

HERE = Path(__file__).parent


def value(name, datatype, shape):
    return h.make_tensor_value_info(name, datatype, shape)


def write(name, nodes, inputs, outputs, initializers=(), opset=17, external=False, extra_opsets=()):
    graph = h.make_graph(nodes, name, inputs, outputs, list(initializers))
    opsets = [h.make_opsetid("", opset), *extra_opsets]
    model = h.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="hostler-tests")
    options = {}
    if external:
        data = HERE / f"{name}.bin"
        data.unlink(missing_ok=True)
        options = dict(save_as_external_data=True, location=data.name, size_threshold=0)
    save(model, HERE / f"{name}.onnx", **options)


def scalar(name, number, dtype=np.int64):
    return nh.from_array(np.array(number, dtype), name)


def loop(name, body_nodes, carried, carried_shape, initial):
    """Returns a Loop that runs `n` times over one carried FP32 tensor: many small nodes, and it can stop at each."""
    body = h.make_graph(
        [*body_nodes, h.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [value("i", T.INT64, []), value("go", T.BOOL, []), value(carried, T.FLOAT, carried_shape)],
        [value("go_on", T.BOOL, []), value("next", T.FLOAT, carried_shape)],
    )
    nodes = [
        h.make_node("Squeeze", ["n"], ["count"]),
        *initial,
        h.make_node("Loop", ["count", "true", "start"], ["last"], body=body),
        h.make_node("ReduceSum", ["last"], ["y"], keepdims=0),
    ]
    true = nh.from_array(np.array(True), "true")
    return nodes, true


# Any matrix in, the same out.
write("identity", [h.make_node("Identity", ["x"], ["y"])], [value("x", T.FLOAT, ["n", "m"])], [value("y", T.FLOAT, ["n", "m"])])

# Texts in lower case. The operator needs a locale of the system.
lower = h.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="en_US.UTF-8")
write("lower", [lower], [value("x", T.STRING, ["n"])], [value("y", T.STRING, ["n"])])

# No batch dimension: three numbers, doubled.
write("fixed", [h.make_node("Add", ["x", "x"], ["y"])], [value("x", T.FLOAT, [3])], [value("y", T.FLOAT, [3])])

# One input and output of each datatype.
KINDS = dict(
    bool=T.BOOL, uint8=T.UINT8, uint16=T.UINT16, uint32=T.UINT32, uint64=T.UINT64, int8=T.INT8, int16=T.INT16,
    int32=T.INT32, int64=T.INT64, fp16=T.FLOAT16, bf16=T.BFLOAT16, fp32=T.FLOAT, fp64=T.DOUBLE, bytes=T.STRING,
)
write(
    "datatypes",
    [h.make_node("Identity", [k], [f"{k}_out"]) for k in KINDS],
    [value(k, t, ["n"]) for k, t in KINDS.items()],
    [value(f"{k}_out", t, ["n"]) for k, t in KINDS.items()],
)

# An input with a default (an initializer that is also an input): y = x + bias.
write(
    "optional",
    [h.make_node("Add", ["x", "bias"], ["y"])],
    [value("x", T.FLOAT, ["n"]), value("bias", T.FLOAT, [1])],
    [value("y", T.FLOAT, ["n"])],
    [nh.from_array(np.array([10.0], np.float32), "bias")],
)

# A logarithm: NaN for negative numbers.
write("log", [h.make_node("Log", ["x"], ["y"])], [value("x", T.FLOAT, ["n"])], [value("y", T.FLOAT, ["n"])])

# A sequence as output.
write(
    "sequence",
    [h.make_node("SequenceConstruct", ["x", "x"], ["y"])],
    [value("x", T.FLOAT, ["n"])],
    [h.make_value_info("y", h.make_sequence_type_proto(h.make_tensor_type_proto(T.FLOAT, None)))],
)

# A sequence of maps, as in classifiers that were exported with ZipMap.
map_type = h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, []))
write(
    "zipmap",
    [h.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
    [value("x", T.FLOAT, ["n", 2])],
    [h.make_value_info("y", h.make_sequence_type_proto(map_type))],
    extra_opsets=[h.make_opsetid("ai.onnx.ml", 3)],
)

# An optional type as input.
write(
    "optional_type",
    [h.make_node("OptionalGetElement", ["x"], ["y"])],
    [h.make_value_info("x", h.make_optional_type_proto(h.make_tensor_type_proto(T.FLOAT, ["n"])))],
    [value("y", T.FLOAT, ["n"])],
)

# Weights in a file beside the model: y = x * [1, 2, 3].
write(
    "external",
    [h.make_node("Mul", ["x", "w"], ["y"])],
    [value("x", T.FLOAT, ["n", 3])],
    [value("y", T.FLOAT, ["n", 3])],
    [nh.from_array(np.array([1, 2, 3], np.float32), "w")],
    external=True,
)

# `n` small nodes in sequence: a long run that can be stopped at each node.
nodes, true = loop("loop", [h.make_node("Sin", ["v"], ["next"])], "v", [64], [h.make_node("Identity", ["zeros"], ["start"])])
write("loop", nodes, [value("n", T.INT64, [1])], [value("y", T.FLOAT, [])], [true, nh.from_array(np.ones(64, np.float32), "zeros")])

# One node whose cost grows with the cube of `n`: a long run that cannot be stopped inside the node.
write(
    "huge_node",
    [
        h.make_node("Concat", ["n", "n"], ["shape"], axis=0),
        h.make_node("ConstantOfShape", ["shape"], ["a"], value=h.make_tensor("one", T.FLOAT, [1], [1.0])),
        h.make_node("MatMul", ["a", "a"], ["b"]),
        h.make_node("ReduceMax", ["b"], ["y"], keepdims=0),
    ],
    [value("n", T.INT64, [1])],
    [value("y", T.FLOAT, [])],
)

# Two versions that answer differently, for swaps: y = x + 1 and y = x + 2.
for version in (1, 2):
    write(
        f"plus{version}",
        [h.make_node("Add", ["x", "c"], ["y"])],
        [value("x", T.FLOAT, ["n"])],
        [value("y", T.FLOAT, ["n"])],
        [nh.from_array(np.array([version], np.float32), "c")],
    )

# Two inputs: y = a + b.
write(
    "two_inputs",
    [h.make_node("Add", ["a", "b"], ["y"])],
    [value("a", T.FLOAT, ["n"]), value("b", T.FLOAT, ["n"])],
    [value("y", T.FLOAT, ["n"])],
)

# y = table[x], of 10 elements. A row that is not an index of the table fails the whole run.
write(
    "gather",
    [h.make_node("Gather", ["table", "x"], ["y"])],
    [value("x", T.INT64, ["n"])],
    [value("y", T.FLOAT, ["n"])],
    [nh.from_array(np.arange(10, dtype=np.float32) / 10, "table")],
)

# Returns only the rows over zero, so the output has fewer rows than the input.
write(
    "positives",
    [h.make_node("Greater", ["x", "zero"], ["keep"]), h.make_node("Compress", ["x", "keep"], ["y"], axis=0)],
    [value("x", T.FLOAT, ["n"])],
    [value("y", T.FLOAT, ["m"])],
    [nh.from_array(np.array(0, np.float32), "zero")],
)

# y = x, after as many small nodes as the largest row says.
nodes, true = loop("rounds", [h.make_node("Sin", ["v"], ["next"])], "v", [64], [h.make_node("Identity", ["zeros"], ["start"])])
write(
    "rounds",
    [
        h.make_node("ReduceMax", ["x"], ["n"], keepdims=1),
        *nodes[:-1],
        h.make_node("ReduceSum", ["last"], ["sum"], keepdims=0),
        h.make_node("Mul", ["sum", "nothing"], ["zero"]),
        h.make_node("Cast", ["x"], ["rows"], to=T.FLOAT),
        h.make_node("Add", ["rows", "zero"], ["y"]),
    ],
    [value("x", T.INT64, ["n"])],
    [value("y", T.FLOAT, ["n"])],
    [true, nh.from_array(np.ones(64, np.float32), "zeros"), nh.from_array(np.array(0, np.float32), "nothing")],
)


def dense_layer(source, target, rows, columns, wave):
    """Returns `target` = tanh(`source` x weights). The weights are a sine wave, computed when the model is loaded."""
    w = f"{target}_w"
    nodes = [
        h.make_node("Range", [f"{w}_0", f"{w}_n", f"{w}_1"], [f"{w}_i"]),
        h.make_node("Mul", [f"{w}_i", f"{w}_step"], [f"{w}_x"]),
        h.make_node("Sin", [f"{w}_x"], [f"{w}_sin"]),
        h.make_node("Mul", [f"{w}_sin", f"{w}_size"], [f"{w}_flat"]),
        h.make_node("Reshape", [f"{w}_flat", f"{w}_shape"], [w]),
        h.make_node("MatMul", [source, w], [f"{target}_sum"]),
        h.make_node("Tanh", [f"{target}_sum"], [target]),
    ]
    constants = [(f"{w}_0", 0), (f"{w}_n", rows * columns), (f"{w}_1", 1), (f"{w}_step", wave), (f"{w}_size", rows**-0.5)]
    shape = nh.from_array(np.array([rows, columns], np.int64), f"{w}_shape")
    return nodes, [*(scalar(name, number, np.float32) for name, number in constants), shape]


# Gains most from batches: one row reads as much memory, 16 MB of weights, as 16 rows do.
layers = [
    dense_layer("x", "a", 16, 1024, 0.71),
    dense_layer("a", "b", 1024, 1024, 0.37),
    dense_layer("b", "c", 1024, 1024, 0.53),
    dense_layer("c", "d", 1024, 1024, 0.61),
    dense_layer("d", "e", 1024, 1024, 0.43),
    dense_layer("e", "y", 1024, 4, 0.29),
]
write(
    "dense",
    [node for nodes, _ in layers for node in nodes],
    [value("x", T.FLOAT, ["n", 16])],
    [value("y", T.FLOAT, ["n", 4])],
    [constant for _, constants in layers for constant in constants],
)

# As small as a model can be that computes something, to measure the overhead around it.
layers = [dense_layer("x", "h", 16, 32, 0.7), dense_layer("h", "y", 32, 4, 0.3)]
write(
    "small",
    [node for nodes, _ in layers for node in nodes],
    [value("x", T.FLOAT, ["n", 16])],
    [value("y", T.FLOAT, ["n", 4])],
    [constant for _, constants in layers for constant in constants],
)

# Many numbers in, one out.
write("sum", [h.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [value("x", T.FLOAT, ["n"])], [value("y", T.FLOAT, [])])

# Returns its input.
write("copy", [h.make_node("Identity", ["x"], ["y"])], [value("x", T.FLOAT, ["n"])], [value("y", T.FLOAT, ["n"])])

# The model that Triton's clients call "simple": rows of sixteen, sum and difference.
rows = [value(name, T.INT32, ["n", 16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
write(
    "add_sub",
    [h.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]), h.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])],
    rows[:2],
    rows[2:],
)

# One text; its only dimension has the fixed length 1.
write("text", [h.make_node("Identity", ["INPUT0"], ["OUTPUT0"])], [value("INPUT0", T.STRING, [1])], [value("OUTPUT0", T.STRING, [1])])

# Return their input: texts, and signed bytes.
for name, datatype in (("texts", T.STRING), ("int8", T.INT8)):
    write(
        name,
        [h.make_node("Identity", ["INPUT0"], ["OUTPUT0"])],
        [value("INPUT0", datatype, ["n", "m"])],
        [value("OUTPUT0", datatype, ["n", "m"])],
    )

# A classifier of images, three planes of 8 x 8: the shares of red, green and blue.
write(
    "colours",
    [
        h.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=0),
        h.make_node("Softmax", ["means"], ["shares"], axis=1),
    ],
    [value("image", T.FLOAT, ["n", 3, 8, 8])],
    [value("shares", T.FLOAT, ["n", 3])],
)

# Two inputs that share the name of a dimension. Lengths that differ, unless one is 1, fail in the
# middle of a run.
write(
    "shared_name",
    [h.make_node("Mul", ["a", "b"], ["y"], name="/scale/Mul")],
    [value("a", T.FLOAT, ["batch", "len"]), value("b", T.FLOAT, ["batch", "len"])],
    [value("y", T.FLOAT, ["batch", "len"])],
)

# Positions for four tokens and no more.
write(
    "positions",
    [h.make_node("Add", ["x", "table"], ["y"], name="/embed/Add")],
    [value("x", T.FLOAT, ["tokens"])],
    [value("y", T.FLOAT, ["tokens"])],
    [nh.from_array(np.ones(4, np.float32), "table")],
)

# Parses texts as numbers; some texts are not numbers.
write(
    "parse",
    [h.make_node("Cast", ["x"], ["y"], to=T.FLOAT)],
    [value("x", T.STRING, ["n"])],
    [value("y", T.FLOAT, ["n"])],
)

# Integer division: the smallest integer divided by -1 overflows its type.
write(
    "divide",
    [
        h.make_node("Div", ["a", "b"], ["quotient"]),
        h.make_node("Mod", ["a", "b"], ["rest"]),
        h.make_node("Div", ["c", "d"], ["quotient_32"]),
    ],
    [value("a", T.INT64, ["n"]), value("b", T.INT64, ["n"]), value("c", T.INT32, ["n"]), value("d", T.INT32, ["n"])],
    [value("quotient", T.INT64, ["n"]), value("rest", T.INT64, ["n"]), value("quotient_32", T.INT32, ["n"])],
)

# Frames of a signal. ONNX Runtime divides by the frame length that the client sends.
write(
    "frames",
    [h.make_node("STFT", ["x", "step", "window", "length"], ["y"])],
    [value("x", T.FLOAT, ["n", "m"]), value("window", T.FLOAT, ["w"]), value("length", T.INT64, [1])],
    [value("y", T.FLOAT, None)],
    [scalar("step", 7)],
)

# Returns as many zeros as the client asks for.
write("zeros", [h.make_node("ConstantOfShape", ["n"], ["y"])], [value("n", T.INT64, [1])], [value("y", T.FLOAT, ["n"])])
