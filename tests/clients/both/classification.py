"""Classification: the best classes of images, with their labels; two images in one request."""

from itertools import product

import numpy as np
from expect import ADDRESS, PROTOCOL, equal, refused, triton

# The forms in which outputs can be requested; gRPC has only one.
FORMS = ({},) if PROTOCOL == "grpc" else ({"binary_data": True}, {"binary_data": False})
LABELS = ["red", "green", "blue"]


def image(best):
    planes = np.zeros((3, 8, 8), np.float32)
    planes[best] = 5
    planes[(best + 1) % 3] = 2
    return planes


def ask(client, count, form):
    tensor = triton.InferInput("image", [2, 3, 8, 8], "FP32")
    tensor.set_data_from_numpy(np.stack([image(1), image(2)]))
    output = triton.InferRequestedOutput("shares", class_count=count, **form)
    return client.infer("colours", [tensor], outputs=[output]).as_numpy("shares")


def parts(element):
    text = element if isinstance(element, str) else element.decode()
    value, index, label = text.split(":")
    return float(value), int(index), label


with triton.InferenceServerClient(ADDRESS) as client:
    for count, form in product((1, 2, 3, 99), FORMS):
        rows = ask(client, count, form)
        equal("shape", list(rows.shape), [2, min(count, 3)])
        for row, best in zip(rows, (1, 2)):
            found = [parts(element) for element in row]
            wanted = [best, (best + 1) % 3, (best + 2) % 3][: len(found)]
            equal("indices", [index for _, index, _ in found], wanted)
            equal("labels", [label for *_, label in found], [LABELS[index] for index in wanted])
            values = [value for value, *_ in found]
            equal("order", values, sorted(values, reverse=True))
            if not 0.9 < values[0] <= 1:
                raise SystemExit(f"{found}: the best class is nearly certain")

    texts = triton.InferInput("INPUT0", [1, 1], "BYTES")
    texts.set_data_from_numpy(np.array([["a"]], dtype=object))
    output = [triton.InferRequestedOutput("OUTPUT0", class_count=1)]
    refused("classes of texts", lambda: client.infer("texts", [texts], outputs=output), "OUTPUT0", "BYTES")

    # Rows without elements: a huge number of rows in no bytes. They have no best class.
    rows = triton.InferInput("INPUT0", [10**12, 0], "INT8")
    rows.set_data_from_numpy(np.empty((10**12, 0), np.int8))
    equal("empty rows", client.infer("int8", [rows], outputs=output).as_numpy("OUTPUT0").shape, (10**12, 0))
