"""Checks that model.onnx returns the same probabilities as scikit-learn.

Builds the features of every record in rows.jsonl, runs them through onnxruntime one by one and as
one batch, and compares with scikit-learn's probability. Exits with 1 if any differs by more than
1e-5.

    python check.py            compare
    python check.py --time     compare, then time calls on one thread
"""

import json
import os
import sys
import time

# Set before ONNX Runtime is loaded: otherwise its builds send usage data to their maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from features import HERE, feature_matrix, load_scaling

LIMIT = 1e-5


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"]
    )


def churn(model, x):
    return model.run(["probabilities"], {"input": x})[0][:, 1].astype(np.float64)


def load_rows():
    lines = (HERE / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    x = feature_matrix([row["record"] for row in rows], load_scaling())
    return x, np.array([row["probability"] for row in rows])


def one_by_one(x):
    return [x[i : i + 1] for i in range(len(x))]


def check():
    """Compares, prints the differences, and returns whether all are within LIMIT."""
    x, expected = load_rows()
    model = session(HERE / "model.onnx")
    batch = churn(model, x)
    single = np.concatenate([churn(model, row) for row in one_by_one(x)])
    print(f"{len(x)} rows, probabilities {expected.min():.4f}..{expected.max():.4f}")
    differences = {
        "one batch against scikit-learn": np.abs(batch - expected).max(),
        "single rows against scikit-learn": np.abs(single - expected).max(),
        "single rows against one batch": np.abs(single - batch).max(),
    }
    for name, difference in differences.items():
        print(f"  {name}: max difference {difference:.3g}")
    # "all within" rather than "none over": a NaN must not pass.
    return all(difference <= LIMIT for difference in differences.values())


def median_microseconds(model, calls):
    taken = []
    for x in calls:
        started = time.perf_counter()
        model.run(["probabilities"], {"input": x})
        taken.append(time.perf_counter() - started)
    return 1e6 * float(np.median(taken))


def show_times():
    x, _ = load_rows()
    model = session(HERE / "model.onnx")
    singles = one_by_one(x) * 20
    sixteens = [x[i : i + 16] for i in range(0, len(x) - 15, 16)] * 100
    median_microseconds(model, singles)  # warm up
    one = median_microseconds(model, singles)
    batch = median_microseconds(model, sixteens)
    print("one thread, median, Python call included:")
    print(f"  1 row: {one:.1f} us; batch of 16: {batch:.1f} us, {batch / 16:.1f} a row")


if __name__ == "__main__":
    within = check()
    if "--time" in sys.argv[1:]:
        show_times()
    sys.exit(0 if within else 1)
