"""Writes the request bodies of `cargo xtask bench`: `bodies.py EXAMPLE_FOLDER OUTPUT_FOLDER`.

All targets get the same customer: as a record if a plugin prepares it, else as ready-made floats.
"""

import json
import sys
from pathlib import Path

example, output = map(Path, sys.argv[1:])
sys.path.insert(0, str(example))

from features import features, load_scaling  # noqa: E402 (the path above is needed first)

record = json.loads((example / "request.json").read_text())["data"]
# Each float32 in its shortest text, as a client would send it.
rows = [[float(str(value)) for value in features(record, load_scaling())]]

bodies = {
    "fastapi": {"data": rows},
    "plain": {"model": "plain", "data": {"input": rows}},
}
for name in ["fresh", "reused", "python-fresh", "python-reused", "js-fresh", "js-reused"]:
    bodies[name] = {"model": name, "data": record}
# `--batching`: the same models with and without it.
for kind in ["single", "batched"]:
    bodies[kind] = {"model": kind, "data": record}
    bodies[f"fresh-{kind}"] = {"model": f"fresh-{kind}", "data": record}
    bodies[f"plain-{kind}"] = {"model": f"plain-{kind}", "data": {"input": rows}}
    bodies[f"dense-{kind}"] = {"model": f"dense-{kind}", "data": [[number / 16 for number in range(16)]]}
# `--executors`: the same models on their executor directly and through a plugin before it.
for kind in ["direct", "passed", "hedged"]:
    bodies[kind] = {"model": kind, "data": record}
    bodies[f"plain-{kind}"] = {"model": f"plain-{kind}", "data": {"input": rows}}
    bodies[f"large-{kind}"] = {"model": f"large-{kind}", "data": [0] * 150_000}
# `--calls`: a plugin that answers itself, and one that calls another model.
for name in ["alone", "calls-reused", "calls-fresh", "calls-shared"]:
    bodies[name] = {"model": name, "data": [1]}
# `--against`: a streaming model that waits 20 ms.
bodies["waits"] = {"model": "waits", "data": {"IN": [1], "DELAY": [20], "WAIT": [0]}}
for name in ["large-alone", "large-calls"]:
    bodies[name] = {"model": name, "data": [0] * 150_000}
tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
# `--pipelines`: one model alone, and a chain of five.
for name in ["wasm-one", "wasm-five"]:
    bodies[name] = {"model": name, "data": [1]}
for name in ["native-one", "native-five"]:
    bodies[name] = {"model": name, "data": [[1]]}
for name in ["large-step", "large-steps"]:
    bodies[name] = {"model": name, "data": [0] * 150_000}
for name in ["triton-alone", "triton-calls", "triton-one", "triton-five"]:
    bodies[name] = {"inputs": [tensor]}
# `bench triton`: the same floats in the Open Inference Protocol. Models with a plugin get the
# record.
for model, name, row in [("small", "x", [[number / 16 for number in range(16)]]), ("bankchurn", "input", rows)]:
    tensor = {"name": name, "datatype": "FP32", "shape": [1, len(row[0])], "data": row[0]}
    for kind in ["triton", "hostler"]:
        bodies[f"{kind}-{model}"] = {"inputs": [tensor]}
for name, body in bodies.items():
    (output / f"{name}.json").write_text(json.dumps(body))
