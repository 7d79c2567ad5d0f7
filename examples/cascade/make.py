"""Makes small.onnx, big.onnx and rows.json: `python make.py` (needs onnx and numpy).

Rows of eight features have the label 1 or 0. Most of it follows from single features, which a
logistic regression learns (small.onnx). Two pairs of features also interact, which requires a
network (big.onnx). The seed is fixed; the committed files are the ones that the example and its
tests use.
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx import save

HERE = Path(__file__).parent
RANDOM = np.random.default_rng(7)
WEIGHTS = np.array([2.0, -1.5, 1.2, 1.0, -0.8, 0.6, 0.0, 0.0])


def rows(count):
    x = RANDOM.standard_normal((count, 8))
    score = x @ WEIGHTS + 1.6 * x[:, 0] * x[:, 1] + 1.6 * x[:, 6] * x[:, 7]
    return x, (score > 0).astype(float)[:, None]


def sigmoid(z):
    return 1 / (1 + np.exp(-np.clip(z, -30, 30)))


def trained(sizes, x, y, steps):
    """Returns weights and biases of a network with ReLU between its layers, trained with Adam on
    the cross entropy."""
    layers = [RANDOM.standard_normal((a, b)) * np.sqrt(2 / a) for a, b in zip(sizes, sizes[1:])]
    parameters = [p for w in layers for p in (w, np.zeros(w.shape[1]))]
    means, squares = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters]
    for step in range(1, steps + 1):
        batch = RANDOM.integers(0, len(x), 512)
        for i, gradient in enumerate(gradients(parameters, x[batch], y[batch])):
            means[i] = 0.9 * means[i] + 0.1 * gradient
            squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
            mean, square = means[i] / (1 - 0.9**step), squares[i] / (1 - 0.999**step)
            parameters[i] -= 0.01 * (1 - step / steps) * mean / (np.sqrt(square) + 1e-8)
    return parameters


def gradients(parameters, x, y):
    values = forward(parameters, x)
    error, result = (sigmoid(values[-1]) - y) / len(x), []
    for layer in reversed(range(len(parameters) // 2)):
        result = [values[layer].T @ error, error.sum(0), *result]
        error = error @ parameters[2 * layer].T * (values[layer] > 0)
    return result


def forward(parameters, x):
    """Returns the inputs of each layer, and the output of the last one."""
    values = [x]
    for layer in range(0, len(parameters), 2):
        z = values[-1] @ parameters[layer] + parameters[layer + 1]
        values.append(np.maximum(z, 0) if layer + 2 < len(parameters) else z)
    return values


def write(name, parameters):
    nodes, weights, last = [], [], "x"
    for i in range(len(parameters) // 2):
        w, b, z = f"w{i}", f"b{i}", f"z{i}"
        nodes.append(h.make_node("Gemm", [last, w, b], [z]))
        weights += [nh.from_array(p.astype(np.float32), n) for p, n in zip(parameters[2 * i :], (w, b))]
        last = z
        if 2 * i + 2 < len(parameters):
            nodes.append(h.make_node("Relu", [z], [f"r{i}"]))
            last = f"r{i}"
    nodes.append(h.make_node("Sigmoid", [last], ["probability"]))
    value = h.make_tensor_value_info
    inputs, outputs = value("x", T.FLOAT, ["rows", 8]), value("probability", T.FLOAT, ["rows", 1])
    graph = h.make_graph(nodes, name, [inputs], [outputs], weights)
    opsets = [h.make_opsetid("", 17)]
    save(h.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="hostler"), HERE / f"{name}.onnx")


def main():
    x, y = rows(20_000)
    small, big = trained([8, 1], x, y, 2_000), trained([8, 48, 48, 1], x, y, 6_000)
    write("small", small)
    write("big", big)
    x, y = rows(400)
    x = np.round(x, 4)
    (HERE / "rows.json").write_text(json.dumps({"x": x.tolist(), "label": y[:, 0].astype(int).tolist()}) + "\n")
    p, q = (sigmoid(forward(parameters, x)[-1]) for parameters in (small, big))
    unsure = (p >= 0.3) & (p <= 0.7)
    both = np.where(unsure, q, p)
    for name, probability in (("small", p), ("big", q), ("cascade", both)):
        print(f"{name}: {np.mean((probability > 0.5) == (y > 0.5)):.3f} right")
    print(f"unsure: {np.mean(unsure):.3f}")


main()
