"""Raises an error with the given message."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        message = pb_utils.get_input_tensor_by_name(requests[0], "message").as_numpy()[0].decode()
        raise ValueError(message)
