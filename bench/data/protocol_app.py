"""The peer of `cargo xtask bench protocol`: a CPU-bound model on the event loop or on four threads.

With `PROTOCOL_MODE=blocking`, the coroutine itself computes, as in many first versions of a service.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Response
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
blocking = os.environ["PROTOCOL_MODE"] == "blocking"
pool = ThreadPoolExecutor(max_workers=4)
app = FastAPI()
predictions = 0


class PredictRequest(BaseModel):
    data: dict[str, list[int]]


class PredictResponse(BaseModel):
    result: dict[str, float]


def run(rounds: list[int]) -> dict[str, float]:
    return {"y": float(session.run(["y"], {"n": np.asarray(rounds, dtype=np.int64)})[0])}


@app.post("/predict")
async def predict(request: PredictRequest) -> PredictResponse:
    global predictions
    predictions += 1
    rounds = request.data["n"]
    result = run(rounds) if blocking else await asyncio.get_running_loop().run_in_executor(pool, run, rounds)
    return PredictResponse(result=result)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/metrics")
async def metrics() -> Response:
    return Response(f"# TYPE predictions counter\npredictions {predictions}\n", media_type="text/plain")
