"""Waits for the given time or until it is cancelled, and counts the cancellations."""

import time

import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.cancelled = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        until = time.monotonic() + int(pb_utils.get_input_tensor_by_name(request, "ms").as_numpy()[0]) / 1000
        while time.monotonic() < until:
            if request.is_cancelled():
                self.cancelled += 1
                break
            time.sleep(0.002)
        count = numpy.array([self.cancelled], numpy.int32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("cancelled", count)])
