"""Sleeps for the given number of milliseconds."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        ms = pb_utils.get_input_tensor_by_name(request, "ms").as_numpy()
        time.sleep(int(ms[0]) / 1000)
        return pb_utils.InferenceResponse([pb_utils.Tensor("slept", ms)])
