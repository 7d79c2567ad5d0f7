"""The peer that `cargo xtask bench` measures Hostler against.

One process with an event loop that never computes, and a pool of four threads that run ONNX Runtime
with one thread each. Requests contain ready-made floats; the app does no preprocessing.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
pool = ThreadPoolExecutor(max_workers=4)
app = FastAPI()


class PredictRequest(BaseModel):
    data: list[list[float]]


class PredictResponse(BaseModel):
    probabilities: list[list[float]]


def run(rows: list[list[float]]) -> list[list[float]]:
    """Runs in the pool; `session.run` releases the interpreter lock while it computes."""
    return session.run(["probabilities"], {"input": np.asarray(rows, dtype=np.float32)})[0].tolist()


@app.post("/predict")
async def predict(request: PredictRequest) -> PredictResponse:
    probabilities = await asyncio.get_running_loop().run_in_executor(pool, run, request.data)
    return PredictResponse(probabilities=probabilities)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
