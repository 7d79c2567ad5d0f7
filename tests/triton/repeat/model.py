"""Sends the values one by one, each after its delay; a negative value ends the stream with an error."""

import asyncio

import numpy
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    async def execute(self, requests):
        for request in requests:
            await self.answer(request)

    async def answer(self, request):
        sender = request.get_response_sender()
        values = pb_utils.get_input_tensor_by_name(request, "values").as_numpy()
        delays = pb_utils.get_input_tensor_by_name(request, "delays_ms").as_numpy()
        for index, (value, delay) in enumerate(zip(values, delays)):
            await asyncio.sleep(int(delay) / 1000)
            if request.is_cancelled():
                break
            if value < 0:
                error = pb_utils.TritonError(f"value {index} is negative")
                sender.send(pb_utils.InferenceResponse(error=error))
                break
            sender.send(pb_utils.InferenceResponse([
                pb_utils.Tensor("value", numpy.array([value], numpy.int32)),
                pb_utils.Tensor("index", numpy.array([index], numpy.uint32)),
            ]))
        sender.send(flags=FINAL)
