"""Shared memory, sequences, traces and log settings are refused clearly, and the server continues.
"""

from expect import ADDRESS, LEFT, PROTOCOL, RIGHT, equal, refused, sum_and_difference, triton

with triton.InferenceServerClient(ADDRESS) as client:
    handle = b"no handle"
    for what, call in {
        "shared memory": lambda: client.register_system_shared_memory("region", "/region", 64),
        "shared memory of a region": lambda: client.get_system_shared_memory_status("region"),
        "CUDA shared memory": lambda: client.register_cuda_shared_memory("region", handle, 0, 64),
        "CUDA shared memory of a region": lambda: client.get_cuda_shared_memory_status("region"),
        "trace settings": lambda: client.get_trace_settings(),
        "trace settings of a model": lambda: client.get_trace_settings("simple"),
        "new trace settings": lambda: client.update_trace_settings(settings={"trace_level": ["OFF"]}),
        "log settings": lambda: client.get_log_settings(),
        "new log settings": lambda: client.update_log_settings({"log_verbose_level": 1}),
    }.items():
        refused(what, call, "not supported")

    for what, status in {
        "shared memory": client.get_system_shared_memory_status(),
        "CUDA shared memory": client.get_cuda_shared_memory_status(),
    }.items():
        equal(what, len(status if PROTOCOL == "http" else status.regions), 0)
    for name in ("", "region"):
        client.unregister_system_shared_memory(name)
        client.unregister_cuda_shared_memory(name)

    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_shared_memory("region", 64)
    tensors[1].set_data_from_numpy(RIGHT)
    refused("an input in shared memory", lambda: client.infer("simple", tensors), "INPUT0", "shared memory")
    tensors[0] = triton.InferInput("INPUT0", [1, 16], "INT32")
    tensors[0].set_data_from_numpy(LEFT)
    output = triton.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("region", 64)
    refused("an output in shared memory", lambda: client.infer("simple", tensors, outputs=[output]), "shared memory")
    for sequence in (7, "seven"):
        more = dict(sequence_id=sequence, sequence_start=True)
        refused("a sequence", lambda: client.infer("simple", tensors, **more), "sequence", "not supported")
    sum_and_difference(client.infer("simple", tensors))
