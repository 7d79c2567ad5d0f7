"""Trains the bank-churn model and writes all files that the example serves.

    pip install -r requirements.txt
    python train.py

Writes model.onnx, scaling.json, rows.jsonl, request.json, batch.json and checks.json next to this
file. The data are generated (customers.py) and every seed is fixed: with the pinned packages, a
second run on the same machine writes the same bytes.
"""

import json
import sys

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

from check import LIMIT, check, session
from customers import draw
from export import probe, thresholds, to_onnx
from features import FEATURES, HERE, NUMERIC, feature_matrix

TRAINING, HELD_OUT, ROWS = 12_000, 10_000, 1_000


def fit_scaling(records):
    """Returns mean and standard deviation of the numbers, with few enough digits to copy manually.
    """
    numbers = np.array([[float(r[f]) for f in NUMERIC] for r in records])
    found = {"mean": numbers.mean(axis=0), "scale": numbers.std(axis=0)}
    return {
        name: [float(f"{value:.6g}") for value in values]
        for name, values in found.items()
    }


def new_stack():
    return StackingClassifier(
        [
            (
                "random_forest",
                RandomForestClassifier(
                    n_estimators=30, max_depth=7, min_samples_leaf=10, random_state=1
                ),
            ),
            (
                "gradient_boosting",
                GradientBoostingClassifier(
                    n_estimators=40, max_depth=3, learning_rate=0.1, random_state=2
                ),
            ),
            (
                "xgboost",
                XGBClassifier(
                    n_estimators=40,
                    max_depth=4,
                    learning_rate=0.08,
                    tree_method="hist",
                    random_state=3,
                    n_jobs=1,
                ),
            ),
            (
                "lightgbm",
                LGBMClassifier(
                    n_estimators=40,
                    num_leaves=15,
                    learning_rate=0.06,
                    deterministic=True,
                    force_row_wise=True,
                    random_state=4,
                    n_jobs=1,
                    verbose=-1,
                ),
            ),
        ],
        final_estimator=LogisticRegression(),
        cv=StratifiedKFold(5, shuffle=True, random_state=5),
        stack_method="predict_proba",
    )


def edge_rows(x, splits):
    """Returns rows exactly on a split, and one float32 to either side of it."""
    at = np.array([value for _, value in splits], dtype=np.float32)
    rows = []
    for values in (np.nextafter(at, -np.inf), at, np.nextafter(at, np.inf)):
        near = x[np.arange(len(splits)) % len(x)].copy()
        near[np.arange(len(splits)), [feature for feature, _ in splits]] = values
        rows.append(near)
    return np.concatenate(rows).astype(np.float32)


def check_learners(stack, model, x):
    """Compares each base learner in the graph with its original library.

    A converter may round a split threshold the wrong way, which shows only in rows next to the
    split, so the check includes such rows.
    """
    good = True
    for name, learner in stack.named_estimators_.items():
        graph = session(probe(model, name).SerializeToString())
        edges = edge_rows(x, thresholds(model, name))
        worst = []
        for rows in (x, edges):
            answer = graph.run(None, {"input": rows})[0]
            worst.append(np.abs(answer - learner.predict_proba(rows)).max())
        good &= all(difference <= LIMIT for difference in worst)
        print(
            f"  {name}: max difference {worst[0]:.3g} on {len(x)} held-out rows, "
            f"{worst[1]:.3g} on {len(edges)} rows at splits"
        )
    return good


def write_json(name, value):
    (HERE / name).write_text(json.dumps(value, indent=2) + "\n")


def main():
    records, left = draw(TRAINING, seed=20_240_601)
    scaling = fit_scaling(records)
    # The model is trained on float32 features, exactly those that it is served.
    x = feature_matrix(records, scaling)
    # One thread fixes the order of floating-point sums, and so every bit.
    with threadpool_limits(1):
        stack = new_stack().fit(x, left)
    model = to_onnx(stack, len(FEATURES))

    held_out, held_left = draw(HELD_OUT, seed=20_240_602)
    held_x = feature_matrix(held_out, scaling)
    probability = stack.predict_proba(held_x)[:, 1]
    print(f"churn {left.mean():.3f} in training, {held_left.mean():.3f} held out")
    print(f"AUC held out {roc_auc_score(held_left, probability):.4f}")

    (HERE / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    write_json("scaling.json", scaling)
    with open(HERE / "rows.jsonl", "w", newline="\n") as file:
        for record, p in zip(held_out[:ROWS], probability[:ROWS]):
            file.write(json.dumps({"record": record, "probability": float(p)}) + "\n")
    write_json("request.json", {"model": "bankchurn", "data": held_out[0]})
    items = [{"data": record} for record in held_out[1:4]]
    write_json("batch.json", {"model": "bankchurn", "items": items})
    write_json("checks.json", checks(held_out[:ROWS], probability[:ROWS]))

    good = check_learners(stack, model, held_x)
    return check() and good


def checks(records, probabilities):
    """Samples for the manifest's `checks`: the first row, the most likely to leave, the closest
    call."""
    picked = [0, int(probabilities.argmax()), int(abs(probabilities - 0.5).argmin())]
    return [
        {
            "data": records[i],
            "expect": {"churn": bool(probabilities[i] >= 0.5), "probability": round(float(probabilities[i]), 6)},
        }
        for i in picked
    ]


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
