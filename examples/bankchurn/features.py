"""Turns one bank customer's record into the model's 18 input features.

This is the reference for everything that prepares features for model.onnx: training, the check, and
the WebAssembly plugin.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent

# The order of the model's input columns.
NUMERIC = (
    "credit_score",
    "age",
    "tenure",
    "balance",
    "num_of_products",
    "has_cr_card",
    "is_active_member",
    "estimated_salary",
    "points_earned",
)
CATEGORIES = {
    "geography": ("France", "Germany", "Spain"),
    "gender": ("Female", "Male"),
    "card_type": ("DIAMOND", "GOLD", "PLATINUM", "SILVER"),
}
FEATURES = NUMERIC + tuple(
    f"{field}={value}" for field, values in CATEGORIES.items() for value in values
)


def load_scaling(path=HERE / "scaling.json"):
    return json.loads(Path(path).read_text())


def features(record, scaling):
    """Returns 18 float32: scaled numbers, then one-hot categories.

    The scaling is computed in double precision and rounded to float32 once, so that any language
    with IEEE doubles gets the same bits.
    """
    row = [
        (float(record[field]) - mean) / scale
        for field, mean, scale in zip(NUMERIC, scaling["mean"], scaling["scale"])
    ]
    for field, values in CATEGORIES.items():
        if record[field] not in values:
            raise ValueError(f"{field}: unknown value {record[field]!r}")
        row += [1.0 if record[field] == value else 0.0 for value in values]
    return np.array(row, dtype=np.float32)


def feature_matrix(records, scaling):
    return np.stack([features(record, scaling) for record in records])
