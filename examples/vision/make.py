"""Makes detector.onnx, classifier.onnx and the pictures: `python make.py` (needs onnx, numpy,
pillow).

A picture of 64 by 64 pixels has eight by eight cells of eight by eight pixels. The detector returns
the bright cells, as boxes (x0, y0, x1, y1) and as crops; the classifier says whether a crop is red,
green or blue.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx import save
from PIL import Image

HERE = Path(__file__).parent
SIDE, CELL, CELLS = 64, 8, 8
COLOURS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230)}


def write(name, nodes, inputs, outputs, weights):
    graph = h.make_graph(nodes, name, inputs, outputs, weights)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="hostler")
    save(model, HERE / f"{name}.onnx")


def constant(name, value, dtype=np.int64):
    return nh.from_array(np.array(value, dtype=dtype), name)


def detector():
    value = h.make_tensor_value_info
    nodes = [
        # [row of cells, column of cells, y, x, colour]
        h.make_node("Reshape", ["pixels", "grid"], ["rows"]),
        h.make_node("Transpose", ["rows"], ["cells"], perm=[0, 2, 1, 3, 4]),
        h.make_node("Cast", ["cells"], ["floats"], to=T.FLOAT),
        h.make_node("ReduceMax", ["floats"], ["brightest"], axes=[4], keepdims=0),
        h.make_node("ReduceMean", ["brightest"], ["brightness"], axes=[2, 3], keepdims=0),
        h.make_node("Greater", ["brightness", "threshold"], ["found"]),
        h.make_node("NonZero", ["found"], ["places"]),
        h.make_node("Transpose", ["places"], ["yx"], perm=[1, 0]),
        h.make_node("GatherND", ["cells", "yx"], ["crops"]),
        h.make_node("Gather", ["yx", "swap"], ["xy"], axis=1),
        h.make_node("Mul", ["xy", "cell"], ["first"]),
        h.make_node("Add", ["first", "cell"], ["last"]),
        h.make_node("Concat", ["first", "last"], ["boxes"], axis=1),
    ]
    weights = [
        constant("grid", [CELLS, CELL, CELLS, CELL, 3]),
        constant("threshold", 100, np.float32),
        constant("swap", [1, 0]),
        constant("cell", CELL),
    ]
    inputs = [value("pixels", T.UINT8, [SIDE, SIDE, 3])]
    outputs = [value("boxes", T.INT64, ["found", 4]), value("crops", T.UINT8, ["found", CELL, CELL, 3])]
    write("detector", nodes, inputs, outputs, weights)


def classifier():
    value = h.make_tensor_value_info
    nodes = [
        h.make_node("Cast", ["crops"], ["floats"], to=T.FLOAT),
        h.make_node("ReduceMean", ["floats"], ["colour"], axes=[1, 2], keepdims=0),
        h.make_node("ArgMax", ["colour"], ["class"], axis=1, keepdims=0),
    ]
    write("classifier", nodes, [value("crops", T.UINT8, ["n", CELL, CELL, 3])], [value("class", T.INT64, ["n"])], [])


def picture(name, squares):
    pixels = np.full((4 * SIDE, 4 * SIDE, 3), 15, dtype=np.uint8)
    for colour, (x, y) in squares:
        size = 4 * CELL
        pixels[y * size : (y + 1) * size, x * size : (x + 1) * size] = COLOURS[colour]
    Image.fromarray(pixels).save(HERE / name, quality=95, subsampling=0)


if __name__ == "__main__":
    detector()
    classifier()
    picture("three.jpg", [("red", (1, 1)), ("green", (5, 2)), ("blue", (3, 6))])
    picture("nothing.jpg", [])
    many = [(colour, (x, y)) for y in range(8) for x, colour in enumerate([*COLOURS, *COLOURS]) if (x + y) % 2 == 0]
    picture("many.jpg", many)
