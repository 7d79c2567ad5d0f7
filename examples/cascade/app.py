"""A custom executor: calls the small model first, and the big one for the rows of which the small
one is not sure.

The requested model is the small one. Config: `big_model`, and the probabilities `low` and `high`
between which a row goes to the big model. Both models return `probability`, FP32 [-1, 1].
"""

import hostler_plugin as hostler


class Executor(hostler.Executor):
    def submit(self, request, inputs, model):
        low = hostler.config_number("low", 0.3, 0.0, 1.0)
        high = hostler.config_number("high", 0.7, 0.0, 1.0)
        answer = hostler.named(model.call(inputs), "probability")
        probabilities = hostler.elements(answer)
        unsure = [row for row, p in enumerate(probabilities) if low <= p <= high]
        hostler.count("small", len(probabilities) - len(unsure))
        hostler.count("big", len(unsure))
        if not unsure:
            return [answer]

        big = hostler.get_model(hostler.config("big_model") or f"{model.model()}-big")
        outputs = big.call([rows_of(inputs[0], unsure)])
        for row, p in zip(unsure, hostler.elements(hostler.named(outputs, "probability"))):
            probabilities[row] = p
        return [hostler.tensor("probability", "FP32", answer.shape(), probabilities)]


def rows_of(tensor, rows):
    """Returns a tensor with some of the rows of another one."""
    count, width = tensor.shape()
    if len(rows) == count:
        return tensor
    size = tensor.byte_length() // count
    data = b"".join(tensor.read(row * size, size) for row in rows)
    return hostler.Tensor.create(tensor.name(), tensor.datatype(), [len(rows), width], data)
