"""Runs the model.onnx beside this file with ONNX Runtime on one thread."""

import pathlib

import numpy
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = pathlib.Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        """Runs the requests together; with dynamic batching there are several."""
        rows = [pb_utils.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        outputs = self.session.run(self.names, {self.input: rows[0] if len(rows) == 1 else numpy.concatenate(rows)})
        responses, start = [], 0
        for part in rows:
            end = start + len(part)
            tensors = [pb_utils.Tensor(name, value[start:end]) for name, value in zip(self.names, outputs)]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = end
        return responses
