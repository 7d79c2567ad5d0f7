"""Health, readiness and metadata, of the server and of models."""

import tritonclient.http as triton
from expect import ADDRESS, equal, refused

with triton.InferenceServerClient(ADDRESS) as client:
    equal("live", client.is_server_live(headers={"test": "1", "dummy": "2"}, query_params={"a": 1}), True)
    equal("ready", client.is_server_ready(), True)
    equal("model ready", client.is_model_ready("simple"), True)
    equal("version ready", client.is_model_ready("simple", "1"), True)
    equal("wrong version", client.is_model_ready("simple", "2"), False)
    equal("wrong model", client.is_model_ready("simpel"), False)

    server = client.get_server_metadata()
    # Programs written for Triton exit if the name is different.
    equal("server name", server["name"], "triton")
    if not server["version"]:
        raise SystemExit(f"the server has no version: {server}")
    for extension in ("binary_tensor_data", "classification", "parameters"):
        if extension not in server["extensions"]:
            raise SystemExit(f"{extension} is offered and not among {server['extensions']}")

    model = client.get_model_metadata("simple", query_params={"a": [1, 2]})
    equal("name", [model["name"], model["versions"]], ["simple", ["1"]])
    equal("inputs", [(put["name"], put["datatype"], put["shape"]) for put in model["inputs"]],
          [("INPUT0", "INT32", [-1, 16]), ("INPUT1", "INT32", [-1, 16])])
    equal("outputs", [put["name"] for put in model["outputs"]], ["OUTPUT0", "OUTPUT1"])
    refused("a wrong model", lambda: client.get_model_metadata("wrong_model_name"), "Request for unknown model")
