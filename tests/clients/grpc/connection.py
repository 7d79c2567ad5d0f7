"""Channel options: keep-alive, channel arguments, a client timeout, many clients."""

from concurrent.futures import ThreadPoolExecutor

import tritonclient.grpc as triton
from expect import ADDRESS, LEFT, RIGHT, equal, sum_and_difference
from tritonclient.utils import InferenceServerException


def inputs():
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT)
    tensors[1].set_data_from_numpy(RIGHT)
    return tensors


def ask(**ways):
    with triton.InferenceServerClient(ADDRESS, **ways) as client:
        for _ in range(3):
            sum_and_difference(client.infer("simple", inputs(), client_timeout=60))


alive = triton.KeepAliveOptions(
    keepalive_time_ms=1_000,
    keepalive_timeout_ms=500,
    keepalive_permit_without_calls=True,
    http2_max_pings_without_data=0,
)
ask(keepalive_options=alive)
ask(channel_args=[("grpc.primary_user_agent", "mine"), ("grpc.max_receive_message_length", 1 << 20)])
ask(channel_args=[("grpc.http2.max_frame_size", 1 << 20), ("grpc.lb_policy_name", "pick_first")])
with ThreadPoolExecutor(16) as pool:
    list(pool.map(lambda _: ask(), range(32)))

# A timeout that cannot be met, after which the client continues.
with triton.InferenceServerClient(ADDRESS) as client:
    for timeout in (0.000_001, 0.000_01):
        try:
            client.infer("simple", inputs(), client_timeout=timeout)
        except InferenceServerException as error:
            equal("status", error.status(), "StatusCode.DEADLINE_EXCEEDED")
    sum_and_difference(client.infer("simple", inputs()))

# Frequent pings are no reason to close a connection.
often = triton.KeepAliveOptions(
    keepalive_time_ms=100, keepalive_timeout_ms=5_000, keepalive_permit_without_calls=True, http2_max_pings_without_data=0
)
with triton.InferenceServerClient(ADDRESS, keepalive_options=often) as client:
    for _ in range(300):
        sum_and_difference(client.infer("simple", inputs()))
