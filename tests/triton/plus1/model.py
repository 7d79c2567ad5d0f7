"""Adds one, and logs the id and the trace of the request; Triton passes forwarded headers as parameters."""

import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [answer(request) for request in requests]


def answer(request):
    parameters = json.loads(request.parameters() or "{}")
    pb_utils.Logger.log_info(f"plus1 for {request.request_id()} in {parameters.get('traceparent')}")
    x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", x + 1)])
