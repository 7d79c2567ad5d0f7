"""Makes small.onnx, big.onnx, reasons.onnx and checks.json: `python make.py` (needs onnx and
numpy).

The models compute a probability from eight features. The small model adds the features; the big one
also uses the products of two pairs; the reasons are what each feature contributes to the small
model. The weights are fixed, so the files are always the same.
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx import save

HERE = Path(__file__).parent
WEIGHTS = np.array([2.0, -1.5, 1.2, 1.0, -0.8, 0.6, 0.3, -0.3], dtype=np.float32)
PAIRS = [(0, 1), (6, 7)]
PAIR_WEIGHT = 1.6


def write(name, nodes, output, columns, weights):
    value = h.make_tensor_value_info
    inputs, outputs = value("x", T.FLOAT, [1, 8]), value(output, T.FLOAT, [1, columns])
    graph = h.make_graph(nodes, name, [inputs], [outputs], weights)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="hostler")
    save(model, HERE / f"{name}.onnx")


def constant(name, value, dtype=np.float32):
    return nh.from_array(np.array(value, dtype=dtype), name)


def small(x):
    return 1 / (1 + np.exp(-(x @ WEIGHTS)))


def big(x):
    return 1 / (1 + np.exp(-(x @ WEIGHTS + PAIR_WEIGHT * sum(x[a] * x[b] for a, b in PAIRS))))


def main():
    column = constant("w", WEIGHTS[:, None])
    nodes = [h.make_node("MatMul", ["x", "w"], ["z"]), h.make_node("Sigmoid", ["z"], ["probability"])]
    write("small", nodes, "probability", 1, [column])

    nodes = [h.make_node("MatMul", ["x", "w"], ["z"])]
    sides = [[pair[side] for pair in PAIRS] for side in range(2)]
    nodes += [h.make_node("Gather", ["x", f"i{side}"], [f"g{side}"], axis=1) for side in range(2)]
    nodes += [
        h.make_node("Mul", ["g0", "g1"], ["products"]),
        h.make_node("MatMul", ["products", "pairs"], ["p"]),
        h.make_node("Add", ["z", "p"], ["sum"]),
        h.make_node("Sigmoid", ["sum"], ["probability"]),
    ]
    weights = [column, constant("pairs", [[PAIR_WEIGHT]] * len(PAIRS))]
    weights += [constant(f"i{side}", sides[side], np.int64) for side in range(2)]
    write("big", nodes, "probability", 1, weights)

    write("reasons", [h.make_node("Mul", ["x", "row"], ["contributions"])], "contributions", 8, [constant("row", WEIGHTS[None])])

    checks = []
    for x in ([1, 0, 1, 0, 0, 0, 0, 0], [0.5, 1, 0.5, 0, 0, 0, 1, 1], [-1, 0.5, 0, 0, 1, 0, 0, 0]):
        x = np.array(x, dtype=np.float32)
        p = small(x)
        p = big(x) if 0.3 <= p <= 0.7 else p
        checks.append({"data": {"x": [x.tolist()]}, "expect": {"probability": [[round(float(p), 6)]]}})
    explained = {"data": checks[0]["data"], "parameters": {"explain": True}}
    x = np.array(checks[0]["data"]["x"][0], dtype=np.float32)
    checks.append(explained | {"expect": {"reasons": [[round(float(value), 6) for value in x * WEIGHTS]]}})
    (HERE / "checks.json").write_text(json.dumps(checks, indent=1) + "\n")
    request = {"model": "scoring", "data": {"x": [[0.5, 1, 0.5, 0, 0, 0, 1, 1]]}, "parameters": {"explain": True}}
    (HERE / "request.json").write_text(json.dumps(request) + "\n")


if __name__ == "__main__":
    main()
