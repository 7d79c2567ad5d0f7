"""Bodies that the client builds and parses, sent by other means."""

import urllib.request

import tritonclient.http as triton
from expect import ADDRESS, LEFT, RIGHT, sum_and_difference

tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
for binary in (False, True):
    tensors[0].set_data_from_numpy(LEFT, binary_data=binary)
    tensors[1].set_data_from_numpy(RIGHT, binary_data=binary)
    body, head = triton.InferenceServerClient.generate_request_body(tensors)
    headers = {} if head is None else {"Inference-Header-Content-Length": str(head)}
    request = urllib.request.Request(f"http://{ADDRESS}/v2/models/simple/infer", body, headers)
    with urllib.request.urlopen(request) as answer:
        head = answer.headers.get("Inference-Header-Content-Length")
        length = None if head is None else int(head)
        result = triton.InferenceServerClient.parse_response_body(answer.read(), header_length=length)
    sum_and_difference(result)
