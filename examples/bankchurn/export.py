"""Writes a fitted stack of four tree models as one small ONNX graph.

Each base learner is converted on its own to a single tree-ensemble node. The nodes are then joined
here, with the final logistic regression as Gemm and Softmax. The result has one output, no label
branch, and is short enough to read:

    input [N,18] -> 4 x TreeEnsembleClassifier -> Concat -> Gemm -> Softmax

Opset 17, ai.onnx.ml 3 and IR 8 load in onnxruntime 1.20 and later.
"""

import numpy as np
import onnx
from lightgbm import LGBMClassifier
from onnx import TensorProto, helper, numpy_helper
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes as classifier_shapes,
)
from xgboost import XGBClassifier

OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8

for kind, name, convert in (
    (XGBClassifier, "XGBoost", convert_xgboost),
    (LGBMClassifier, "LightGBM", convert_lightgbm),
):
    update_registered_converter(
        kind,
        name,
        classifier_shapes,
        convert,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def tree_node(name, learner, width):
    """Returns the learner's single TreeEnsembleClassifier node, with our names."""
    graph = convert_sklearn(
        learner,
        initial_types=[("input", FloatTensorType([None, width]))],
        options={id(learner): {"zipmap": False}},
        target_opset=OPSETS,
    ).graph
    trees = [node for node in graph.node if node.op_type == "TreeEnsembleClassifier"]
    others = {node.op_type for node in graph.node} - {"TreeEnsembleClassifier"}
    # Taking the node alone would lose anything except renaming.
    if len(trees) != 1 or not others <= {"Identity"} or graph.initializer:
        raise ValueError(f"{name}: the converter made more than one tree node")
    node = onnx.NodeProto()
    node.CopyFrom(trees[0])
    node.name = name
    node.input[:] = ["input"]
    node.output[:] = [f"{name}_label", f"{name}_probabilities"]
    if isinstance(learner, LGBMClassifier):
        round_thresholds_down(node, learner.booster_)
    return node


def round_thresholds_down(node, booster):
    """Makes the node split float32 values exactly where LightGBM does.

    LightGBM compares with a double, `x <= t`; the graph holds float32. The converter rounds t to
    the nearest float32. If that rounds up, a value just above t takes the wrong branch. The largest
    float32 not above t splits the same way (scikit-learn's converter does this, and XGBoost trains
    in float32).
    """
    below = {}

    def collect(part):
        if "threshold" not in part:
            return
        exact = part["threshold"]
        nearest = lower = np.float32(exact)
        if float(nearest) > exact:
            lower = np.nextafter(nearest, np.float32(-np.inf))
        key = (part["split_feature"], float(nearest))
        if below.setdefault(key, float(lower)) != float(lower):
            raise ValueError(f"two splits of feature {key[0]} are too close to tell")
        collect(part["left_child"])
        collect(part["right_child"])

    for tree in booster.dump_model()["tree_info"]:
        collect(tree["tree_structure"])

    found = attributes(node)
    values = [
        value if mode == b"LEAF" else below[feature, value]
        for mode, feature, value in zip(
            found["nodes_modes"], found["nodes_featureids"], found["nodes_values"]
        )
    ]
    for attribute in node.attribute:
        if attribute.name == "nodes_values":
            attribute.floats[:] = values


def to_onnx(stack, width):
    nodes = [
        tree_node(name, learner, width)
        for name, learner in stack.named_estimators_.items()
    ]
    # Each learner returns [P(stays), P(leaves)]; the final regression uses only the second, so the
    # first has weight zero. Softmax over (0, z) is the logistic function of z.
    final = stack.final_estimator_
    weights = np.zeros((2 * len(nodes), 2), dtype=np.float32)
    weights[1::2, 1] = final.coef_[0]
    bias = np.array([0.0, final.intercept_[0]], dtype=np.float32)
    nodes += [
        helper.make_node(
            "Concat", [node.output[1] for node in nodes], ["stacked"], "stack", axis=1
        ),
        helper.make_node(
            "Gemm", ["stacked", "final_weights", "final_bias"], ["score"], "final"
        ),
        helper.make_node("Softmax", ["score"], ["probabilities"], "logistic", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "bankchurn",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(weights, "final_weights"),
            numpy_helper.from_array(bias, "final_bias"),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*pair) for pair in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="bankchurn",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def probe(model, name):
    """Returns the same graph, cut off after the base learner `name`."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    keep = [node for node in cut.graph.node if node.name == name]
    del cut.graph.node[:], cut.graph.output[:], cut.graph.initializer[:]
    cut.graph.node.extend(keep)
    cut.graph.output.append(
        helper.make_tensor_value_info(keep[0].output[1], TensorProto.FLOAT, ["N", 2])
    )
    return cut


def thresholds(model, name):
    """Returns (feature, threshold) of every split of the base learner `name`."""
    node = next(node for node in model.graph.node if node.name == name)
    found = attributes(node)
    return sorted(
        {
            (feature, value)
            for mode, feature, value in zip(
                found["nodes_modes"], found["nodes_featureids"], found["nodes_values"]
            )
            if mode != b"LEAF"
        }
    )
