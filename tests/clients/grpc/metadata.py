"""Health, metadata, and the standard health service grpc.health.v1."""

import tritonclient.grpc as triton
from expect import ADDRESS, equal, refused

with triton.InferenceServerClient(ADDRESS) as client:
    equal("live", client.is_server_live(), True)
    equal("ready", client.is_server_ready(), True)
    equal("model", [client.is_model_ready("simple"), client.is_model_ready("simple", "1")], [True, True])
    equal("no model", [client.is_model_ready("simpel"), client.is_model_ready("simple", "9")], [False, False])
    equal("name", client.get_server_metadata().name, "triton")
    equal("as JSON", client.get_server_metadata(as_json=True)["name"], "triton")
    metadata = client.get_model_metadata("simple", as_json=True)
    equal("model", [metadata["name"], *metadata["versions"]], ["simple", "1"])
    inputs = [(tensor["name"], tensor["datatype"]) for tensor in metadata["inputs"]]
    equal("inputs", inputs, [("INPUT0", "INT32"), ("INPUT1", "INT32")])
    refused("a wrong model", lambda: client.get_model_metadata("simpel"), "simpel")
